"""Tasks that live in no pod never see one, however many hop around them."""

import asyncio
import contextlib
import random

from netwarren import Cluster, Pod
from netwarren.runtime import standing
from tests.runtime.conftest import where


async def test_unrelated_tasks_never_see_the_pod(pod: Pod) -> None:
    done = False
    seen = set()

    async def stranger() -> None:
        while not done:
            seen.add(where())
            await asyncio.sleep(0)

    task = asyncio.create_task(stranger())
    async with pod:
        for _ in range(50):
            await asyncio.sleep(0)
            assert where() == pod.inode
    done = True
    await task
    assert pod.inode not in seen


async def test_many_tasks_hop_between_many_pods(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"p{number}") for number in range(8)]
    inodes = {pod.inode for pod in pods}
    done = False
    wrong: list[str] = []

    async def stranger() -> None:
        while not done:
            if where() in inodes:
                wrong.append("a stranger is in a pod")
            await asyncio.sleep(0)

    async def hop(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(30):
            first, second = choice.sample(pods, 2)
            async with first:
                await asyncio.sleep(0)
                if where() != first.inode:
                    wrong.append("not in the first")
                if choice.random() < 0.5:
                    async with second:
                        await asyncio.sleep(choice.choice([0, 0.0001]))
                        if where() != second.inode:
                            wrong.append("not in the second")
                if where() != first.inode:
                    wrong.append("not back in the first")
                with contextlib.suppress(ValueError):
                    async with second:
                        raise ValueError
            if where() in inodes:
                wrong.append("not back")

    strangers = [asyncio.create_task(stranger()) for _ in range(3)]
    await asyncio.gather(*(hop(seed) for seed in range(40)))
    done = True
    await asyncio.gather(*strangers)
    assert wrong == []


async def test_when_all_is_over_the_thread_has_no_frame_open(pod: Pod, other: Pod) -> None:
    async def visit(machine: Pod) -> None:
        async with machine:
            await asyncio.sleep(0)

    await asyncio.gather(*(visit(machine) for machine in (pod, other) * 5))
    assert standing.here.frames == []


async def test_tasks_that_fail_in_a_pod_leave_nothing(pod: Pod) -> None:
    async def fail() -> None:
        async with pod:
            await asyncio.sleep(0)
            raise ValueError("in the pod")

    results = await asyncio.gather(*(fail() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
    assert where() != pod.inode
    assert standing.here.frames == []


async def test_a_task_dropped_in_a_pod_leaves_nothing(pod: Pod) -> None:
    async def stay() -> None:
        async with pod:
            await asyncio.Event().wait()

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert where() != pod.inode
