"""``pod.run_async``: a thread and an event loop of the pod's own."""

import asyncio
import contextvars
import threading
import time

import pytest

from netwarren import ClosedError, Cluster, Pod
from netwarren.errors import BackgroundError
from netwarren.runtime import loop as module
from tests.runtime.conftest import eventually, where

NAME = contextvars.ContextVar("NAME", default="unset")


async def inode() -> int:
    await asyncio.sleep(0)
    return where()


async def test_it_runs_in_the_pod(pod: Pod) -> None:
    assert await pod.run_async(inode) == pod.inode
    assert where() != pod.inode


async def test_it_has_a_thread_and_a_loop_of_its_own(pod: Pod) -> None:
    async def who() -> tuple[int, asyncio.AbstractEventLoop]:
        return threading.get_ident(), asyncio.get_running_loop()

    ident, loop = await pod.run_async(who)
    assert ident != threading.get_ident()
    assert loop is not asyncio.get_running_loop()


async def test_many_calls_use_the_same_thread_and_loop(pod: Pod) -> None:
    async def who() -> tuple[int, int]:
        return threading.get_ident(), id(asyncio.get_running_loop())

    found = await asyncio.gather(*(pod.run_async(who) for _ in range(20)))
    assert len(set(found)) == 1


async def test_two_pods_have_two(pod: Pod, other: Pod) -> None:
    async def who() -> int:
        return threading.get_ident()

    assert await pod.run_async(who) != await other.run_async(who)


async def test_arguments_are_passed_on(pod: Pod) -> None:
    async def gather(*args: int, **options: str) -> tuple[tuple[int, ...], dict[str, str]]:
        return args, options

    assert await pod.run_async(gather, 1, 2, function="f") == ((1, 2), {"function": "f"})


async def test_exceptions_are_raised_here(pod: Pod) -> None:
    async def fail() -> None:
        raise LookupError("from the loop")

    with pytest.raises(LookupError, match="from the loop"):
        await pod.run_async(fail)
    assert await pod.run_async(inode) == pod.inode


async def test_context_variables_are_the_callers(pod: Pod) -> None:
    async def name() -> str:
        return NAME.get()

    NAME.set("mine")
    assert await pod.run_async(name) == "mine"


async def test_threads_and_children_of_that_loop_are_in_the_pod(pod: Pod) -> None:
    async def look() -> list[int]:
        return [await asyncio.to_thread(where), await asyncio.create_task(inode())]

    assert await pod.run_async(look) == [pod.inode] * 2


async def test_from_a_task_in_another_pod(pod: Pod, other: Pod) -> None:
    async with other:
        assert await pod.run_async(inode) == pod.inode
        assert where() == other.inode


async def test_the_coroutine_may_go_to_another_pod(pod: Pod, other: Pod) -> None:
    async def go() -> tuple[int, int]:
        async with other:
            there = await inode()
        return there, await inode()

    assert await pod.run_async(go) == (other.inode, pod.inode)


async def test_cancelling_the_caller_cancels_the_coroutine(pod: Pod) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(pod.run_async(wait))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, 30)


async def test_a_coroutine_that_cancels_itself_is_cancelled_here(pod: Pod) -> None:
    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await pod.run_async(cancel)


async def test_the_end_of_the_pod_is_an_error_for_who_waits(cluster: Cluster, pod: Pod) -> None:
    started = threading.Event()
    tidied = []

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(where())

    task = asyncio.create_task(pod.run_async(wait))
    await asyncio.to_thread(started.wait)
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError, match="the loop of pod 'first' is closed"):
        await task
    assert tidied == [pod.inode]


async def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    await pod.run_async(inode)
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError, match="was removed"):
        await pod.run_async(inode)


async def test_a_coroutine_blocked_in_a_socket_ends_with_the_pod(cluster: Cluster, pod: Pod) -> None:
    import socket

    started = threading.Event()

    async def block() -> None:
        with socket.create_server(("", 80)) as server:
            started.set()
            server.accept()

    task = asyncio.create_task(pod.run_async(block))
    await asyncio.to_thread(started.wait)
    cluster.remove_pod(pod)
    with pytest.raises((OSError, ClosedError)):
        await task


async def test_a_loop_that_will_not_end_is_named(
    cluster: Cluster, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    started, go = threading.Event(), threading.Event()

    def a_wait_without_end() -> None:
        go.wait()

    async def block() -> None:
        started.set()
        a_wait_without_end()

    task = asyncio.create_task(pod.run_async(block))
    await asyncio.to_thread(started.wait)
    with pytest.raises(BackgroundError, match="the loop of pod 'first' does not end") as raised:
        cluster.remove_pod(pod)
    assert "a_wait_without_end" in str(raised.value)
    go.set()
    await task


async def test_the_thread_ends_with_the_pod(cluster: Cluster, pod: Pod) -> None:
    async def who() -> threading.Thread:
        return threading.current_thread()

    thread = await pod.run_async(who)
    cluster.remove_pod(pod)
    eventually(lambda: not thread.is_alive())


async def test_a_hundred_small_calls_are_quick(pod: Pod) -> None:
    await pod.run_async(inode)
    begin = time.perf_counter()
    for _ in range(100):
        await pod.run_async(inode)
    assert time.perf_counter() - begin < 5  # about 10 ms, on a machine with nothing else to do
