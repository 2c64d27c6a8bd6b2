"""What programs write: kept, complete, bounded."""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from netwarren import Pod, Program
from netwarren.errors import ProgramError
from netwarren.kernel import netns
from netwarren.runtime import output, spill, standing
from netwarren.runtime.output import Output
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


FLOOD = "import sys; [sys.stdout.write(f'line {number:94}\\n') for number in range(200_000)]"  # 20 MB


def flood(pod: Pod) -> Program:
    program = pod.popen([sys.executable, "-c", FLOOD])
    assert program.wait(60) == 0
    return program


def temporary_files() -> list[str]:
    """What this process has open of what nobody can find, and what is left for somebody to find."""
    opened = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            opened.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    deleted = [
        name for name in opened if name.startswith(tempfile.gettempdir()) and name.endswith("(deleted)")
    ]
    return deleted + [str(left) for left in Path(tempfile.gettempdir()).glob("netwarren-output-*")]


def test_of_a_flood_nothing_is_lost(pod: Pod) -> None:
    program = flood(pod)
    assert list(program.whole_output()) == [f"line {number:94}\n" for number in range(200_000)]
    assert len(program.output) < 5 << 20
    assert program.output.endswith(f"line {199_999:94}\n")


def test_what_a_flood_has_driven_out_can_be_waited_for(pod: Pod) -> None:
    program = flood(pod)
    for number in (0, 1, 43_690, 99_999, 199_999):
        assert program.wait_for_output(rf"^line +{number}$")[0] == f"line {number:94}"
    with pytest.raises(ProgramError, match="has exited 0 too early"):
        program.wait_for_output(r"^ine +1$")


def test_a_flood_leaves_neither_file_nor_descriptor(pod: Pod, other: Pod) -> None:
    before = temporary_files()
    other.check_output(["true"])
    assert temporary_files() == before
    program = flood(pod)
    assert len(temporary_files()) == len(before) + 1
    tail = program.output
    pod.remove()
    assert temporary_files() == before
    assert program.output == tail
    missing, *rest = program.whole_output()
    assert missing == f"[{20_000_000 - len(''.join(rest))} bytes are missing here]\n"
    assert "".join(rest) == tail.partition("\n")[2]


def test_all_runs_of_a_program_are_there_and_one_is_searched(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo run; yes | head -c 3000"], limit=100)
    program.wait(30)
    program.restart()
    program.wait(30)
    lines = list(program.whole_output())
    run = ["run\n", *["y\n"] * 1500]
    assert lines == [*run, "[restart 1: before it was exited 0]\n", *run]
    with pytest.raises(ProgramError):
        program.wait_for_output("restart 1")
    assert program.wait_for_output("^run$").start() == 0


def test_a_full_disk_is_told_and_breaks_nothing(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_unnamed", lambda: io.FileIO("/dev/full", "w"))
    program = pod.popen(["printf", "0123456789"], limit=4)
    assert program.wait(30) == 0
    assert (
        program.output
        == "[6 bytes before this were dropped, 6 of them for good: No space left on device]\n6789"
    )
    assert "".join(program.whole_output()) == "[6 bytes are missing here]\n6789"
    assert program.wait_for_output("[0-9]+")[0] == "6789"


class Filled(io.FileIO):
    """A disk with room for ten bytes."""

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        room = 10 - self.tell()
        if not room:
            raise OSError(28, "No space left on device")
        return super().write(data[:room])


def test_what_a_disk_had_room_for_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_unnamed", lambda: Filled(tmp_path / "file", "w+"))
    read, write = os.pipe()
    kept = Output(read, limit=5)
    os.write(write, b"first\nsecond\nthird\n")
    os.close(write)
    assert (
        kept.text()
        == "[14 bytes before this were dropped, 4 of them for good: No space left on device]\nhird\n"
    )
    assert list(kept.lines()) == ["first\n", "seco\n", "[4 bytes are missing here]\n", "hird\n"]
    assert kept.search(re.compile("hird")) is not None
    assert kept.search(re.compile("ond|cohird")) is None
    kept.release()


@pytest.mark.parametrize("longest", [4, 7, 64])
def test_a_search_in_parts_finds_what_one_search_finds(monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    monkeypatch.setattr(output, "_LONGEST_MATCH", longest)
    read, write = os.pipe()
    kept = Output(read, limit=10)
    text = ""
    for number in range(60):
        line = f"{number} " + "ä" * (number % 5) + "\n"
        os.write(write, line.encode())
        text += line
        assert kept.search(re.compile("never")) is None
        assert kept.search(re.compile(rf"^{number} ", re.MULTILINE)) is not None
    os.close(write)
    assert "".join(kept.lines()) == text
    for number in range(60):
        found = kept.search(re.compile(rf"^{number}(?= )", re.MULTILINE))
        assert found is not None
        assert found[0] == str(number)
    kept.release()


def test_a_line_without_end_comes_in_pieces(pod: Pod) -> None:
    program = pod.popen([sys.executable, "-c", "print('x' * 1_000_000, end='')"], limit=1000)
    assert program.wait(30) == 0
    pieces = list(program.whole_output())
    assert max(map(len, pieces)) <= 2 << 16
    assert "".join(pieces) == "x" * 1_000_000


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

    home = standing.home().inode
    paths = [
        f"/proc/self/task/{each.native_id}/ns/net"
        for each in threading.enumerate()
        if each.name in ("netwarren-output", "netwarren-ferry")
    ]
    # One that was started just now may still be on its way.
    eventually(lambda: all(netns.inode_of(path) == home for path in paths))
