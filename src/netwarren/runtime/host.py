"""The host thread: one thread of this process that never leaves the host's network, and runs an asyncio loop.

A thread that has left cannot go back, so one has to stay while the others go: the first of our threads to
leave for good leaves it behind. Until somebody wants it, it is parked and costs nothing.
Rules: one a process, and none in a forked child of a process that has left; never waited for on the ferry.
Does not belong here: what is done on the host (see `forwarder`, `flows`, `published`).
"""

import contextvars
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from netwarren.errors import SteppingError
from netwarren.kernel import netns

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

HOST = netns.inode_of()
"""The identity of the host's network namespace: where this was imported, before any of us stepped away."""


class _Parked:
    """The thread, before and after it was first wanted."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="netwarren-host", daemon=True).start()

    def loop(self) -> "asyncio.AbstractEventLoop":
        with self._lock:
            if self._loop is None:
                self._wanted.put(None)
                self._running.wait()
            assert self._loop is not None
            return self._loop

    def _serve(self) -> None:
        self._wanted.get()
        import asyncio

        # Asyncio's own, whatever policy the program has set: `forwarder` leans on its promises.
        loop = self._loop = asyncio.SelectorEventLoop()
        loop.call_soon(self._running.set)
        loop.run_forever()


_parked: _Parked | None = None
_start = threading.Lock()


def stay() -> None:
    """Leave a thread behind here, if this is the host's network and none stands there yet."""
    global _parked
    if _parked is None:
        with _start:
            if _parked is None:
                _parked = _Parked() if netns.inode_of() == HOST else None


def loop() -> "asyncio.AbstractEventLoop":
    """The running loop of the host thread.

    Raises `SteppingError` where none of this process's threads was in time to stay in the host's network.
    """
    stay()
    if _parked is None:
        raise SteppingError(
            "the host's network cannot be reached from here: no thread of this process has stayed in it. This "
            "process was forked by a thread that had stepped into a pod; use egress and publish in the process "
            "that forked it, or fork before the first `with pod:`"
        )
    return _parked.loop()


def call(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await ``function()`` on the host thread and return or raise what it did; not from that thread.

    It runs to its end even if the caller is interrupted (Ctrl-C) meanwhile; the interruption is raised
    afterwards, so that nothing is left half-made.
    """
    import asyncio

    there = loop()
    # With no context of the caller's, whose task may live in a pod.
    future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, function(), there)
    interruption: BaseException | None = None
    while True:
        try:
            failure = future.exception()
            break
        except BaseException as error:
            interruption = error
            if future.cancelled():
                break
    if interruption is not None:
        raise interruption
    if failure is not None:
        raise failure
    return future.result()


def _forget() -> None:
    # In a forked child the thread is gone; where the child stands is found out when it is needed.
    global _parked, _start
    _parked, _start = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
