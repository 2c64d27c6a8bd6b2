"""The ferry: a thread that may go to any namespace, for callers that could not come back from there.

There is one for everybody, `main`; what only a thread of its own can do has another (see `pid_namespace`).

Rules: jobs are short; what a job raises, its caller gets; paths are absolute, because its working directory
is not the process's once it has been in a view (see `view`); programs are always started here, because the
kernel ends a child with the thread that started it (PR_SET_PDEATHSIG), and this thread lasts.
Does not belong here: user code (see `background`, and `machine` for a thread per call).
"""

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from netwarren.errors import SteppingError
from netwarren.runtime import standing

T = TypeVar("T")


class _Job:
    __slots__ = ("call", "done", "failure", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.result: Any = None
        self.failure: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


_Jobs: TypeAlias = "queue.SimpleQueue[_Job | None]"


def _leave() -> None:
    """The last job of a ferry that ends."""


class Ferry:
    """A thread that does jobs one after the other; it starts with the first of them."""

    _jobs: _Jobs
    _thread: threading.Thread | None
    _start: threading.Lock

    def __init__(self, name: str) -> None:
        self._name = name
        self._ended = False
        self._later: deque[Callable[[], object]] = deque()
        self._forget()
        _all.add(self)

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the ferry and return or raise what it did.

        It runs to its end even if the caller is interrupted (Ctrl-C) meanwhile; the interruption is raised
        afterwards, so that nothing is left half-made.
        """
        job = _Job(function)
        self.put(job)
        interruption: BaseException | None = None
        while True:
            try:
                job.done.acquire()
                break
            except BaseException as error:
                interruption = error
        if job.failure is not None:
            raise job.failure
        if interruption is not None:
            raise interruption
        result: T = job.result
        return result

    def put(self, job: _Job) -> None:
        """Have ``job`` done, without waiting for it."""
        if self._thread is None:
            self._ensure()
        self._jobs.put(job)
        if self._ended:
            self._refuse_left()

    def later(self, function: Callable[[], object]) -> None:
        """Run ``function`` once there is nothing else to do; nobody hears what it returns or raises."""
        if self._thread is None:
            self._ensure()
        self._later.append(function)
        self._jobs.put(None)

    def catch_up(self) -> None:
        """Wait until nothing is left to do of what `later` was asked for."""
        while not self.call(
            lambda: not self._later
        ):  # asked on the ferry, which is not half-way through one then
            pass

    def end(self) -> None:
        """End the thread after the jobs it has, and wait for that; what comes later is refused, again is fine.

        With the thread, the kernel ends what it started.
        """
        with self._start:
            if not self._ended and self._thread is not None:
                self.call(_leave)
                self._thread.join()
            self._ended = True
        self._refuse_left()

    # --- inside ---

    def _ensure(self) -> None:
        with self._start:
            if self._thread is None and not self._ended:
                standing.home()  # its failure belongs to the caller, not to a thread nobody watches
                self._begin(self._jobs)

    def _refuse_left(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is None:
                    continue
                job.failure = SteppingError(f"thread {self._name!r} has ended; what it served is gone")
                job.done.release()

    def _serve(self, jobs: _Jobs) -> None:
        standing.live_in(standing.home())
        while True:
            job = self._next(jobs)
            if job.call is _leave:
                job.done.release()
                return
            try:
                job.result = job.call()
            except BaseException as failure:
                job.failure = failure
            try:
                standing.restore()
                if standing.here.lost:  # it came back to its network, but not from a view of files
                    raise SteppingError(standing.here.lost)
            except SteppingError:
                self._succeed(jobs)  # what comes is another thread's to do
                job.done.release()
                threading.Event().wait()  # programs started here would be killed by this thread's end
            job.done.release()
            del job

    def _next(self, jobs: _Jobs) -> _Job:
        while True:
            try:
                job = jobs.get(block=not self._later)
            except queue.Empty:
                return _Job(self._later.popleft())
            if job is not None:
                return job

    def _begin(self, jobs: _Jobs) -> None:
        self._thread = threading.Thread(target=self._serve, args=(jobs,), name=self._name, daemon=True)
        self._thread.start()

    def _succeed(self, jobs: _Jobs) -> None:
        if self is main:
            self._begin(jobs)
        else:  # which may stand where no thread can be started
            main.call(lambda: self._begin(jobs))

    def _forget(self) -> None:
        # In a forked child the thread is gone, and its queue may be half-way through something.
        self._jobs = queue.SimpleQueue()  # a None in it says that there is more in the other
        self._later.clear()
        self._thread = None
        self._start = threading.Lock()


_all: "weakref.WeakSet[Ferry]" = weakref.WeakSet()

main = Ferry("netwarren-ferry")

call = main.call
later = main.later
catch_up = main.catch_up


def _forget_all() -> None:
    for each in list(_all):
        each._forget()


os.register_at_fork(after_in_child=_forget_all)


async def call_async(function: Callable[[], T]) -> T:
    """`call`, awaited on an asyncio loop; where that is cancelled, a socket that comes of it is closed."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, failure: BaseException | None) -> None:
        if future.cancelled():
            _let_go(result)
        elif failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)

    def job() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        loop.call_soon_threadsafe(settle, result, failure)

    main.put(_Job(job))
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            _let_go(future.result())  # it had come, and nobody looked any more
        raise


def _let_go(result: Any) -> None:
    if hasattr(result, "close"):
        result.close()


def roam(function: Callable[[], T]) -> T:
    """Run ``function``, which may step anywhere, here if this thread can come back, else on the ferry."""
    if not standing.can_return():
        return call(function)
    try:
        return function()
    finally:
        standing.restore()
