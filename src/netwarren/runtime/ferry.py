"""The ferry: one thread that may go to any namespace, for callers that could not come back from there.

Rules: jobs are short; what a job raises, its caller gets; paths are absolute, because its working directory
is not the process's once it has been in a view (see `view`); programs are always started here, because the
kernel ends a child with the thread that started it (PR_SET_PDEATHSIG), and this thread lasts.
Does not belong here: user code (see `background`, and `machine` for a thread per call).
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

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


_jobs: "queue.SimpleQueue[_Job | None]" = queue.SimpleQueue()
_later: deque[Callable[[], object]] = deque()
"""What nobody waits for; a None in the queue says that there is more."""
_thread: threading.Thread | None = None
_start = threading.Lock()


def _next(jobs: "queue.SimpleQueue[_Job | None]") -> _Job:
    while True:
        try:
            job = jobs.get(block=not _later)
        except queue.Empty:
            return _Job(_later.popleft())
        if job is not None:
            return job


def _serve(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    standing.live_in(standing.home())
    while True:
        job = _next(jobs)
        try:
            job.result = job.call()
        except BaseException as failure:
            job.failure = failure
        try:
            standing.restore()
            if standing.here.lost:  # it came back to its network, but not from a view of files
                raise SteppingError(standing.here.lost)
        except SteppingError:
            _begin(jobs)  # what comes is another thread's to do
            job.done.release()
            threading.Event().wait()  # programs started here would be killed by this thread's end
        job.done.release()
        del job


def _begin(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    global _thread
    _thread = threading.Thread(target=_serve, args=(jobs,), name="netwarren-ferry", daemon=True)
    _thread.start()


def _forget() -> None:
    # In a forked child the thread is gone, and its queue may be half-way through something.
    global _jobs, _thread, _start
    _later.clear()
    _jobs, _thread, _start = queue.SimpleQueue(), None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def _ensure() -> None:
    if _thread is None:
        with _start:
            if _thread is None:
                standing.home()  # its failure belongs to the caller, not to a thread nobody watches
                _begin(_jobs)


def call(function: Callable[[], T]) -> T:
    """Run ``function`` on the ferry and return or raise what it did.

    It runs to its end even if the caller is interrupted (Ctrl-C) meanwhile; the interruption is raised
    afterwards, so that nothing is left half-made.
    """
    _ensure()
    job = _Job(function)
    _jobs.put(job)
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


def later(function: Callable[[], object]) -> None:
    """Run ``function`` on the ferry once it has nothing else to do; nobody hears what it returns or raises."""
    _ensure()
    _later.append(function)
    _jobs.put(None)


def catch_up() -> None:
    """Wait until nothing is left to do of what `later` was asked for."""
    busy = True
    while busy:
        busy = bool(_later)
        call(lambda: None)  # what has just been begun is done then
        busy = busy or bool(_later)


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

    _ensure()
    _jobs.put(_Job(job))
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
