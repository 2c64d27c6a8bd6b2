"""Cancellation of tasks that enter or live in a pod."""

import asyncio

import pytest

from netwarren import Pod
from netwarren.runtime import standing
from tests.runtime.conftest import where


async def test_cancelled_inside_the_task_tidies_up_in_the_pod(pod: Pod) -> None:
    started = asyncio.Event()
    seen = []

    async def live() -> None:
        async with pod:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(where())
                await asyncio.sleep(0)
                seen.append(where())

    task = asyncio.create_task(live())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [pod.inode, pod.inode]


async def test_after_a_cancelled_block_the_task_is_home(pod: Pod) -> None:
    seen = []

    async def live() -> None:
        try:
            async with pod:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(where())
            await asyncio.sleep(0)
            seen.append(where())
            raise

    task = asyncio.create_task(live())
    for _ in range(4):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pod.inode not in seen
    assert len(seen) == 2


@pytest.mark.parametrize("turns", range(5))
async def test_cancelled_at_any_moment_of_entering_and_leaving_nothing_stays(pod: Pod, turns: int) -> None:
    seen = []

    async def live() -> None:
        try:
            async with pod:
                pass
            async with pod:
                pass
        finally:
            seen.append(where())
            await asyncio.sleep(0)
            seen.append(where())

    task = asyncio.create_task(live())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pod.inode not in seen
    assert where() != pod.inode
    assert standing.here.frames == []


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_while_entering_a_nested_block_the_task_is_in_the_outer_pod(
    pod: Pod, other: Pod, turns: int
) -> None:
    seen = []

    async def live() -> None:
        async with pod:
            try:
                async with other:
                    await asyncio.Event().wait()
            finally:
                seen.append(where())
                await asyncio.sleep(0)
                seen.append(where())

    task = asyncio.create_task(live())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(seen) <= {pod.inode}


async def test_a_timeout_inside_a_pod(pod: Pod) -> None:
    async with pod:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        assert where() == pod.inode


async def test_a_pod_inside_a_timeout(pod: Pod) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001), pod:
            await asyncio.Event().wait()
    assert where() != pod.inode


async def test_a_failing_sibling_cancels_a_task_in_a_pod(pod: Pod) -> None:
    seen = []

    async def live() -> None:
        async with pod:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(where())

    async def fail() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(live())
            group.create_task(fail())
    assert seen == [pod.inode]
