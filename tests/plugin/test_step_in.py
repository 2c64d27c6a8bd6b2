"""The line that says how to step in from a shell, and the command in it, run as printed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.plugin.conftest import Running, Session

LOOK = "import os; print(os.readlink('/proc/self/ns/net'), os.getuid(), os.getcwd())"

BLOCKED = """
    import os

    def test_blocks(cluster):
        pod = cluster.add_pod("client")
        print("root is", cluster.root.inode, flush=True)
        print("pod is", pod.inode, flush=True)
        print("at the pod:", cluster.step_in_command("client"), flush=True)
        with open("goes-on") as fifo:
            fifo.read()
"""


class Blocked:
    """A session whose only test waits at a fifo."""

    def __init__(self, session: Session, *arguments: str, plugins: str = "") -> None:
        session.file("test_it.py", BLOCKED)
        self.path = session.path
        self.fifo = session.path / "goes-on"
        os.mkfifo(self.fifo)
        self.running: Running = session.start("-s", *arguments, plugins=plugins)

    def after(self, words: str) -> str:
        return self.running.line(words).removeprefix(words).strip()

    def passes(self) -> None:
        self.fifo.write_text("")
        assert self.running.end() == 0, self.running.text


def run(line: str, *words: str, cwd: Path) -> str:
    """Run ``line`` in a shell with nothing of this process's but what a login has."""
    command = shlex.join(["--", *words])
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        f"{line} {command}", shell=True, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_printed_command_steps_into_the_clusters_root(session: Session, tmp_path: Path) -> None:
    blocked = Blocked(session)
    line = blocked.after("netwarren: step in with:")
    network, uid, cwd = run(line, sys.executable, "-c", LOOK, cwd=tmp_path).split()
    assert network == f"net:[{blocked.after('root is')}]"
    assert int(uid) == os.getuid()
    assert cwd == str(tmp_path)
    interfaces = run(line, "cat", "/proc/net/dev", cwd=tmp_path)
    assert "br0:" in interfaces
    blocked.passes()


def test_command_for_a_pod_steps_into_that_pod_and_may_change_its_network(
    session: Session, tmp_path: Path
) -> None:
    blocked = Blocked(session)
    line = blocked.after("at the pod:")
    network, *_ = run(line, sys.executable, "-c", LOOK, cwd=tmp_path).split()
    assert network == f"net:[{blocked.after('pod is')}]"
    assert "eth0:" in run(line, "cat", "/proc/net/dev", cwd=tmp_path)
    raw = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('may')"
    assert run(line, sys.executable, "-W", "ignore", "-c", raw, cwd=tmp_path) == "may\n"
    # As in the report of a failing test: the cluster's line, with the name of a pod for its last word.
    by_name = blocked.after("netwarren: step in with:").removesuffix("test_blocks") + "client"
    assert network == run(by_name, sys.executable, "-c", LOOK, cwd=tmp_path).split()[0]
    blocked.passes()


def test_printed_command_works_for_the_fork_way_too(session: Session, tmp_path: Path) -> None:
    session.file("conftest.py", THREAD)
    blocked = Blocked(session)
    line = blocked.after("netwarren: step in with:")
    network, *_ = run(line, sys.executable, "-c", LOOK, cwd=tmp_path).split()
    assert network == f"net:[{blocked.after('root is')}]"
    blocked.passes()


THREAD = """
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_line_is_not_in_the_way_of_a_passing_test(session: Session) -> None:
    session.file("test_it.py", "def test_it(cluster): pass\n")
    result = session.passes(passed=1)
    assert "step in" not in result.stdout.str() + result.stderr.str()


def test_line_is_shown_with_a_failing_test_of_a_worker(session: Session) -> None:
    session.file("test_it.py", "def test_it(cluster): assert 0\n")
    result = session.run("-n1", plugins="xdist")
    result.stdout.fnmatch_lines(["netwarren: step in with: * -m netwarren shell * test_it"])


def test_wrong_process_or_name_is_one_line(session: Session) -> None:
    blocked = Blocked(session)
    *command, pid, _name = shlex.split(blocked.after("netwarren: step in with:"))
    for words, told in (
        (["1"], "cannot step into the sandbox of process 1*"),
        ([pid, "nobody"], "no network namespace is called 'nobody'; there are: *client.test_blocks*"),
    ):
        done = session.pytester.run(*command, *words, "--", "true", timeout=30)
        assert done.ret == 1
        done.stderr.fnmatch_lines([f"netwarren: {told}"])
        assert len([line for line in done.errlines if line]) == 1
    blocked.passes()
