"""Trio tasks that live in a namespace, by way of trio's public Instrument.

Rules: as in `tasks`; the instrument is added to a run when its first task enters a namespace.
Does not belong here: asyncio (see `tasks`).
"""

from collections.abc import Callable
from typing import Any

import trio

from netwarren.kernel.netns import Namespace
from netwarren.runtime import anyio_threads, standing, tasks


class Stepper(trio.abc.Instrument):
    """Brings every step of a task into the namespace the task lives in, and home afterwards."""

    def __init__(self) -> None:
        # Added in the middle of a step, whose end it will see.
        self.depth: int | None = len(standing.here.frames)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        stack = task.context.get(tasks.entered)
        self.depth = standing.begin_step(stack[-1]) if stack else len(standing.here.frames)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # Also cuts `with` blocks that a task outside every namespace left open across an await.
        if self.depth is not None:
            standing.end_step(self.depth)


_stepper: trio.lowlevel.RunVar[Stepper | None] = trio.lowlevel.RunVar("netwarren_stepper", None)


async def enter(namespace: Namespace) -> None:
    """`tasks.enter` for trio."""
    install()
    standing.check_nesting(namespace)
    before = tasks.entered.get()
    if standing.in_step():
        standing.switch_step(namespace)
        tasks.entered.set((*before, namespace))
        return
    tasks.entered.set((*before, namespace))
    try:
        await trio.lowlevel.checkpoint()
    except BaseException:
        tasks.entered.set(before)
        if standing.in_step():
            standing.switch_step(tasks.current())
        raise


async def leave(namespace: Namespace) -> None:
    """`tasks.leave` for trio."""
    tasks.pop(namespace)
    if standing.in_step():
        standing.switch_step(tasks.current())


def install() -> None:
    """Have the present run bring its tasks' steps into their namespaces; once per run."""
    anyio_threads.follow()
    if _stepper.get() is None:
        stepper = Stepper()
        trio.lowlevel.add_instrument(stepper)
        _stepper.set(stepper)
    # Everything of trio's own that needs a thread (getaddrinfo, subprocesses) looks this name up here.
    module: Any = trio.to_thread
    if not getattr(module.run_sync, "netwarren", False):
        module.run_sync = _following(module.run_sync)


def _following(run_sync: Callable[..., Any]) -> Callable[..., Any]:
    async def run_sync_in_the_callers_pod(sync_fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        namespace = tasks.current()
        if namespace is None:
            return await run_sync(sync_fn, *args, **options)
        return await run_sync(tasks.call_in, namespace, sync_fn, *args, **options)

    run_sync_in_the_callers_pod.netwarren = True  # type: ignore[attr-defined]
    return run_sync_in_the_callers_pod
