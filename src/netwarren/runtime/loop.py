"""A pod's own event loop, on a thread that lives in the pod, for code that insists on having one.

Rules: one loop a pod, started by the first call and reused by the others; its end cancels what runs.
Does not belong here: ``async with pod`` (see `tasks`), which needs no thread.
"""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from netwarren.errors import BackgroundError, ClosedError
from netwarren.kernel.netns import Namespace
from netwarren.runtime import standing, tasks
from netwarren.runtime.background import END_SECONDS, stands_at

T = TypeVar("T")

_PATIENCE = 0.5  # how long what was cancelled may take to tidy up before its sockets are closed under it


class PodLoop:
    """A thread standing in ``namespace`` that runs an asyncio loop until `close`."""

    def __init__(self, namespace: Namespace, where: str) -> None:
        self._namespace = namespace
        self._where = where
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"{where}:loop", daemon=True)
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            raise self._failure

    def submit(
        self, function: Callable[..., Awaitable[T]], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> "concurrent.futures.Future[T]":
        """Run ``function`` on the pod's loop, with a copy of the caller's context variables."""
        loop = self._loop
        if loop is None or not loop.is_running():
            raise self._closed()
        # The caller's task may live in another pod; on this thread that is over.
        context = contextvars.copy_context()
        context.run(tasks.entered.set, ())

        async def call() -> T:
            return await function(*arguments, **options)

        def start() -> Coroutine[Any, Any, T]:
            return call()

        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def launch() -> None:
            task = loop.create_task(start(), context=context)
            self._chain(task, future)

        loop.call_soon_threadsafe(launch)
        return future

    def ask_to_stop(self) -> None:
        """Cancel what runs, and have the loop and its thread end; does not wait."""
        loop, self._loop = self._loop, None
        if loop is not None and loop.is_running():
            try:
                loop.call_soon_threadsafe(loop.stop)
            except RuntimeError:
                pass  # it has just been closed by itself

    def end(self, wake: Callable[[], None]) -> BackgroundError | None:
        """Wait for the end, with ``wake`` for a thread that sleeps in the kernel; tells where one stays."""
        if self._thread is threading.current_thread():
            return None
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            wake()
            self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            return None
        return BackgroundError(
            f"the loop of {self._where} does not end: a coroutine holds its thread or refuses to be cancelled. "
            f"The thread stands at:\n{stands_at(self._thread)}"
        )

    def _chain(self, task: "asyncio.Task[T]", future: "concurrent.futures.Future[T]") -> None:
        """Let ``future`` end as ``task`` does, and a cancelled ``future`` cancel the task."""
        loop = task.get_loop()

        def on_task_done(done: "asyncio.Task[T]") -> None:
            if not future.set_running_or_notify_cancel():
                if not done.cancelled():
                    done.exception()  # seen: the caller has gone
                return
            if done.cancelled():
                # To the caller, who was not cancelled, the end of the pod is an error.
                future.set_exception(self._closed() if self._loop is None else asyncio.CancelledError())
            elif (failure := done.exception()) is not None:
                future.set_exception(failure)
            else:
                future.set_result(done.result())

        def on_future_done(done: "concurrent.futures.Future[T]") -> None:
            if done.cancelled() and not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

        task.add_done_callback(on_task_done)
        future.add_done_callback(on_future_done)

    def _closed(self) -> ClosedError:
        return ClosedError(f"the loop of {self._where}", "is closed", "the pod is gone")

    def _run(self) -> None:
        try:
            standing.live_in(self._namespace)
            with asyncio.Runner() as runner:  # its end cancels and awaits all tasks
                loop = runner.get_loop()
                asyncio.set_event_loop(loop)
                self._loop = loop
                loop.call_soon(self._running.set)
                loop.run_forever()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._running.set()


async def on_thread(function: Callable[[Callable[[], bool]], T]) -> T:
    """Await ``function`` on a thread of its own, from asyncio or trio; it stands at home.

    The function gets a callable that says whether the caller was cancelled, and looks at it now and then.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    context = contextvars.copy_context()
    context.run(tasks.entered.set, ())  # the caller's task may live in a pod; this thread does not

    def work() -> None:
        try:
            standing.live_in(standing.home())
            result = function(future.cancelled)
        except BaseException as failure:
            if future.set_running_or_notify_cancel():
                future.set_exception(failure)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(result)

    threading.Thread(target=context.run, args=(work,), name="netwarren-wait", daemon=True).start()
    return await wait_for(future)


async def wait_for(future: "concurrent.futures.Future[T]") -> T:
    """Await ``future`` from a task of asyncio or trio."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run() and trio.lowlevel.in_trio_task():
        try:
            result: T = await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except BaseException:
            future.cancel()
            raise
        return result
    return await asyncio.wrap_future(future)
