"""The end of programs with their pod: children, grandchildren, daemons; nothing is left, no zombie either."""

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from netwarren import Cluster, Pod
from netwarren.runtime.program import Program
from tests.runtime.conftest import eventually


def pids(program: Program, count: int = 1) -> list[int]:
    """The pids that the program has printed, once it has printed them all."""
    eventually(lambda: len(program.output.split()) >= count)
    return [int(word) for word in program.output.split()]


def ended(handle: int) -> bool:
    """Whether the process behind a pidfd ends (as it does after SIGKILL)."""
    with open(handle, "rb", closefd=True) as process:
        return bool(select.select([process], [], [], 30)[0])


FAMILIES = {
    "child": "sleep 1000 & echo $!; wait",
    "orphan": "(sleep 1000 & echo $!); wait; exec sleep 1000",
    "session": "setsid sleep 1000 & echo $!; wait",
    "daemon": "(setsid sh -c 'echo $$; exec sleep 1000' & ) ; exec sleep 1000",
    "deaf": "trap '' TERM HUP INT; (trap '' TERM; exec sleep 1000) & echo $!; while :; do wait; done",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["close", "remove"])
def test_programs_end_with_their_pod_and_all_they_started(
    cluster: Cluster, pod: Pod, family: str, end: str
) -> None:
    program = pod.popen(["/bin/sh", "-c", FAMILIES[family]])
    handles = [os.pidfd_open(pid) for pid in pids(program)]
    cluster.close() if end == "close" else cluster.remove_pod(pod)
    assert program.returncode == -signal.SIGKILL
    assert all(ended(handle) for handle in handles)


def test_a_daemon_outlives_its_program_but_not_the_pod(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "(setsid sh -c 'echo $$; exec sleep 1000' & )"])
    (pid,) = pids(program)
    assert program.wait(30) == 0
    handle = os.pidfd_open(pid)
    cluster.remove_pod(pod)
    assert ended(handle)


def test_a_daemon_of_a_plain_subprocess_does_not_outlive_the_pod_either(cluster: Cluster, pod: Pod) -> None:
    with pod:
        out = subprocess.check_output(
            ["/bin/sh", "-c", "(setsid sh -c 'exec >/dev/null; exec sleep 1000' & echo $!)"], text=True
        )
    handle = os.pidfd_open(int(out))
    cluster.close()
    assert ended(handle)


def test_programs_of_other_pods_go_on(cluster: Cluster, pod: Pod, other: Pod) -> None:
    stays = other.popen(["sleep", "1000"])
    pod.popen(["sleep", "1000"])
    cluster.remove_pod(pod)
    assert stays.state == "running"
    assert cluster.add_pod("third").popen(["true"]).wait(30) == 0


def test_a_program_that_moved_to_another_namespace_ends_as_well(cluster: Cluster, pod: Pod) -> None:
    script = "from netwarren.kernel import netns; netns.create('away'); print(1, flush=True); import signal; signal.pause()"
    program = pod.popen([sys.executable, "-c", script])
    pids(program)
    cluster.remove_pod(pod)
    assert program.returncode == -signal.SIGKILL


def test_no_zombie_is_left(cluster: Cluster, pod: Pod) -> None:
    programs = [pod.popen(["true"]), pod.popen(["sleep", "1000"]), pod.popen(["false"], may_exit=True)]
    cluster.close()
    for program in programs:
        with pytest.raises(ProcessLookupError):
            os.kill(program.pid, 0)


def test_the_thread_that_called_may_end_long_before_the_program(cluster: Cluster, pod: Pod) -> None:
    """The kernel's parent-death signal is for the end of a thread."""
    started = []
    thread = threading.Thread(target=lambda: started.append(pod.popen(["cat"], stdin=subprocess.PIPE)))
    thread.start()
    thread.join()
    (program,) = started
    assert program.stdin is not None
    program.stdin.write(b"still here")
    program.stdin.close()
    assert program.wait(30) == 0
    assert program.output == "still here"


def test_started_from_inside_a_pod_that_is_then_removed_others_go_on(
    cluster: Cluster, pod: Pod, other: Pod
) -> None:
    """Whatever serves all programs must not stand in the pod of the first."""
    with pod:
        first = other.popen(["cat"], stdin=subprocess.PIPE)
    cluster.remove_pod(pod)
    assert first.state == "running"
    assert cluster.add_pod("third").popen(["true"]).wait(30) == 0


def test_the_same_in_a_process_that_has_started_no_program_before() -> None:
    script = """
import threading
from netwarren import Cluster
from netwarren.kernel import netns, process
with Cluster() as cluster:
    pod, other = cluster.add_pod("a"), cluster.add_pod("b")
    with pod:
        first = other.popen(["sleep", "1000"])
    assert process.standing_in({pod.inode}) == []
    for thread in threading.enumerate():
        assert netns.inode_of(f"/proc/self/task/{thread.native_id}/ns/net") != pod.inode, thread
    cluster.remove_pod(pod)
    assert cluster.add_pod("c").popen(["true"]).wait(30) == 0
    assert first.state == "running"
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
