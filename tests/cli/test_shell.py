"""``netwarren shell PID NAME -- COMMAND``: stepping into a running process's cluster."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from netwarren.sandbox.entry import MARKER

OWNER = """
import os
from netwarren import Cluster
with Cluster("shop", nodes=["node-a"]) as cluster:
    web = cluster.add_pod("web")
    db = cluster.add_pod("db")
    apart = cluster.add_pod("apart", pid_namespace=True)
    web.private_directory("/opt", files={"note": "private\\n"})
    print(os.getpid(), flush=True)
    for machine in (web, db, apart, cluster.node("node-a"), cluster.root):
        print(machine.name, machine.inode, flush=True)
    print(cluster.step_in_command("web"), flush=True)
    print(os.readlink("/proc/self/ns/user"), flush=True)
    input()
"""


class Owner:
    """A process that holds a cluster, and what it told of itself."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process = process
        self.pid = process.stdout.readline().strip()
        self.inodes = {
            name: int(inode) for name, inode in (process.stdout.readline().split() for _ in range(5))
        }
        self.command = process.stdout.readline().strip()
        self.userns = process.stdout.readline().strip()


def outside() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != MARKER}


@pytest.fixture
def owner() -> Iterator[Owner]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=outside(),
    )
    try:
        yield Owner(process)
    finally:
        process.communicate("\n", timeout=60)
    assert process.returncode == 0


def shell(*words: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        [sys.executable, "-m", "netwarren", "shell", *words],
        env=outside(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    return result


NETNS = [sys.executable, "-c", "import os; print(os.stat('/proc/self/ns/net').st_ino)"]


@pytest.mark.parametrize(
    ("name", "machine"),
    [("web.shop", "web"), ("web", "web"), ("db", "db"), ("node-a", "node-a"), ("shop", "root")],
)
def test_the_command_runs_in_the_named_namespace(owner: Owner, name: str, machine: str) -> None:
    assert int(shell(owner.pid, name, "--", *NETNS).stdout) == owner.inodes[machine]


def test_without_a_name_it_is_the_only_clusters_root(owner: Owner) -> None:
    assert int(shell(owner.pid, "--", *NETNS).stdout) == owner.inodes["root"]


def test_the_printed_command_works_as_printed(owner: Owner) -> None:
    line = f"{owner.command} -- {shlex.join(NETNS)}"
    printed = subprocess.run(
        line, shell=True, env=outside(), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert int(printed) == owner.inodes["web"]


def test_the_command_keeps_its_uid_and_has_capabilities(owner: Owner) -> None:
    check = (
        "import os; from netwarren.kernel.capability import has; "
        "print(os.getuid(), os.readlink('/proc/self/ns/user'), has(12, 21))"
    )
    printed = shell(owner.pid, "web", "--", sys.executable, "-c", check).stdout
    assert printed == f"{os.getuid()} {owner.userns} True\n"


def test_the_command_knows_that_it_is_inside(owner: Owner) -> None:
    check = "import os; from netwarren.sandbox import inside; print(inside(), os.environ['NETWARREN_IN'])"
    assert shell(owner.pid, "web", "--", sys.executable, "-c", check).stdout == "True web.shop\n"


def test_the_command_sees_the_names_of_namespaces(owner: Owner) -> None:
    check = "import os; from netwarren.sandbox import names; print(*sorted(os.listdir(names.directory())))"
    printed = shell(owner.pid, "web", "--", sys.executable, "-c", check).stdout
    assert printed == "apart.shop db.shop node-a.shop shop web.shop\n"


def test_its_exit_status_is_the_commands(owner: Owner) -> None:
    shell(owner.pid, "web", "--", "/bin/sh", "-c", "exit 9", status=9)
    shell(owner.pid, "web", "--", "no-such-program", status=127)


def test_the_working_directory_stays(owner: Owner) -> None:
    assert shell(owner.pid, "web", "--", "/bin/pwd").stdout.strip() == os.getcwd()


def test_an_unknown_name_lists_those_there_are(owner: Owner) -> None:
    error = shell(owner.pid, "nobody", status=1).stderr
    assert "no network namespace is called 'nobody'" in error
    assert "web.shop" in error


SEEN = ["/bin/sh", "-c", "cat /etc/hostname; uname -n; ls /sys/class/net; cat /opt/note"]


def test_a_pod_is_seen_as_its_programs_see_it(owner: Owner) -> None:
    printed = shell(owner.pid, "web", "--", *SEEN).stdout
    assert printed == "web\nweb\neth0\nlo\nprivate\n"


def test_a_pod_in_which_no_program_was_started_is_seen_with_the_hosts_files(owner: Owner) -> None:
    read = shell(owner.pid, "db", "--", "/bin/sh", "-c", "cat /etc/hosts; uname -n").stdout
    with open("/etc/hosts") as hosts:
        assert read == f"{hosts.read()}{os.uname().nodename}\n"


def test_in_a_pod_with_a_pid_namespace_the_command_is_one_of_its_processes(owner: Owner) -> None:
    check = (
        "import os; from netwarren.sandbox import inside; own = os.getpid(); "
        "seen = sorted(int(entry) for entry in os.listdir('/proc') if entry.isdigit()); "
        "print(seen == [1, own], os.readlink('/proc/self') == str(own), inside(), os.stat('/proc/self/ns/net').st_ino)"
    )
    printed = shell(owner.pid, "apart", "--", sys.executable, "-c", check).stdout
    assert printed == f"True True True {owner.inodes['apart']}\n"
    shell(owner.pid, "apart", "--", "/bin/sh", "-c", "exit 9", status=9)


def test_a_process_that_is_gone_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    error = shell(str(process.pid), "web", status=1).stderr
    assert f"step into the sandbox of process {process.pid}" in error
    assert len(error.splitlines()) == 1


def test_a_process_without_a_sandbox_is_told() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        # Not a name that a pod of another worker may have, in whose sandbox the process is.
        error = shell(str(process.pid), "a-name-that-nobody-has", status=1).stderr
    finally:
        process.communicate("\n", timeout=60)
    assert error.startswith("netwarren: ")
    assert len(error.splitlines()) == 1
