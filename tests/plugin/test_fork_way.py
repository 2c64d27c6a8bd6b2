"""Threads that are there before the sandbox: the session goes on in a forked child, and nobody notices."""

import os
import select
import signal

import pytest

from tests.plugin.conftest import Running, Session

THREAD = """
    import os
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()

    BEFORE = os.getpid()
"""

BLOCKED = """
    import os, time
    import conftest

    def test_it(cluster):
        assert os.getppid() == conftest.BEFORE  # the fork way
        try:
            print("pids are", conftest.BEFORE, os.getpid(), flush=True)
            for _ in range(12_000):  # one long wait would begin too late to be cut off by a signal just before it
                time.sleep(0.01)
        finally:
            print("tidied up", flush=True)

    def test_after(cluster):
        print("went on", flush=True)
"""


def blocked(session: Session, tty: bool = False) -> tuple[Running, int, int]:
    """A session that waits in its test (for two minutes), its first process and the one that goes on."""
    session.file("conftest.py", THREAD)
    session.file("test_it.py", BLOCKED)
    running = session.start("-s", tty=tty)
    parent, child = map(int, running.line("pids are ").split()[2:])
    assert parent == running.process.pid
    return running, parent, child


def test_thread_of_a_conftest_is_no_obstacle(session: Session) -> None:
    session.file("conftest.py", THREAD)
    session.file(
        "test_it.py",
        """
        import os
        import conftest

        def test_it(cluster):
            assert os.getppid() == conftest.BEFORE != os.getpid()
            assert cluster.add_pod("a").check_output(["echo", "hello"]) == "hello\\n"
        """,
    )
    session.passes(passed=1)


def test_numpy_imported_by_a_conftest_is_no_obstacle(session: Session) -> None:
    pytest.importorskip("numpy")
    session.file("conftest.py", "import numpy\n")
    session.file(
        "test_it.py",
        """
        import numpy

        def test_it(cluster):
            assert numpy.ones((300, 300)).dot(numpy.ones((300, 300))).sum() == 300**3
            with cluster.add_pod("a"):
                pass
        """,
    )
    session.passes(passed=1)
    session.passes("-n2", plugins="xdist", passed=1)


def test_thread_before_workers_is_no_obstacle(session: Session) -> None:
    session.file("conftest.py", THREAD)
    session.file("test_it.py", "def test_it(cluster): cluster.add_pod('a')\n")
    session.passes("-n2", plugins="xdist", passed=1)


def test_warnings_of_forking_beside_threads_are_not_the_users(session: Session) -> None:
    session.file("conftest.py", THREAD)
    session.file("test_it.py", "def test_it(cluster): pass\n")
    result = session.passes("-W", "error", passed=1)
    assert "fork()" not in result.stdout.str() + result.stderr.str()


def test_timer_of_faulthandler_does_not_keep_the_session_from_ending(session: Session) -> None:
    session.file("conftest.py", "import faulthandler\nfaulthandler.dump_traceback_later(300)\n")
    session.file("test_it.py", "def test_it(cluster): pass\n")
    session.passes(passed=1)


def test_output_is_written_once(session: Session) -> None:
    session.file("conftest.py", THREAD + '\n    print("only once")\n')
    session.file("test_it.py", "def test_it(cluster): print('and this')\n")
    result = session.passes("-s", passed=1)
    assert result.outlines.count("only once") == 1
    assert sum("and this" in line for line in result.outlines) == 1
    assert sum("1 passed" in line for line in result.outlines) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "outcomes"),
    [
        ([], 1, {"failed": 2, "passed": 1}),
        (["-x"], 1, {"failed": 1}),
        (["--maxfail=2"], 1, {"failed": 2}),
        (["-k", "none"], 5, {"deselected": 3}),
    ],
)
def test_exit_status_is_that_of_the_session(
    session: Session, arguments: list[str], status: int, outcomes: dict[str, int]
) -> None:
    session.file("conftest.py", THREAD)
    session.file(
        "test_it.py",
        """
        def test_fails(cluster): assert 0
        def test_fails_too(cluster): assert 0
        def test_passes(cluster): pass
        """,
    )
    result = session.run(*arguments)
    assert result.ret == status
    result.assert_outcomes(**outcomes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_signal_to_the_first_process_reaches_the_one_that_goes_on(session: Session, number: int) -> None:
    running, parent, child = blocked(session)
    handle = os.pidfd_open(child)
    os.kill(parent, number)
    assert running.end() == -number  # neither pytest nor Python catches it
    wait_for_end(handle)


def test_sigkill_of_the_first_process_ends_the_one_that_goes_on(session: Session) -> None:
    running, parent, child = blocked(session)
    handle = os.pidfd_open(child)
    os.kill(parent, signal.SIGKILL)
    wait_for_end(handle)
    assert running.end() == -signal.SIGKILL
    assert "tidied up" not in running.text


def test_death_of_the_one_that_goes_on_is_told_as_it_was(session: Session) -> None:
    running, _parent, child = blocked(session)
    os.kill(child, signal.SIGSEGV)
    assert running.end() == -signal.SIGSEGV


def test_sigint_to_the_first_process_alone_ends_the_session_tidily(session: Session) -> None:
    running, parent, _child = blocked(session)
    os.kill(parent, signal.SIGINT)
    assert running.end() == 2
    assert "tidied up" in running.text
    assert "KeyboardInterrupt" in running.text
    assert "went on" not in running.text


def test_ctrl_c_at_a_terminal_ends_the_session_tidily(session: Session) -> None:
    running, _parent, _child = blocked(session, tty=True)
    running.type(b"\x03")
    assert running.end() == 2
    assert running.text.count("tidied up") == 1
    assert "KeyboardInterrupt" in running.text
    assert "went on" not in running.text


def wait_for_end(handle: int) -> None:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    assert poller.poll(20_000), "the process goes on"
    os.close(handle)
