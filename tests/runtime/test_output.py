"""What programs write: kept, complete, bounded."""

import subprocess

import pytest

from netwarren import Pod
from netwarren.kernel import netns
from netwarren.runtime import standing
from netwarren.runtime.program import SPLIT
from tests.runtime.conftest import eventually


def test_it_is_complete_right_after_the_end(pod: Pod) -> None:
    for _ in range(20):
        program = pod.popen(["/bin/sh", "-c", "echo one; echo two >&2; echo three"])
        program.wait(30)
        assert program.output == "one\ntwo\nthree\n"


def test_it_can_be_read_while_the_program_runs(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo up; exec sleep 1000"])
    eventually(lambda: program.output == "up\n")
    assert program.state == "running"


def test_reading_does_not_consume(pod: Pod) -> None:
    program = pod.popen(["echo", "hi"])
    program.wait(30)
    assert [program.output, program.output] == ["hi\n", "hi\n"]


def test_standard_error_may_be_kept_apart(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo out; echo err >&2"], stderr=SPLIT)
    program.wait(30)
    assert (program.output, program.errors) == ("out\n", "err\n")


def test_streams_of_the_callers_are_left_to_the_caller(pod: Pod) -> None:
    program = pod.popen(
        ["/bin/sh", "-c", "echo out; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stderr is not None
    assert (program.stdout.read(), program.stderr.read()) == ("out\n", "err\n")
    assert (program.wait(30), program.output, program.errors) == (0, "", "")


def test_with_a_stdout_of_the_callers_errors_are_still_kept(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo out; echo err >&2"], stdout=subprocess.DEVNULL)
    program.wait(30)
    assert program.output == "err\n"


def test_a_flood_is_bounded_and_its_end_is_kept(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "yes | head -c 50000000; echo the end"], limit=100_000)
    assert program.wait(60) == 0
    first, _, rest = program.output.partition("\n")
    assert first == f"[{50_000_000 + len('the end') + 1 - 100_000} bytes before this were dropped]"
    assert len(rest) == 100_000
    assert rest.endswith("y\nthe end\n")


def test_a_flood_without_end_can_be_looked_at(pod: Pod) -> None:
    program = pod.popen(["yes"], limit=1000)
    quiet = pod.popen(["echo", "heard"])
    quiet.wait(30)
    assert quiet.output == "heard\n"
    eventually(lambda: program.output.startswith("["))
    assert len(program.output) < 1100
    program.kill()


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_small_bounds_hold(pod: Pod, limit: int) -> None:
    program = pod.popen(["printf", "0123456789"], limit=limit)
    program.wait(30)
    assert program.output == f"[{10 - limit} bytes before this were dropped]\n{'0123456789'[10 - limit :]}"


def test_what_just_fits_is_all_there(pod: Pod) -> None:
    program = pod.popen(["printf", "0123456789"], limit=10)
    program.wait(30)
    assert program.output == "0123456789"


def test_bytes_that_are_no_text_are_shown_all_the_same(pod: Pod) -> None:
    program = pod.popen(["printf", r"a\377b"])
    program.wait(30)
    assert program.output == "a�b"


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "sleep 1000 & echo started"])
    assert program.wait(30) == 0
    assert program.output == "started\n"


def test_output_after_the_pod_has_ended_is_still_there(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo up; exec sleep 1000"])
    eventually(lambda: program.output == "up\n")
    pod.remove()
    assert (program.output, program.state) == ("up\n", "killed by SIGKILL")


def test_the_thread_that_reads_stands_at_home_wherever_it_was_started() -> None:
    import threading

    def inode(thread: threading.Thread) -> int:
        return netns.inode_of(f"/proc/self/task/{thread.native_id}/ns/net")

    for thread in threading.enumerate():
        if thread.name in ("netwarren-output", "netwarren-ferry"):
            assert inode(thread) == standing.home().inode
