"""``pod.check_output``: a program to its end."""

import os
import sys
import time

import pytest

from netwarren import Pod
from netwarren.errors import ProgramError

PRINT = [sys.executable, "-c", "import os; print(os.stat('/proc/self/ns/net').st_ino)"]


def test_it_returns_what_the_program_printed_in_the_pod(pod: Pod) -> None:
    assert int(pod.check_output(PRINT)) == pod.inode


def test_standard_error_is_not_part_of_it(pod: Pod) -> None:
    assert pod.check_output(["/bin/sh", "-c", "echo out; echo err >&2"]) == "out\n"


def test_all_of_a_large_output_is_returned(pod: Pod) -> None:
    assert len(pod.check_output(["/bin/sh", "-c", "yes | head -c 10000000"])) == 10_000_000


def test_input_goes_to_the_program(pod: Pod) -> None:
    assert pod.check_output(["cat"], input="through\n") == "through\n"


def test_a_large_input_and_output_do_not_wait_for_each_other(pod: Pod) -> None:
    text = "0123456789" * 100_000
    assert pod.check_output(["cat"], input=text) == text


def test_a_program_that_does_not_read_its_input_is_fine(pod: Pod) -> None:
    assert pod.check_output(["echo", "hi"], input="x" * 1_000_000) == "hi\n"


def test_without_input_it_has_none(pod: Pod) -> None:
    assert pod.check_output(["cat"]) == ""


def test_a_failure_carries_status_and_output(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="in pod 'first' has exited 3") as raised:
        pod.check_output(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
    error = raised.value
    assert error.returncode == 3
    assert "out" in error.output
    assert "err" in error.output
    assert "err" in str(error)
    assert error.command[0] == "/bin/sh"


def test_a_signal_is_a_failure(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="was killed by SIGTERM") as raised:
        pod.check_output(["/bin/sh", "-c", "kill -TERM $$"])
    assert raised.value.returncode == -15


def test_a_timeout_kills_and_tells_what_was_written(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="still runs after") as raised:
        pod.check_output(["/bin/sh", "-c", "echo $$; exec sleep 1000"], timeout=1)
    pid = int(raised.value.output)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_timeout_holds_for_a_program_that_does_not_read_its_input(pod: Pod) -> None:
    begin = time.monotonic()
    with pytest.raises(ProgramError, match="still runs after"):
        pod.check_output(["sleep", "1000"], input="x" * 1_000_000, timeout=0.2)
    assert time.monotonic() - begin < 20


def test_a_missing_program_is_told(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="is not in PATH"):
        pod.check_output(["no-such-program"])


def test_names_and_environment(pod: Pod) -> None:
    assert pod.check_output(["/bin/sh", "-c", "echo $WORD"], env={"WORD": "given"}) == "given\n"
