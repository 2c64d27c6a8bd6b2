"""After os.fork() in the user's code: the child can use pods, and ends nothing of the parent's."""

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable

from netwarren import Cluster, Pod
from netwarren.runtime import warden
from tests.runtime.conftest import eventually, where


def in_child(function: Callable[[], object]) -> None:
    """Call ``function`` in a forked child, and raise where it did."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(read)
        try:
            function()
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        failure = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert failure == ""


def test_the_child_can_step_into_pods(pod: Pod, other: Pod) -> None:
    def look() -> None:
        with pod:
            assert where() == pod.inode
        assert other.run(where) == other.inode

    in_child(look)


def test_the_child_can_start_programs(pod: Pod) -> None:
    pod.check_output(["true"])  # the parent's ferry, warden and reader run

    def start() -> None:
        assert pod.check_output(["echo", "hi"]) == "hi\n"

    in_child(start)


def test_the_childs_programs_see_the_pods_files(pod: Pod, other: Pod) -> None:
    place = pod.private_directory("/opt", files={"file": "parent's"})

    def start() -> None:
        assert pod.check_output(["cat", "/opt/file", "/etc/hostname"]) == "parent'sfirst\n"
        assert other.check_output(["cat", "/etc/hostname"]) == "second\n"  # made in the child

    in_child(start)
    assert (place / "file").read_text() == "parent's"
    assert pod.check_output(["cat", "/etc/hostname"]) == "first\n"
    assert other.check_output(["cat", "/etc/hostname"]) == "second\n"


def test_the_child_can_start_threads_and_make_sockets(pod: Pod) -> None:
    pod.socket().close()

    def start() -> None:
        assert pod.start(where).result(30) == pod.inode
        pod.socket().close()

    in_child(start)


def test_the_childs_end_spares_the_parents_programs(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE)

    def end() -> None:
        pod.popen(["true"]).wait(30)
        cluster.close()
        assert warden.pid() == 0  # nobody who would kill what stands in the parent's pods

    in_child(end)
    assert program.state == "running"
    assert not cluster.closed
    assert program.stdin is not None
    program.stdin.write(b"still here")
    program.stdin.close()
    assert program.wait(30) == 0
    assert program.output == "still here"


def test_the_childs_programs_end_with_the_child(pod: Pod) -> None:
    read, write = os.pipe()

    def start() -> None:
        pod.popen(["/bin/sh", "-c", "echo up; exec sleep 1000"], stderr=write)
        eventually(lambda: pod.programs[-1].output or pod.programs[-1].state != "running")

    in_child(start)
    os.close(write)
    with open(read) as pipe:
        assert pipe.read() == ""  # ends with the last of them


def test_what_the_childs_programs_started_ends_with_the_pod(cluster: Cluster, pod: Pod) -> None:
    read, write = os.pipe()

    def start() -> None:
        pod.popen(["/bin/sh", "-c", "(setsid sleep 1000 &); echo up; exec sleep 1000"], stderr=write)
        eventually(lambda: pod.programs[-1].output or pod.programs[-1].state != "running")

    in_child(start)
    os.close(write)
    cluster.close()
    with open(read) as pipe:
        assert pipe.read() == ""  # ends with the last of them


def test_the_parent_goes_on_as_before(pod: Pod, other: Pod) -> None:
    in_child(lambda: pod.run(where))
    assert pod.run(where) == pod.inode
    assert other.check_output(["echo", "hi"]) == "hi\n"


def test_a_child_forked_in_a_pod_comes_back_to_it(pod: Pod, other: Pod) -> None:
    def look() -> None:
        assert where() == pod.inode
        with other:
            pass
        assert where() == pod.inode

    with pod:
        in_child(look)


def test_multiprocessing_works_in_pods(pod: Pod) -> None:
    script = """
import multiprocessing
from netwarren import Cluster
from netwarren.kernel.netns import inode_of
if __name__ == "__main__":
    with Cluster() as cluster:
        pod = cluster.add_pod("a")
        pod.check_output(["true"])
        with pod, multiprocessing.get_context("fork").Pool(2) as pool:
            found = {pool.apply(inode_of) for _ in range(4)}
        assert found == {pod.inode}, found
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
