"""``async with pod:``: the task lives in the pod, on the loop and thread of everybody else."""

import asyncio
import sys
import threading

import pytest

from netwarren import ClosedError, Cluster, Pod
from netwarren.errors import SteppingError
from tests.runtime.conftest import where


async def test_the_task_is_in_the_pod_and_back_afterwards(pod: Pod) -> None:
    async with pod:
        assert where() == pod.inode
    assert where() != pod.inode


async def test_the_block_gets_the_pod(pod: Pod) -> None:
    async with pod as inside:
        assert inside is pod


async def test_loop_and_thread_are_the_same(pod: Pod) -> None:
    before = asyncio.get_running_loop(), threading.get_ident()
    async with pod:
        assert (asyncio.get_running_loop(), threading.get_ident()) == before


async def test_the_task_is_in_the_pod_after_each_await(pod: Pod) -> None:
    async with pod:
        for _ in range(5):
            await asyncio.sleep(0)
            assert where() == pod.inode
        await asyncio.sleep(0.001)
        assert where() == pod.inode


async def test_blocks_nest(pod: Pod, other: Pod) -> None:
    async with pod:
        async with other:
            assert where() == other.inode
            await asyncio.sleep(0)
            assert where() == other.inode
        assert where() == pod.inode
        await asyncio.sleep(0)
        assert where() == pod.inode
    assert where() not in (pod.inode, other.inode)


async def test_the_same_pod_nests_in_itself(pod: Pod) -> None:
    async with pod:
        async with pod:
            pass
        await asyncio.sleep(0)
        assert where() == pod.inode


async def test_an_exception_goes_through_and_the_task_is_back(pod: Pod) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with pod:
            await asyncio.sleep(0)
            raise ValueError("mine")
    assert where() != pod.inode


async def test_a_short_block_inside_goes_elsewhere_and_back(pod: Pod, other: Pod) -> None:
    async with pod:
        with other:
            assert where() == other.inode
        assert where() == pod.inode
        assert other.run(where) == other.inode
        other.socket().close()
        assert where() == pod.inode


async def test_inside_a_short_block_it_is_refused(pod: Pod, other: Pod) -> None:
    with pod, pytest.raises(SteppingError, match="does not nest; write `async with` for both"):
        await other.__aenter__()
    async with pod:
        with other, pytest.raises(SteppingError, match="does not nest"):
            await pod.__aenter__()
        assert where() == pod.inode


async def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError, match="was removed"):
        async with pod:
            pass


async def test_a_pod_removed_meanwhile_lets_the_task_go(cluster: Cluster, pod: Pod, other: Pod) -> None:
    async with other:
        async with pod:
            cluster.remove_pod(pod)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert where() == other.inode
    assert where() not in (pod.inode, other.inode)


async def test_left_in_another_task_is_an_error(pod: Pod) -> None:
    async def leave() -> None:
        await pod.__aexit__(None, None, None)

    stranger = asyncio.create_task(leave())
    async with pod:
        with pytest.raises(SteppingError, match="was left in another task than it was entered in"):
            await stranger


async def test_left_out_of_order_is_an_error(pod: Pod, other: Pod) -> None:
    await pod.__aenter__()
    await other.__aenter__()
    with pytest.raises(SteppingError, match="or before the blocks inside it"):
        await pod.__aexit__(None, None, None)
    await other.__aexit__(None, None, None)
    await pod.__aexit__(None, None, None)
    assert where() not in (pod.inode, other.inode)


def test_a_loop_may_run_inside_a_block(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        assert where() == pod.inode
        async with other:
            await asyncio.sleep(0)
            assert where() == other.inode
        await asyncio.sleep(0)
        assert where() == pod.inode

    with pod:
        asyncio.run(main())
    assert where() != pod.inode


def test_each_of_several_loops_can_be_used(pod: Pod) -> None:
    async def main() -> int:
        async with pod:
            await asyncio.sleep(0)
            return where()

    assert [asyncio.run(main()) for _ in range(3)] == [pod.inode] * 3


def test_a_loop_in_debug_mode_can_be_used(pod: Pod) -> None:
    async def main() -> int:
        async with pod:
            await asyncio.sleep(0)
            return await asyncio.to_thread(where)

    assert asyncio.run(main(), debug=True) == pod.inode


async def test_a_loop_that_schedules_in_c_is_refused(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign:
        """As uvloop's loops, which are none of asyncio's."""

    monkeypatch.setattr(asyncio, "get_running_loop", Foreign)
    with pytest.raises(
        SteppingError, match=r"not tests.runtime.*Foreign; use asyncio's, or `pod.socket\(\)`"
    ):
        await pod.__aenter__()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_does_not_take_its_creator_along(pod: Pod, other: Pod) -> None:
    async def live_in_other() -> int:
        async with other:
            await asyncio.sleep(0)
            return where()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        before = where()
        task = asyncio.create_task(live_in_other())
        assert where() == before
        assert await task == other.inode
        async with pod:
            task = asyncio.create_task(live_in_other())
            assert where() == pod.inode
            assert await task == other.inode
            assert where() == pod.inode

    asyncio.run(main())
