"""The warden: one that was killed is followed by another, and one that cannot be started is told as what it is."""

import os
import select
import signal
import subprocess
import sys

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import KernelError, ProgramError
from netwarren.runtime import warden


def kill_the_warden() -> int:
    """The pid it had; it is dead, and nobody has waited for it."""
    pid = warden.pid()
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 30)[0] == [handle]
    os.close(handle)
    return pid


def test_after_its_death_programs_start_as_before(pod: Pod, other: Pod) -> None:
    pod.check_output(["true"])
    before = kill_the_warden()
    assert pod.check_output(["echo", "known"]) == "known\n"
    assert warden.pid() not in (0, before)
    kill_the_warden()
    assert other.check_output(["echo", "new"]) == "new\n"


def test_after_its_death_a_pid_namespace_can_be_made(cluster: Cluster, pod: Pod) -> None:
    pod.check_output(["true"])
    kill_the_warden()
    assert cluster.add_pod("apart", pid_namespace=True).check_output(["echo", "hi"]) == "hi\n"


def test_after_its_death_pods_and_clusters_end_as_before(cluster: Cluster, pod: Pod, other: Pod) -> None:
    programs = [each.popen(["sleep", "1000"]) for each in (pod, other)]
    kill_the_warden()
    cluster.remove_pod(other)
    cluster.close()
    assert [program.state for program in programs] == ["killed by SIGKILL"] * 2


FOLLOWED = """
import os, select, signal, sys, threading
from netwarren import Cluster
from netwarren.runtime import warden
cluster = Cluster()
pods = [cluster.add_pod(name) for name in ("a", "b", "c")]
def start(pod):
    command = ["/bin/sh", "-c", "setsid sleep 1000 & echo up; wait"]
    pod.popen(command, stderr=sys.stderr).wait_for_output("up")
start(pods[0])
start(pods[1])
pods[1].remove()
handle = os.pidfd_open(warden.pid())
signal.pidfd_send_signal(handle, signal.SIGKILL)
select.select([handle], [], [])
start(pods[2])
print("ready", flush=True)
threading.Event().wait()
"""


def test_who_follows_knows_of_the_pods_before_it() -> None:
    read, write = os.pipe()  # everybody in there holds the other end
    with (
        subprocess.Popen([sys.executable, "-c", FOLLOWED], stdout=subprocess.PIPE, stderr=write) as owner,
        open(read) as rest,
    ):
        os.close(write)
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        owner.kill()
        owner.wait()
        assert select.select([rest], [], [], 30)[0] == [rest]
        assert rest.read() == ""  # ends with the last of them


def test_one_that_cannot_be_started_is_told_as_such(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.check_output(["true"])
    for _time in range(2):  # and not as something else when it is tried again
        if warden.pid():
            kill_the_warden()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(ProgramError, match="cannot be started: start the warden") as raised:
                pod.popen(["true"])
            with (
                pod,
                pytest.raises(KernelError, match="It runs /no/such/python: see that this can be started"),
            ):
                subprocess.run(["true"])
        assert isinstance(raised.value.__cause__, KernelError)
    assert pod.check_output(["echo", "again"]) == "again\n"
