"""Tasks that live in a namespace: ``async with pod:`` on the loop and thread of everybody else.

Rules: which namespace a task lives in is a context variable, so child tasks, callbacks, timers, readers
and servers' handlers inherit it; the loop's scheduling methods wrap what such a context schedules, so
that each step begins with setns and ends back home; tasks outside never notice.
Does not belong here: threads (see `standing`), trio (see `trio_tasks`).
"""

import sys
import types
from collections.abc import Callable, Generator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from netwarren.errors import SteppingError
from netwarren.kernel.netns import Namespace
from netwarren.runtime import standing

if TYPE_CHECKING:
    import asyncio

# The namespaces entered by this task and not left yet; it lives in the last one.
entered: ContextVar[tuple[Namespace, ...]] = ContextVar("netwarren_entered", default=())

_INSTALLED = "_netwarren_installed"


def current() -> Namespace | None:
    """The namespace the running task lives in, or None."""
    stack = entered.get()
    return stack[-1] if stack else None


async def enter(namespace: Namespace) -> None:
    """Begin ``async with``: from here on this task stands in ``namespace`` whenever it runs."""
    if standing.in_trio():
        from netwarren.runtime import trio_tasks

        await trio_tasks.enter(namespace)
        return
    import asyncio

    install(asyncio.get_running_loop())
    standing.check_nesting(namespace)
    before = entered.get()
    entered.set((*before, namespace))
    try:
        # Not by switching the present step, which of an eager task is its creator's.
        await _next_step()
    except BaseException:
        entered.set(before)
        if standing.in_step():
            standing.switch_step(current())
        raise


async def leave(namespace: Namespace) -> None:
    """End ``async with``; raises `SteppingError` where it is not this task's innermost one."""
    if standing.in_trio():
        from netwarren.runtime import trio_tasks

        await trio_tasks.leave(namespace)
        return
    pop(namespace)
    if standing.in_step():
        standing.switch_step(current())
    elif entered.get():
        await _next_step()


def pop(namespace: Namespace) -> None:
    """Take ``namespace`` off the task's stack, where it must be the last."""
    before = entered.get()
    if not before or before[-1] is not namespace:
        raise SteppingError(
            f"`async with {namespace.label}` was left in another task than it was entered in, or before the "
            "blocks inside it"
        )
    entered.set(before[:-1])


@types.coroutine
def _next_step() -> Generator[None, None, None]:
    yield  # asyncio takes a bare yield as "go on in the next turn of the loop"


def call_in(namespace: Namespace, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function`` in ``namespace`` on this thread of a pool, which is at home afterwards.

    A pool's thread may have been started from inside some pod and so be born there; jobs of others that
    it takes later must not find themselves in that pod.
    """
    if standing.here.base is None:
        standing.live_in(standing.home())
    depth = standing.begin_step(namespace)
    try:
        return function(*arguments)
    finally:
        standing.end_step(depth)


def _step(namespace: Namespace, callback: Callable[..., Any], *arguments: Any) -> Any:
    depth = standing.begin_step(namespace)
    try:
        return callback(*arguments)
    finally:
        standing.end_step(depth)


def install(loop: "asyncio.AbstractEventLoop") -> None:
    """Have ``loop`` bring into their namespace the steps of tasks that live in one; once per loop.

    All of asyncio's own loops schedule through these methods, C-accelerated tasks and futures included,
    and look them up on the loop each time. Other loops (uvloop) schedule in C and are refused.
    """
    if getattr(loop, _INSTALLED, False):
        return
    import asyncio

    from netwarren.runtime import anyio_threads

    if not isinstance(loop, asyncio.BaseEventLoop) or not hasattr(loop, "_add_reader"):
        raise SteppingError(
            f"`async with` needs one of asyncio's own event loops, not {type(loop).__module__}."
            f"{type(loop).__qualname__}; use asyncio's, or `pod.socket()` and `pod.run_async()`, with this one"
        )
    patched: Any = loop
    for name in ("call_soon", "call_soon_threadsafe", "call_at"):
        setattr(patched, name, _scheduling(getattr(loop, name), 1 if name == "call_at" else 0))
    for name in ("_add_reader", "_add_writer"):
        setattr(patched, name, _watching(getattr(loop, name)))
    patched.run_in_executor = _executing(loop.run_in_executor)
    setattr(patched, _INSTALLED, True)
    anyio_threads.follow()


def _scheduling(schedule: Callable[..., Any], leading: int) -> Callable[..., Any]:
    """call_soon(callback, *args) and, with one ``leading`` argument, call_at(when, callback, *args)."""
    if leading:

        def at(
            when: float, callback: Callable[..., Any], *arguments: Any, context: Context | None = None
        ) -> Any:
            stack = entered.get() if context is None else context.get(entered)
            if stack:
                return schedule(when, _step, stack[-1], callback, *arguments, context=context)
            return schedule(when, callback, *arguments, context=context)

        return at

    def soon(callback: Callable[..., Any], *arguments: Any, context: Context | None = None) -> Any:
        stack = entered.get() if context is None else context.get(entered)
        if stack:
            return schedule(_step, stack[-1], callback, *arguments, context=context)
        return schedule(callback, *arguments, context=context)

    return soon


def _watching(watch: Callable[..., Any]) -> Callable[..., Any]:
    def add(fd: Any, callback: Callable[..., Any], *arguments: Any) -> Any:
        stack = entered.get()
        if stack:
            return watch(fd, _step, stack[-1], callback, *arguments)
        return watch(fd, callback, *arguments)

    return add


def _executing(execute: Callable[..., Any]) -> Callable[..., Any]:
    def run_in_executor(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        stack = entered.get()
        if not stack:
            return execute(executor, function, *arguments)
        with standing.at_rest():  # a thread or process that is started now serves everybody later
            if _of_processes(executor):
                return execute(executor, function, *arguments)
            return execute(executor, call_in, stack[-1], function, *arguments)

    return run_in_executor


def _of_processes(executor: Any) -> bool:
    module: Any = sys.modules.get("concurrent.futures.process")
    return module is not None and isinstance(executor, module.ProcessPoolExecutor)
