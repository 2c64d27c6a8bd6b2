"""No program dies in silence: an end nobody expected is told with the end of the pod or cluster."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod, Program, log
from netwarren.errors import ProgramError
from tests.runtime.conftest import eventually


def until_it_ended(program: Program) -> None:
    """Wait without being one who has seen its end."""
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)


FAILS = ["/bin/sh", "-c", "echo a reason; exit 3"]
SERVER = ["/bin/sh", "-c", "echo up; read _; exit ${0}"]


def test_a_failure_nobody_saw_is_told_when_the_pod_is_removed(cluster: Cluster, pod: Pod) -> None:
    until_it_ended(pod.popen(FAILS))
    with pytest.raises(ProgramError, match=r"has exited 3 and nobody expected that") as raised:
        cluster.remove_pod(pod)
    assert raised.value.returncode == 3
    assert raised.value.output == "a reason\n"
    cluster.close()  # once is enough


def test_a_failure_nobody_saw_is_told_when_the_cluster_is_closed(cluster: Cluster, pod: Pod) -> None:
    until_it_ended(pod.popen(FAILS))
    until_it_ended(pod.popen(["/bin/sh", "-c", "kill -SEGV $$"]))
    with pytest.raises(ProgramError, match="has exited 3") as raised:
        cluster.close()
    (note,) = raised.value.__notes__
    assert "was killed by SIGSEGV" in note


def test_a_program_that_just_ends_is_fine(cluster: Cluster, pod: Pod) -> None:
    until_it_ended(pod.popen(["true"]))
    cluster.close()


@pytest.mark.parametrize("status", [0, 4])
def test_any_end_of_a_server_is_told(cluster: Cluster, pod: Pod, status: int) -> None:
    program = pod.popen([*SERVER, str(status)], stdin=subprocess.PIPE, ready=log("up"))
    assert program.stdin is not None
    program.stdin.close()
    until_it_ended(program)
    with pytest.raises(ProgramError, match=f"has exited {status} and nobody expected"):
        cluster.close()


def test_a_server_that_was_started_plainly_and_waited_for_is_one_too(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen([*SERVER, "0"], stdin=subprocess.PIPE)
    program.wait_ready(log("up"))
    assert program.stdin is not None
    program.stdin.close()
    until_it_ended(program)
    with pytest.raises(ProgramError, match="has exited 0"):
        cluster.close()


def test_a_server_that_lives_is_no_failure(cluster: Cluster, pod: Pod) -> None:
    pod.popen([*SERVER, "0"], stdin=subprocess.PIPE, ready=log("up"))
    cluster.close()


EXPECTED: dict[str, Callable[[Program], object]] = {
    "wait": lambda program: program.wait(30),
    "poll": lambda program: program.poll(),
    "returncode": lambda program: program.returncode,
    "state": lambda program: program.state,
    "stop": lambda program: program.stop(),
    "kill": lambda program: program.kill(),
    "terminate": lambda program: program.terminate(),
    "SIGINT": lambda program: program.send_signal(signal.SIGINT),
    "Popen": lambda program: program.process,
}


@pytest.mark.parametrize("way", EXPECTED)
def test_an_end_that_was_seen_or_asked_for_is_fine(cluster: Cluster, pod: Pod, way: str) -> None:
    program = pod.popen(FAILS)
    until_it_ended(program)
    EXPECTED[way](program)
    cluster.close()


@pytest.mark.parametrize("way", ["stop", "kill", "terminate", "SIGINT"])
def test_a_server_may_be_ended(cluster: Cluster, pod: Pod, way: str) -> None:
    program = pod.popen([*SERVER, "0"], stdin=subprocess.PIPE, ready=log("up"))
    EXPECTED[way](program)
    if way in ("terminate", "SIGINT"):
        until_it_ended(program)
    cluster.close()


def test_one_that_may_exit_is_fine(cluster: Cluster, pod: Pod) -> None:
    until_it_ended(pod.popen(FAILS, may_exit=True))
    cluster.close()


def test_looking_at_it_while_it_runs_does_not_make_its_end_expected(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen([*SERVER, "3"], stdin=subprocess.PIPE)
    assert (program.poll(), program.state, program.returncode) == (None, "running", None)
    assert program.stdin is not None
    program.stdin.close()
    until_it_ended(program)
    cluster.report()
    repr(program)
    with pytest.raises(ProgramError, match="has exited 3"):
        cluster.close()


@pytest.mark.parametrize("number", [0, signal.SIGCONT, signal.SIGWINCH])
def test_a_signal_that_ends_nothing_does_not_make_its_end_expected(
    cluster: Cluster, pod: Pod, number: int
) -> None:
    program = pod.popen([*SERVER, "3"], stdin=subprocess.PIPE)
    program.send_signal(number)
    assert program.stdin is not None
    program.stdin.close()
    until_it_ended(program)
    with pytest.raises(ProgramError, match="has exited 3"):
        cluster.close()


def test_what_was_raised_once_is_not_told_again(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(FAILS)
    until_it_ended(program)
    with pytest.raises(ProgramError, match="has exited 3 too early"):
        program.wait_for_output("never")
    cluster.close()


def test_a_program_whose_output_the_test_stopped_reading_is_fine(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["yes"], stdout=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.close()
    until_it_ended(program)
    cluster.close()


@pytest.mark.usefixtures("_netwarren_sandbox")
def test_a_programs_end_does_not_hide_what_failed_in_the_block() -> None:
    with pytest.raises(ZeroDivisionError) as raised, Cluster() as cluster:
        until_it_ended(cluster.add_pod("pod").popen(FAILS))
        _ = 1 / 0
    (note,) = raised.value.__notes__
    assert "has exited 3 and nobody expected that" in note
    assert "a reason" in note


def test_programs_that_fail_because_the_cluster_ends_are_no_failures(cluster: Cluster, pod: Pod) -> None:
    script = "trap 'exit 7' TERM; sleep 1000 & echo up; wait; exit 8"
    program = pod.popen(["/bin/sh", "-c", script], ready=log("up"))
    cluster.close()
    eventually(lambda: program.returncode is not None)
