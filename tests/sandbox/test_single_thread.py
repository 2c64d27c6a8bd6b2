"""Entering in the process itself, where it has one thread."""

import signal

from tests.sandbox.conftest import Python


def test_the_process_stays_the_same(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        before = os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)
        Sandbox().enter()
        assert (os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)) == before
        """
    )


def test_no_child_is_left(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise AssertionError("a child is left")
        """
    )


def test_what_has_to_be_done_anyway_is_done_outside_and_once(python: Python) -> None:
    printed = python.run(
        """
        import os
        from netwarren.sandbox import Sandbox, inside
        own = os.getpid()
        Sandbox().enter(meanwhile=lambda: print(os.getpid() == own, inside()))
        Sandbox().enter(meanwhile=lambda: print("never"))
        print(inside())
        """
    )
    assert printed == "True False\nTrue\n"


def test_where_that_fails_nobody_enters_and_nothing_is_left(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox, inside
        before = sorted(os.listdir("/proc/self/fd"))
        try:
            Sandbox().enter(meanwhile=lambda: 1 / 0)
        except ZeroDivisionError:
            pass
        assert not inside()
        assert sorted(os.listdir("/proc/self/fd")) == before
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise AssertionError("a child is left")
        """
    )


def test_no_descriptor_is_left(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        before = sorted(os.listdir("/proc/self/fd"))
        Sandbox().enter()
        assert sorted(os.listdir("/proc/self/fd")) == before
        """
    )


def test_what_was_written_before_is_written_once(python: Python) -> None:
    printed = python.run(
        """
        import atexit, sys
        from netwarren.sandbox import Sandbox
        atexit.register(print, "at exit")
        sys.stdout.write("not flushed yet\\n")
        Sandbox().enter()
        """,
        env={"PYTHONUNBUFFERED": ""},
    )
    assert printed == "not flushed yet\nat exit\n"


def test_the_process_does_not_die_with_a_parent_it_has_nothing_to_do_with(python: Python) -> None:
    """Only the forked child of a threaded process is tied to its parent."""
    python.run(
        """
        import ctypes
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        signal = ctypes.c_int(-1)
        ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0)  # PR_GET_PDEATHSIG
        assert signal.value == 0
        """
    )


def test_signals_end_the_process_as_before(python: Python) -> None:
    process = python.begin(
        """
        import signal
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        print("inside", flush=True)
        signal.pause()
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
