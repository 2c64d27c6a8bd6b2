"""PostgreSQL: a primary, a streaming replica, and what happens when the primary's node is lost."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netwarren import Cluster, Pod, port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian keeps them out of PATH

pytestmark = pytest.mark.skipif(
    not (BINARIES or shutil.which("postgres")), reason="PostgreSQL's server is not installed"
)

OPTIONS = {"listen_addresses": "*", "unix_socket_directories": "", "fsync": "off", "hot_standby": "on"}

# PostgreSQL refuses to be run by root; anybody else runs it as themselves.
SOMEBODY: dict[str, Any] = (
    {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
)


def binary(name: str) -> str:
    return str(BINARIES[-1] / name) if BINARIES else name


@pytest.fixture
def data() -> Iterator[Path]:
    """A directory of whoever runs PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="netwarren-postgresql-") as name:
        if SOMEBODY:
            shutil.chown(name, SOMEBODY["user"], SOMEBODY["group"])
        yield Path(name)


class Server:
    """One PostgreSQL in a pod."""

    def __init__(self, pod: Pod, data: Path) -> None:
        self.pod = pod
        self.data = data

    def start(self) -> None:
        settings = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        self.pod.popen(
            [binary("postgres"), "-D", str(self.data), *settings], ready=port(5432), cwd="/", **SOMEBODY
        )

    def start_as_primary(self) -> None:
        self.run("initdb", "-D", str(self.data), "-U", "app", "--auth=trust", "--no-sync")
        with open(self.data / "pg_hba.conf", "a") as rules:
            rules.write("host all all all trust\nhost replication all all trust\n")
        self.start()

    def start_as_replica_of(self, primary: str) -> None:
        options = ["-R", "--checkpoint=fast", "--no-sync", "--wal-method=stream"]
        self.run("pg_basebackup", "-h", primary, "-U", "app", "-D", str(self.data), *options)
        self.start()

    def run(self, program: str, *words: str) -> None:
        self.pod.check_output([binary(program), *words], cwd="/", **SOMEBODY)


def test_the_replica_takes_over_with_all_that_was_committed(cluster: Cluster, data: Path) -> None:
    primary = Server(cluster.add_pod("primary", node="node-a"), data / "primary")
    replica = Server(cluster.add_pod("replica", node="node-b"), data / "replica")
    user = cluster.add_pod("user", node="node-b")

    def sql(host: str, text: str) -> str:
        words = ["--host", host, "--username", "app", "--dbname", "postgres", "-v", "ON_ERROR_STOP=1"]
        return user.check_output([binary("psql"), *words, "-Atc", text], cwd="/", timeout=30).strip()

    primary.start_as_primary()
    replica.start_as_replica_of("primary")
    sql("primary", "alter system set synchronous_standby_names = '*'")
    sql("primary", "select pg_reload_conf()")
    sql("primary", "create table colours (name text)")
    sql("primary", "set synchronous_commit = remote_apply; insert into colours values ('green')")
    assert sql("replica", "select name, pg_is_in_recovery() from colours") == "green|t"

    cluster.remove_node("node-a")
    assert sql("replica", "select pg_promote()") == "t"
    sql("replica", "alter system reset synchronous_standby_names")
    sql("replica", "select pg_reload_conf()")
    sql("replica", "insert into colours values ('red')")
    assert sql("replica", "select count(*) from colours") == "2"
