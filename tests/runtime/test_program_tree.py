"""A program and all it has started: killed, stopped, frozen and thawed together."""

import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from netwarren import Cluster, Pod, log, port
from netwarren.errors import ProgramError
from netwarren.kernel import process_tree
from tests.runtime.conftest import eventually

FAMILY = ["/bin/sh", "-c", "setsid sh -c 'echo $$; sleep 1000 & echo $!; wait' & wait"]


def ended(pids: list[int]) -> bool:
    """Whether the processes have ended, where nobody else has their pids."""
    return all((found := process_tree.look(pid)) is None or found.state == "Z" for pid in pids)


def test_pids_has_the_program_and_all_it_has_started(pod: Pod) -> None:
    program = pod.popen(FAMILY)
    match = program.wait_for_output(r"(\d+)\n(\d+)\n")
    inner, sleep = int(match[1]), int(match[2])
    pids = program.pids
    assert pids[0] == program.pid
    assert {inner, sleep} <= set(pids)


def test_kill_takes_children_in_other_sessions_along(pod: Pod) -> None:
    program = pod.popen(FAMILY)
    program.wait_for_output(r"(\d+)\n(\d+)\n")
    pids = program.pids
    program.kill()
    assert ended(pids)
    assert program.pids == []


def test_kill_leaves_other_programs_of_the_pod_alone(pod: Pod) -> None:
    stays, goes = pod.popen(["sleep", "1000"]), pod.popen(FAMILY)
    goes.wait_for_output(r"(\d+)\n(\d+)\n")
    goes.kill()
    assert stays.state == "running"


def test_kill_takes_what_a_program_left_behind(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "sleep 1000 & echo $!"])
    assert program.wait(30) == 0
    pids = program.pids
    assert pids == [int(program.output)]
    program.kill()
    assert ended(pids)
    assert program.returncode == 0


def test_stop_ends_what_a_program_leaves_behind(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "setsid sleep 1000 & echo $!; wait"])
    child = int(program.wait_for_output(r"(\d+)\n")[1])
    assert program.stop() == -signal.SIGTERM
    assert ended([child])


def test_a_frozen_program_does_nothing_until_it_is_thawed(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE)
    assert program.stdin is not None
    with program.freeze():
        assert program.state == "frozen"
        program.stdin.write(b"hello\n")
        program.stdin.flush()
        assert [member.state for member in program._tree.members()] == ["T"]
        assert program.output == ""
    program.wait_for_output("hello")
    assert program.state == "running"


def test_all_it_has_started_is_frozen_too(pod: Pod) -> None:
    program = pod.popen(FAMILY)
    program.wait_for_output(r"(\d+)\n(\d+)\n")
    program.freeze()
    assert {member.state for member in program._tree.members()} == {"T"}
    program.thaw()
    program.thaw()
    assert "T" not in {member.state for member in program._tree.members()}


def test_a_frozen_servers_kernel_still_accepts(pod: Pod, other: Pod) -> None:
    server = pod.popen([sys.executable, "-m", "http.server", "80"], ready=port(80))
    with server.freeze(), other.socket() as client:
        client.settimeout(0.05)
        client.connect((pod.ip, 80))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(socket.timeout):
            client.recv(1)
        server.thaw()
        client.settimeout(30)
        assert client.recv(4) == b"HTTP"


def test_a_frozen_program_can_be_stopped(pod: Pod) -> None:
    program = pod.popen(
        ["/bin/sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"], ready=log("up")
    )
    program.freeze()
    assert program.stop(30) == 5


def test_a_frozen_program_can_be_killed(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    program.freeze()
    program.kill()
    assert program.state == "killed by SIGKILL"


def test_a_frozen_program_ends_with_its_pod(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(FAMILY)
    program.wait_for_output(r"(\d+)\n(\d+)\n")
    handles = [os.pidfd_open(pid) for pid in program.pids]
    program.freeze()
    cluster.close()
    for handle in handles:
        with open(handle, "rb", closefd=True) as process:
            assert select.select([process], [], [], 30)[0]


def test_freezing_does_not_hide_an_unexpected_end(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo up; read _; exit 3"], stdin=subprocess.PIPE)
    program.wait_for_output("up")
    with program.freeze():
        pass
    assert program.stdin is not None
    program.stdin.close()
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProgramError, match="has exited 3"):
        cluster.close()


def test_what_has_ended_cannot_be_frozen(pod: Pod) -> None:
    program = pod.popen(["true"])
    program.wait(30)
    with pytest.raises(ProgramError, match="cannot be frozen: it has exited 0"):
        program.freeze()


def test_the_report_says_frozen_and_ready(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen([sys.executable, "-m", "http.server", "80"], ready=port(80))
    assert f"(pid {program.pid}): running, ready" in cluster.report()
    program.freeze()
    assert f"(pid {program.pid}): frozen, ready" in cluster.report()
    program.kill()
    eventually(lambda: f"(pid {program.pid}): killed by SIGKILL" in cluster.report())
