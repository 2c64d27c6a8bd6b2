"""Entering where threads are running already: the rest of the program goes on in a forked child."""

import os
import signal

import pytest

from tests.sandbox.conftest import Python

THREADS = """
import atexit, os, signal, sys, threading
from netwarren.sandbox import Sandbox, inside
first = os.getpid()
end = threading.Event()
threading.Thread(target=end.wait, daemon=True).start()
"""


def test_the_program_goes_on_inside_in_a_child(python: Python) -> None:
    printed = python.run(
        """
        Sandbox().enter()
        assert inside()
        assert os.getppid() == first != os.getpid()
        print("went on")
        """,
        prelude=THREADS,
    )
    assert printed == "went on\n"


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_childs(ordinary: Python, status: int) -> None:
    ordinary.run(f"Sandbox().enter(); sys.exit({status})", prelude=THREADS, status=status)


def test_an_uncaught_exception_is_told_once(ordinary: Python) -> None:
    process = ordinary.begin("Sandbox().enter(); raise RuntimeError('told once')", prelude=THREADS)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("RuntimeError: told once") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_that_ends_the_child_ends_the_process(ordinary: Python, number: signal.Signals) -> None:
    ordinary.run(
        f"Sandbox().enter(); os.kill(os.getpid(), {int(number)}); signal.pause()",
        prelude=THREADS,
        status=-number,
    )


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT]
)
def test_a_signal_to_the_process_reaches_the_child(ordinary: Python, number: signal.Signals) -> None:
    process = ordinary.begin(
        """
        import time
        def tell(number, frame):
            print("child got", number)
            os._exit(7)
        for number in (1, 2, 3, 10, 12, 15):
            signal.signal(number, tell)
        Sandbox().enter()
        print("ready")
        for _ in range(12_000):  # one long wait would begin too late to be cut off by a signal just before it
            time.sleep(0.01)
        """,
        prelude=THREADS,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"child got {int(number)}\n"
    assert process.wait(30) == 7


def test_the_childs_handling_of_a_signal_decides_how_the_process_ends(ordinary: Python) -> None:
    process = ordinary.begin("Sandbox().enter(); print('ready'); signal.pause()", prelude=THREADS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


def test_killing_the_process_kills_the_child(ordinary: Python) -> None:
    process = ordinary.begin("Sandbox().enter(); print(os.getpid()); signal.pause()", prelude=THREADS)
    assert process.stdout is not None
    handle = os.pidfd_open(int(process.stdout.readline()))
    try:
        process.kill()
        # The pipe ends when the last holder of its other end does, which is the child.
        assert process.stdout.read() == ""
    finally:
        os.close(handle)


def test_exit_handlers_run_once(ordinary: Python) -> None:
    printed = ordinary.run(
        "atexit.register(lambda: print('at exit', os.getpid() != first)); Sandbox().enter()", prelude=THREADS
    )
    assert printed == "at exit True\n"


def test_what_was_written_before_is_written_once(ordinary: Python) -> None:
    printed = ordinary.run(
        "sys.stdout.write('before\\n'); Sandbox().enter(); sys.stdout.write('after\\n')",
        prelude=THREADS,
        env={"PYTHONUNBUFFERED": ""},
    )
    assert printed == "before\nafter\n"


def test_standard_input_is_read_on_by_the_child(ordinary: Python) -> None:
    process = ordinary.begin("print('1:', input()); Sandbox().enter(); print('2:', input())", prelude=THREADS)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    assert process.stdout.readline() == "1: one\n"
    out, _err = process.communicate("two\n", timeout=60)
    assert out == "2: two\n"


def test_only_the_callers_thread_goes_along(ordinary: Python) -> None:
    ordinary.run(
        """
        from netwarren.kernel import process
        assert process.threads() == 2
        Sandbox().enter()
        assert process.threads() == 1
        """,
        prelude=THREADS,
    )


def test_threads_that_python_does_not_know_of_are_counted(ordinary: Python) -> None:
    """As those of OpenBLAS, which numpy starts: `threading.active_count` says 1."""
    ordinary.run(
        """
        import _thread, os, threading
        from netwarren.sandbox import Sandbox, inside
        first = os.getpid()
        block = _thread.allocate_lock()
        block.acquire()
        _thread.start_new_thread(block.acquire, ())
        assert threading.active_count() == 1
        Sandbox().enter()
        assert inside() and os.getppid() == first
        """
    )


def test_another_thread_than_the_main_one_gets_a_clear_refusal(ordinary: Python) -> None:
    ordinary.run(
        """
        from netwarren.errors import SandboxError
        refusals = []
        def enter():
            try:
                Sandbox().enter()
            except SandboxError as error:
                refusals.append(error)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        (refusal,) = refusals
        assert "not the main one" in refusal.cause, refusal
        assert "import netwarren.sandbox.auto" in refusal.remedy
        assert not inside() and os.getpid() == first
        """,
        prelude=THREADS,
    )


def test_no_warning_about_threads_and_fork_is_shown(ordinary: Python) -> None:
    process = ordinary.begin("Sandbox().enter()", prelude=THREADS)
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_forks_after_that_are_forks_and_nothing_else(ordinary: Python) -> None:
    ordinary.run(
        """
        Sandbox().enter()
        before = os.readlink("/proc/self/ns/user")
        child = os.fork()
        if child == 0:
            os._exit(os.readlink("/proc/self/ns/user") != before)
        assert os.waitpid(child, 0)[1] == 0
        """,
        prelude=THREADS,
    )
