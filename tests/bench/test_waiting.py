"""What strace and /proc tell of where a process is."""

import subprocess
import sys
import threading

from bench.waiting import Call, Watch, parse, where

TABLE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 55.10    0.996067        4980       200           sendmsg
 32.00    0.480149         214      2234        12 futex
------ ----------- ----------- --------- --------- ----------------
100.00    1.476216         606      2434        12 total
"""


def test_a_table_of_strace_is_read_with_and_without_errors() -> None:
    assert parse(TABLE) == [Call("sendmsg", 0.996067, 200), Call("futex", 0.480149, 2234)]
    assert parse("") == []


def test_a_watch_looks_at_a_process_until_it_ends() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    watch = Watch()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        looking = threading.Thread(target=watch, args=(process.pid,))
        looking.start()
        while not watch.first:
            assert looking.is_alive() or watch.first
        process.stdin.close()
        looking.join(30)
        assert not looking.is_alive()
    assert where(process.pid, process.pid) is None


def test_shares_are_of_all_looks() -> None:
    watch = Watch()
    watch.first.update({"a": 3, "b": 1})
    assert watch.shares("first") == [("a", 0.75), ("b", 0.25)]
    assert watch.shares("others") == []
