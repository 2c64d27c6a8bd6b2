"""Waiting for something that another thread changes: woken by the change, without polling.

Rules: one lock for all; with nobody waiting a change costs one look at an empty tuple; a waiter may be a thread or a
coroutine of any loop.
Does not belong here: what changes (see `registry`, `log`).
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# The garbage collector may end a connection, which counts and logs it, on any thread amid any other count. So the
# lock is reentrant, and there is one for all metrics and logs of this process: with one each, two threads that
# collect could wait for each other. A fork waits for it, as the child must not find it taken by a thread it lacks.
_LOCK = threading.RLock()
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


class Changes:
    """A lock, and those to wake when something under it has changed."""

    __slots__ = ("lock", "wakers")

    def __init__(self) -> None:
        self.lock = _LOCK
        self.wakers: tuple[Callable[[], None], ...] = ()

    def notify(self) -> None:
        """Wake all who wait, to look again. A change calls it after it has happened."""
        for wake in self.wakers:
            wake()

    @contextlib.contextmanager
    def _waking(self, wake: Callable[[], None]) -> Iterator[None]:
        with self.lock:
            self.wakers = (*self.wakers, wake)
        try:
            yield
        finally:
            with self.lock:
                self.wakers = tuple(each for each in self.wakers if each is not wake)

    def _look(self, find: Callable[[], T | None]) -> T | None:
        with self.lock:
            return find()

    def wait(self, find: Callable[[], T | None], seconds: float) -> T | None:
        """Block this thread until ``find()``, called under the lock, gives something; None after ``seconds``.

        Not for the thread of the loop that makes the changes: nothing would happen there meanwhile.
        """
        woken = threading.Event()
        until = time.monotonic() + seconds
        with self._waking(woken.set):
            while (found := self._look(find)) is None:
                if not woken.wait(max(0.0, until - time.monotonic())):
                    return None
                woken.clear()
        return found

    async def wait_async(self, find: Callable[[], T | None], seconds: float) -> T | None:
        """As `wait`, for a coroutine on any loop."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        called = False

        def wake() -> None:
            nonlocal called
            if not called:  # once for many changes: a busy proxy does not flood the waiter's loop
                called = True
                with contextlib.suppress(RuntimeError):  # that loop has just been closed
                    loop.call_soon_threadsafe(woken.set)

        with self._waking(wake):
            try:
                async with asyncio.timeout(seconds):
                    while (found := self._look(find)) is None:
                        await woken.wait()
                        woken.clear()
                        called = False
            except TimeoutError:
                return None
        return found
