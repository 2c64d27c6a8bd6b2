"""`Program.wait_for_output` and `Program.streams`: talking with a program."""

import asyncio
import os
import re
import subprocess
import sys
import time

import pytest

from netwarren import Pod, log
from netwarren.errors import ConfigurationError, ProgramError

TALK = "while read word; do echo got $word; done"


def test_what_is_waited_for_is_returned_as_a_match(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "sleep 0.05; echo listening on port 4711; exec sleep 1000"])
    assert program.wait_for_output(r"port (\d+)")[1] == "4711"
    found = program.wait_for_output(re.compile("LISTENING", re.IGNORECASE))  # what is there already
    assert found[0] == "listening"


def test_each_line_has_a_beginning_and_an_end(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo one; echo two; echo three"])
    assert program.wait_for_output("^two$").span() == (4, 7)


def test_the_last_words_of_a_program_count(pod: Pod) -> None:
    for _time in range(10):
        assert pod.popen(["echo", "bye"]).wait_for_output("bye")[0] == "bye"


def test_too_late_is_told_with_the_output(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo something else; exec sleep 1000"])
    program.wait_for_output("else")
    with pytest.raises(ProgramError, match=r"within 0\.05 s: waited for output that matches 'up'") as raised:
        program.wait_for_output("up", timeout=0.05)
    assert raised.value.output == "something else\n"
    assert program.state == "running"


def test_the_programs_end_is_told_at_once(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo sorry; exit 3"])
    with pytest.raises(ProgramError, match="has exited 3 too early") as raised:
        program.wait_for_output("up", timeout=60)
    assert (raised.value.returncode, raised.value.output) == (3, "sorry\n")


def test_the_end_of_a_program_that_may_end_is_told_at_once_too(pod: Pod) -> None:
    program = pod.popen(["echo", "done"], may_exit=True)
    begin = time.monotonic()
    for wait in (program.wait_for_output, lambda pattern, timeout: program.wait_ready(log(pattern), timeout)):
        with pytest.raises(
            ProgramError, match=r"has exited 0 too early: waited for .*'up'; last seen"
        ) as raised:
            wait("up", timeout=60)
        assert raised.value.output == "done\n"
        assert "may_exit=True" not in str(raised.value)
    assert time.monotonic() - begin < 30


def test_what_a_daemon_writes_later_counts(pod: Pod) -> None:
    read, write = os.pipe()
    script = "exec 3<&0; (setsid sh -c 'read word; echo got it' <&3 &)"
    program = pod.popen(["/bin/sh", "-c", script], may_exit=True, stdin=read)
    assert program.wait(30) == 0
    with pytest.raises(ProgramError, match=r"within 0\.05 s"):
        program.wait_for_output("got it", timeout=0.05)
    os.close(read)
    os.write(write, b"go\n")
    os.close(write)
    program.wait_for_output("got it", timeout=30)
    with pytest.raises(ProgramError, match="has exited 0 too early"):
        program.wait_for_output("more", timeout=60)


def test_what_is_no_regular_expression_is_refused(pod: Pod) -> None:
    program = pod.popen(["cat"])
    for pattern in ("(", 5, None, b"bytes"):
        with pytest.raises(ConfigurationError, match="is no regular expression"):
            program.wait_for_output(pattern)  # type: ignore[arg-type]


async def test_a_task_waits_for_output(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", TALK], stdin=subprocess.PIPE)
    waiting = asyncio.ensure_future(program.wait_for_output_async("got (.*)"))
    await asyncio.sleep(0)
    assert program.stdin is not None
    program.stdin.write(b"it\n")
    program.stdin.flush()
    assert (await waiting)[1] == "it"


async def test_a_task_talks_with_a_program_by_streams(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", TALK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    async with program.streams() as (reader, writer):
        for word in (b"one", b"two"):
            writer.write(word + b"\n")
            await writer.drain()
            assert await reader.readline() == b"got " + word + b"\n"
    assert program.wait(30) == 0  # the end of the block is the end of its input


async def test_a_large_text_flows_through_streams_both_ways(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    text = b"0123456789" * 100_000
    async with program.streams() as (reader, writer):
        writer.write(text)
        assert await reader.readexactly(len(text)) == text


async def test_a_block_of_streams_that_fails_closes_both_pipes(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(ZeroDivisionError):
        async with program.streams():
            _ = 1 / 0
    assert program.wait(30) == 0


async def test_streams_to_a_program_that_does_not_read_can_be_left(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), program.streams() as (_reader, writer):
            writer.write(b"x" * 10_000_000)
            await writer.drain()


async def test_streams_need_pipes(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE)
    with pytest.raises(ConfigurationError, match="start it with stdin=PIPE, stdout=PIPE"):
        async with program.streams():
            pass


def test_streams_are_asyncios(pod: Pod) -> None:
    trio = pytest.importorskip("trio")
    program = pod.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"in trio, use trio\.lowlevel\.FdStream"):
            async with program.streams():
                pass

    trio.run(main)


def test_extra_env_is_added_to_the_environment(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "inherited")
    print_ = [sys.executable, "-c", "import os; print(os.environ['OURS'], os.environ['WORD'])"]
    assert pod.check_output(print_, extra_env={"WORD": "given"}) == "inherited given\n"
    alone = pod.check_output(["/usr/bin/env"], env={"A": "1"}, extra_env={"B": "2"})
    assert sorted(alone.split()) == ["A=1", "B=2"]
