"""``with pod:`` must not span an await: it is told, and nothing else ever runs in the pod."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from netwarren import Pod
from netwarren.errors import SteppingError
from tests.runtime.conftest import where


class Watcher:
    """Runs in every turn of the loop, and notes where."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.turns = 0
        self._on = True
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self.seen.add(where())
        self.turns += 1
        if self._on:
            asyncio.get_running_loop().call_soon(self._look)

    async def turn(self, count: int = 3) -> None:
        goal = self.turns + count
        while self.turns < goal:
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._on = False


async def test_a_coroutine_is_told_to_write_async_with(pod: Pod) -> None:
    watcher = Watcher()
    with pytest.raises(SteppingError, match=r"an await or yield inside it.*async with"), pod:
        assert where() == pod.inode
        await watcher.turn()
        assert where() != pod.inode
    watcher.stop()
    assert pod.inode not in watcher.seen


async def test_a_task_is_told_and_others_never_saw_the_pod(pod: Pod) -> None:
    watcher = Watcher()

    async def wrong() -> None:
        with pod:
            await asyncio.sleep(0)

    async def stranger() -> set[int]:
        seen = set()
        for _ in range(10):
            seen.add(where())
            await asyncio.sleep(0)
        return seen

    results = await asyncio.gather(*(wrong() for _ in range(5)), stranger(), return_exceptions=True)
    watcher.stop()
    *failures, seen = results
    assert all(isinstance(failure, SteppingError) for failure in failures)
    assert isinstance(seen, set)
    assert pod.inode not in seen | watcher.seen


async def test_callbacks_that_were_ready_before_do_not_see_the_pod_either(pod: Pod) -> None:
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    for _ in range(20):
        loop.call_soon(lambda: seen.append(where()))
    with pytest.raises(SteppingError), pod:
        for _ in range(20):
            loop.call_soon(lambda: seen.append(where()))
        await asyncio.sleep(0)
    while len(seen) < 40:
        await asyncio.sleep(0)
    assert pod.inode not in seen


async def test_an_await_that_does_not_suspend_is_no_fault(pod: Pod) -> None:
    async def at_once() -> int:
        return where()

    with pod:
        assert await at_once() == pod.inode


async def test_an_async_generator_is_told(pod: Pod) -> None:
    watcher = Watcher()

    async def rows() -> AsyncIterator[int]:
        with pod:
            yield where()
            yield where()

    with pytest.raises(SteppingError, match="an await or yield"):
        async for _ in rows():
            await watcher.turn()
    watcher.stop()
    assert pod.inode not in watcher.seen


async def test_a_generator_under_a_running_loop_is_told(pod: Pod) -> None:
    watcher = Watcher()

    def rows() -> Iterator[int]:
        with pod:
            yield where()

    generator = rows()
    assert next(generator) == pod.inode
    await watcher.turn()
    with pytest.raises(SteppingError, match="an await or yield"):
        next(generator)
    watcher.stop()
    assert pod.inode not in watcher.seen


async def test_nested_blocks_across_an_await_are_both_told(pod: Pod, other: Pod) -> None:
    watcher = Watcher()
    told = []

    async def wrong() -> None:
        try:
            with pod:
                try:
                    with other:
                        await watcher.turn()
                except SteppingError as error:
                    told.append(str(error))
        except SteppingError as error:
            told.append(str(error))

    await wrong()
    watcher.stop()
    assert [("pod 'second'" in told[0]), ("pod 'first'" in told[1])] == [True, True]
    assert not {pod.inode, other.inode} & watcher.seen


async def test_the_thread_is_good_for_further_blocks(pod: Pod) -> None:
    with pytest.raises(SteppingError), pod:
        await asyncio.sleep(0)
    with pod:
        assert where() == pod.inode
    assert where() != pod.inode


async def test_a_task_in_a_pod_is_told_as_well(pod: Pod, other: Pod) -> None:
    watcher = Watcher()
    async with pod:
        with pytest.raises(SteppingError, match="an await or yield"), other:
            await watcher.turn()
        assert where() == pod.inode
    watcher.stop()
    assert not {pod.inode, other.inode} & watcher.seen


async def test_a_task_suspended_in_a_block_inside_its_pod_comes_back_to_its_pod(pod: Pod, other: Pod) -> None:
    seen = []
    async with pod:
        with pytest.raises(SteppingError), other:
            await asyncio.sleep(0)
            seen.append(where())
    assert seen == [pod.inode]


async def test_blocks_that_span_no_await_are_free_to_nest_in_tasks(pod: Pod, other: Pod) -> None:
    def both() -> tuple[int, int]:
        with pod:
            first = where()
            with other:
                return first, where()

    seen = set()
    call: Callable[[], tuple[int, int]] = both
    for _ in range(3):
        seen.add(call())
        await asyncio.sleep(0)
    assert seen == {(pod.inode, other.inode)}
