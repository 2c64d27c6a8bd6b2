"""The fork way: where threads are running already, the rest of the program goes on in a forked child.

Rules: the child has one thread when the hook enters, and debuggers follow it as they follow any fork;
the parent only passes signals on and ends as the child ends; killing either ends both.
Does not belong here: when to go this way (see `entry`).
"""

import contextlib
import os
import select
import signal
import sys
import types
import warnings
from collections.abc import Callable

from netwarren.errors import SandboxError
from netwarren.kernel import process

_ENTERED = b"entered"
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_attempt: tuple[Callable[[], None], int, bool] | None = None
_registered = False


def rehearse(enter: Callable[[], None], meanwhile: Callable[[], object] | None = None) -> None:
    """Call ``enter`` in a child that ends at once, and ``meanwhile`` here; raise here what it raised there.

    A user namespace cannot be left again, so a refusal half-way is better met by a child.
    """
    child, answer = _attempt_in_child(enter, stay=False)
    try:
        if meanwhile is not None:
            meanwhile()
    finally:
        refusal = _refusal(answer)
        os.waitpid(child, 0)
    if refusal is not None:
        raise refusal


def go_on_inside(enter: Callable[[], None]) -> None:
    """Return in a forked child that has called ``enter`` while it had one thread.

    The calling process never returns from here: it waits, and exits with the child's status or dies of
    the child's signal. Where ``enter`` raises, the child ends and the calling process raises the same.
    """
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()  # type: ignore[union-attr]
    if timer := sys.modules.get("faulthandler"):
        # Its thread does not go along, and the child would wait for it at its end without end.
        timer.cancel_dump_traceback_later()
    child, answer = _attempt_in_child(enter, stay=True)
    if child == 0:
        return
    refusal = _refusal(answer)
    if refusal is not None:
        os.waitpid(child, 0)
        raise refusal
    mind(child)


def _attempt_in_child(enter: Callable[[], None], *, stay: bool) -> tuple[int, int]:
    """Fork; the child calls ``enter``, and only returns from here where it is to ``stay``.

    Returns the child's pid, 0 in the child, and the descriptor at which it answers (see `_refusal`).
    """
    global _attempt, _registered
    if not _registered:
        os.register_at_fork(after_in_child=_in_child)
        _registered = True
    read, write = os.pipe()
    parent = os.getpid()
    _attempt = (enter, write, stay)
    try:
        with warnings.catch_warnings():
            # "This process is multi-threaded, use of fork() may lead to deadlocks in the child": the
            # child is the program with its other threads gone, which is the point.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    finally:
        _attempt = None
        os.close(write)
    if child == 0:
        os.close(read)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the kernel was told to take us along
        return 0, -1
    return child, read


def _refusal(answer: int) -> BaseException | None:
    """What ``enter`` raised in the child, None where it did not; waits for the answer."""
    told = b""
    while chunk := os.read(answer, 65536):
        told += chunk
    os.close(answer)
    if not told:
        return SandboxError("enter the sandbox", "the child that tried died", "run `netwarren doctor`")
    if told == _ENTERED:
        return None
    import pickle

    refusal: BaseException = pickle.loads(told)
    return refusal


def _in_child() -> None:
    # Runs inside os.fork(), before a debugger that has patched it starts its threads again.
    global _attempt
    attempt, _attempt = _attempt, None
    if attempt is None:
        return
    enter, write, stay = attempt
    refusal: BaseException | None = None
    try:
        enter()
        process.die_with_parent()
    except Exception as error:  # told to the parent, whatever it is
        refusal = error
    os.write(write, _ENTERED if refusal is None else _packed(refusal))
    if refusal is not None or not stay:
        os._exit(0)


def _packed(refusal: BaseException) -> bytes:
    import pickle

    try:
        return pickle.dumps(refusal)
    except Exception:  # an error that does not travel is told in words
        return pickle.dumps(RuntimeError(repr(refusal)))


def mind(child: int) -> None:
    """Stand in for ``child`` until it ends; never returns."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)

    def forward(number: int, _frame: types.FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    # Ctrl-C reaches the child by itself where the terminal is ours; a second copy would stop its tidying up.
    signal.signal(signal.SIGINT, signal.SIG_IGN if _in_foreground() else forward)
    handle = os.pidfd_open(child)
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.register(wake_r, select.POLLIN)
    while True:
        ready = [fd for fd, _event in poller.poll()]
        if wake_r in ready:
            os.read(wake_r, 4096)  # the handlers have run, or run now that the interpreter does
        if handle in ready:
            break
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        fatal = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(fatal, signal.SIG_DFL)
        os.kill(os.getpid(), fatal)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
