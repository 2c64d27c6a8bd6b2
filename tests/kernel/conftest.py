"""Runs a test marked `fresh_netns` in a forked child with user and network namespaces of its own.

Rules: works as root and as anybody, under xdist too (a forked child has one thread, as unshare wants);
what the test raises is raised here, with the child's traceback as a note.
Does not belong here: the sandbox under test; this is what it is tested against.
"""

import inspect
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest

from netwarren.kernel.capability import make_ambient
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.syscall import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fresh_netns: run in a child with its own network namespace")


@pytest.fixture
def new_netns() -> Callable[[str], tuple[int, Netlink]]:
    """Makes one more network namespace: its descriptor and a netlink socket in it. Call it in the test."""

    def make(where: str) -> tuple[int, Netlink]:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            unshare(CLONE_NEWNET)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY), Netlink(where)
        finally:
            setns(home, CLONE_NEWNET)
            os.close(home)

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("fresh_netns") is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    _run_in_child(lambda: pyfuncitem.obj(**arguments))
    return True


def _run_in_child(function: Callable[[], object]) -> None:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(function, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            report = pipe.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if not report:
        pytest.fail(f"the test's child process ended early: {os.waitstatus_to_exitcode(status)}")
    pickled, trace = pickle.loads(report)
    if pickled is not None:
        error = pickle.loads(pickled)
        error.add_note(f"in the test's child process:\n{trace}")
        raise error


def _child(function: Callable[[], object], writing: int) -> None:
    report: tuple[bytes | None, str] = (None, "")
    try:
        _enter()
        function()
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:
            pickled = pickle.dumps(AssertionError(trace))
        report = (pickled, trace)
    finally:
        with open(writing, "wb") as pipe:
            pickle.dump(report, pipe)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _enter() -> None:
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as proc:
            proc.write(line)
    make_ambient()  # so that programs can look into it too: `nft` of an ordinary user could not otherwise
