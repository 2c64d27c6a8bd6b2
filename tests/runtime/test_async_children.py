"""What a task in a pod starts lives there too: child tasks, timers, callbacks."""

import asyncio

from netwarren import Pod
from tests.runtime.conftest import where


async def inode() -> int:
    await asyncio.sleep(0)
    return where()


async def test_child_tasks(pod: Pod) -> None:
    async with pod:
        assert await asyncio.create_task(inode()) == pod.inode


async def test_gather(pod: Pod) -> None:
    async with pod:
        assert list(await asyncio.gather(inode(), inode(), inode())) == [pod.inode] * 3


async def test_task_groups(pod: Pod) -> None:
    async with pod, asyncio.TaskGroup() as group:
        tasks = [group.create_task(inode()) for _ in range(3)]
    assert [task.result() for task in tasks] == [pod.inode] * 3


async def test_wait_for_and_timeout(pod: Pod) -> None:
    async with pod:
        assert await asyncio.wait_for(inode(), 30) == pod.inode
        async with asyncio.timeout(30):
            assert await inode() == pod.inode
        assert where() == pod.inode


async def test_children_of_children(pod: Pod) -> None:
    async def parent() -> int:
        return await asyncio.create_task(inode())

    async with pod:
        assert await asyncio.create_task(parent()) == pod.inode


async def test_a_child_goes_on_there_after_its_parent_has_left(pod: Pod) -> None:
    go = asyncio.Event()

    async def child() -> int:
        await go.wait()
        return where()

    async with pod:
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
    go.set()
    assert await task == pod.inode
    assert where() != pod.inode


async def test_a_child_may_live_elsewhere(pod: Pod, other: Pod) -> None:
    async def child() -> int:
        async with other:
            return await inode()

    async with pod:
        assert list(await asyncio.gather(child(), inode())) == [other.inode, pod.inode]


async def test_timers_and_callbacks(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    seen: asyncio.Queue[int] = asyncio.Queue()

    def look() -> None:
        seen.put_nowait(where())

    async with pod:
        loop.call_soon(look)
        loop.call_later(0.001, look)
        loop.call_at(loop.time() + 0.001, look)
        loop.call_soon_threadsafe(look)
    assert [await seen.get() for _ in range(4)] == [pod.inode] * 4


async def test_callbacks_of_futures_follow_who_added_them(pod: Pod, other: Pod) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: dict[str, int] = {}
    future.add_done_callback(lambda _: seen.setdefault("home", where()))
    async with pod:
        future.add_done_callback(lambda _: seen.setdefault("pod", where()))
    async with other:
        future.set_result(None)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen["pod"] == pod.inode
    assert seen["home"] == where()


async def test_locks_and_queues_work_across_pods(pod: Pod, other: Pod) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def give() -> None:
        async with pod:
            for _ in range(3):
                await queue.put(where())

    async def take() -> list[int]:
        async with other:
            taken = [await queue.get() for _ in range(3)]
            return [*taken, where()]

    _, taken = await asyncio.gather(give(), take())
    assert taken == [pod.inode] * 3 + [other.inode]


async def test_a_context_given_by_the_caller_decides(pod: Pod) -> None:
    import contextvars

    outside = contextvars.copy_context()
    async with pod:
        task = asyncio.create_task(inode(), context=outside)
        assert await task != pod.inode
        assert where() == pod.inode
