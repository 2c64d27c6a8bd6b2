"""A suite on several machines, by pytest-xdist over ssh: each is a pod with an sshd of its own, and a fourth one drives."""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from netwarren import Cluster, Pod, port
from tests.plugin.conftest import Session

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
PORT = 2222
HOSTS = ("host-a", "host-b", "host-c")

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: apt-get install openssh-server)"),
    pytest.mark.skipif(
        shutil.which("ssh") is None, reason="ssh is not installed (Debian: apt-get install openssh-client)"
    ),
    pytest.mark.skipif(
        not os.access(pwd.getpwuid(os.geteuid()).pw_shell, os.X_OK)
        or "nologin" in pwd.getpwuid(os.geteuid()).pw_shell,
        reason="this user has no shell to log in to",
    ),
]

SERVER = """
Port {port}
ListenAddress 0.0.0.0
HostKey {place}/{host}
AuthorizedKeysFile {place}/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
SetEnv HOME={place}
PermitUserRC no
"""
"""The shell that it starts reads none of the user's files, which may do anything, such as wait for a lock."""

CLIENT = """
Host *
    Port {port}
    User {user}
    IdentityFile {place}/user
    IdentitiesOnly yes
    UserKnownHostsFile {place}/known
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
"""

# Each test says on which machine it ran and in which user namespace.
TESTS = """
    import os
    import socket
    import pytest

    @pytest.mark.parametrize("number", range(24))
    def test_it(cluster, number):
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-b")
        with server:
            listening = socket.create_server(("", 8080))
        with listening, client, socket.create_connection((server.ip, 8080), 30) as connection:
            accepted, address = listening.accept()
            with accepted:
                assert address[0] == client.ip
        machine = os.environ["SSH_CONNECTION"].split()[2]
        sandbox = os.readlink("/proc/self/ns/user")
        with open({seen!r}, "a") as file:
            print(machine, sandbox, os.getpid(), number, file=file)
"""


@dataclass
class Machines:
    """Pods with an sshd each, and the pod whose user has the key to them; in ``place`` is what they need."""

    desk: Pod
    hosts: dict[str, Pod]
    place: Path
    session: Session

    def tx(self, host: str, workers: int = 1, python: str = sys.executable) -> str:
        """``--tx`` for so many workers on ``host``, which share a directory there."""
        there = self.place / "machines" / host
        there.mkdir(parents=True)
        return (
            f"--tx={workers}*ssh={host}//ssh_config={self.place}/client.conf//python={python}//chdir={there}"
        )

    def run(self, text: str, *workers: str, settings: str = "") -> str:
        """Run a suite of one file from the desk, on ``workers``; returns what was written by one that passes."""
        self.session.file("suite/pytest.ini", f"[pytest]\nfilterwarnings = error\n{settings}\n")
        self.session.file("suite/test_it.py", text)
        suite = str(self.session.path / "suite")
        # pytest-xdist calls this deprecated, and has nothing else yet that brings tests to another machine.
        quiet = ("-W", "ignore::DeprecationWarning")
        words = self.session.arguments(
            *quiet, *workers, "--dist=load", f"--rsyncdir={suite}", suite, plugins="xdist"
        )
        program = self.desk.popen(words, cwd=self.session.path)
        assert program.wait(100) == 0, program.output
        return program.output


@pytest.fixture
def machines(cluster: Cluster, session: Session, tmp_path: Path) -> Machines:
    """Three machines with an sshd, and a desk."""
    for name in ("user", *HOSTS):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True
        )
    hosts = {}
    known = []
    for place, host in enumerate(HOSTS):
        pod = hosts[host] = cluster.add_pod(host, ("node-a", "node-b")[place % 2])
        key = Path(tmp_path, f"{host}.pub").read_text()
        known.append(f"[{host}]:{PORT},[{pod.ip}]:{PORT} {key}")
        config = tmp_path / f"{host}.conf"
        config.write_text(SERVER.format(port=PORT, place=tmp_path, host=host))
        if os.geteuid() == 0:
            pod.private_directory(
                "/run/sshd", mode=0o755
            )  # an sshd of root's shuts half of itself up in there
        assert SSHD is not None
        pod.popen([SSHD, "-D", "-e", "-f", str(config)], ready=port(PORT))
    Path(tmp_path, "known").write_text("".join(known))
    user = pwd.getpwuid(os.geteuid()).pw_name
    Path(tmp_path, "client.conf").write_text(CLIENT.format(port=PORT, place=tmp_path, user=user))
    return Machines(cluster.add_pod("desk"), hosts, tmp_path, session)


def test_a_suite_is_spread_over_machines_each_of_which_enters_its_own_sandbox(machines: Machines) -> None:
    seen = machines.place / "seen"
    workers = [machines.tx(host, workers=2) for host in HOSTS]
    assert "24 passed" in machines.run(TESTS.format(seen=str(seen)), *workers)
    ran = [line.split() for line in seen.read_text().splitlines()]
    assert sorted(int(number) for *_, number in ran) == list(range(24))
    assert {machine for machine, *_ in ran} == {pod.ip for pod in machines.hosts.values()}
    # A sandbox for each of two workers on three machines, and none of them is this one.
    assert len({(machine, sandbox) for machine, sandbox, *_ in ran}) == 6
    assert os.readlink("/proc/self/ns/user") not in {sandbox for _machine, sandbox, *_ in ran}


def test_a_suite_that_uses_no_cluster_enters_no_sandbox_on_other_machines(machines: Machines) -> None:
    text = f"""
        import os

        def test_it():
            assert os.readlink("/proc/self/ns/user") == {os.readlink("/proc/self/ns/user")!r}
            assert os.environ["SSH_CONNECTION"]
    """
    assert "1 passed" in machines.run(text, machines.tx(HOSTS[0]))


def test_the_setting_of_the_id_map_goes_to_other_machines(machines: Machines) -> None:
    text = """
        import os

        def test_it(cluster):
            assert os.environ["SSH_CONNECTION"]
            assert cluster.add_pod("pod").run(os.getuid) == 0
    """
    settings = "netwarren_map = root"
    assert "1 passed" in machines.run(text, machines.tx(HOSTS[0]), settings=settings)
