"""File descriptors: how many this process may have, and more of them when it needs more; getrlimit(2).

Rules: the soft limit is doubled when it gets short, and never goes beyond the hard one; a process that
is not short of descriptors keeps the limit it was given, for itself and its children; one is kept in
reserve, because bringing something to its end needs one for a moment, and nothing else would free any.
What netwarren keeps for later goes before anything is refused.
Does not belong here: who holds which descriptor.
"""

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_reserve: list[int] = []
_latest = 0
"""The number of the last descriptor that `leave_room` was told of."""
_spare: list[Callable[[], None]] = []


def opened(open: Callable[[], T]) -> T:
    """What ``open`` returns, with a higher limit or without what is spare where it takes that; raises OSError."""
    left = list(_spare)
    while True:
        try:
            return open()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            if not _raise_limit():
                if not left:
                    raise
                left.pop()()


def spare(let_go: Callable[[], None]) -> None:
    """From now on have `opened` call ``let_go`` before it fails: it closes what can be done without."""
    _spare.append(let_go)


def leave_room(fd: int) -> None:
    """Raise the limit where ``fd``, a new descriptor, is in its upper half: our caller needs some, too.

    The kernel gives the lowest free number, so the number says how many there are. One is kept in reserve
    from now on (see `reserve`).
    """
    global _latest
    _latest = fd
    _keep_reserve()
    if fd * 2 > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        _raise_limit()


def plenty() -> bool:
    """Whether less than half of what the limit allows is in use; no, where the reserve is (see `reserve`)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = next(iter(_reserve), None)
    # Asking takes one for a moment, which could be just the one that somebody needs: not where few were left.
    if kept is None or _latest * 2 > limit:
        return False
    try:
        fd = os.dup(kept)
    except OSError:
        return False
    os.close(fd)
    return fd * 2 <= limit


@contextlib.contextmanager
def reserve() -> Iterator[None]:
    """In the block the descriptor in reserve is free, for what is closed again at the block's end."""
    while _reserve:
        with contextlib.suppress(IndexError):  # another thread's block may have begun just now
            os.close(_reserve.pop())
    try:
        yield
    finally:
        _keep_reserve()


def hint(number: int) -> str:
    """What to do about errno ``number`` of an attempt to open something; ``""`` for one that says enough."""
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return (
            f"This process has open all the {limit} files it may have (the hard limit, RLIMIT_NOFILE); a pod "
            "takes one, a node two. Remove some, or raise the limit: `ulimit -Hn`, LimitNOFILE= in systemd, "
            "`docker run --ulimit nofile=65536`"
        )
    if number == errno.ENFILE:
        return "The whole machine has open all the files it may have (sysctl fs.file-max)"
    return ""


def _raise_limit() -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft * 2, hard), hard))
    return True


def _keep_reserve() -> None:
    if not _reserve:
        with contextlib.suppress(OSError):
            _reserve.append(os.eventfd(0, os.EFD_CLOEXEC))
