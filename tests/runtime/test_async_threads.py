"""Threads of pools that work for tasks in pods, and for everybody else afterwards."""

import asyncio
import concurrent.futures
import multiprocessing
import threading

import pytest

from netwarren import Cluster, Pod
from netwarren.runtime import standing
from tests.runtime.conftest import where


async def test_to_thread_runs_in_the_pod(pod: Pod) -> None:
    async with pod:
        assert await asyncio.to_thread(where) == pod.inode


async def test_run_in_executor_runs_in_the_pod(pod: Pod) -> None:
    async with pod:
        assert await asyncio.get_running_loop().run_in_executor(None, where) == pod.inode


async def test_arguments_and_exceptions_go_through(pod: Pod) -> None:
    async with pod:
        assert await asyncio.to_thread(max, 1, 2, key=lambda number: -number) == 1
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)


async def test_a_thread_of_the_pool_is_home_for_the_next_job(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        async with pod:
            ours = await loop.run_in_executor(pool, lambda: (where(), threading.get_ident()))
        strangers = await loop.run_in_executor(pool, lambda: (where(), threading.get_ident()))
    assert ours[1] == strangers[1]
    assert ours[0] == pod.inode
    assert strangers[0] == standing.home().inode


async def test_threads_that_are_there_already_follow(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = await loop.run_in_executor(pool, where)
        async with pod:
            assert await loop.run_in_executor(pool, where) == pod.inode
        assert before != pod.inode


async def test_threads_of_a_pool_are_not_born_in_the_pod(pod: Pod) -> None:
    """Who takes which job is a matter of chance, so one born there could take a stranger's first."""
    born = []
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1, initializer=lambda: born.append(where())) as pool:
        async with pod:
            await loop.run_in_executor(pool, where)
    assert pod.inode not in born


async def test_jobs_of_many_pods_and_of_strangers_share_a_pool(cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    pods = [cluster.add_pod(f"p{number}") for number in range(5)]
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(3))

    async def live(pod: Pod) -> set[int]:
        async with pod:
            return {await asyncio.to_thread(where) for _ in range(20)}

    async def stranger() -> set[int]:
        return {await asyncio.to_thread(where) for _ in range(20)}

    *found, seen = await asyncio.gather(*(live(pod) for pod in pods), stranger())
    assert found == [{pod.inode} for pod in pods]
    assert not seen & {pod.inode for pod in pods}


async def test_a_nested_block_sends_jobs_to_the_inner_pod(pod: Pod, other: Pod) -> None:
    async with pod:
        async with other:
            assert await asyncio.to_thread(where) == other.inode
        assert await asyncio.to_thread(where) == pod.inode


async def test_a_job_may_step_on_by_itself(pod: Pod, other: Pod) -> None:
    def job() -> tuple[int, int]:
        with other:
            inner = where()
        return inner, where()

    async with pod:
        assert await asyncio.to_thread(job) == (other.inode, pod.inode)


async def test_process_pools_are_untouched(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    methods = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=methods) as pool:
        async with pod:
            inside = await loop.run_in_executor(pool, where)
        outside = await loop.run_in_executor(pool, where)
    assert inside == outside != pod.inode
