"""Programs started by tasks that live in a pod."""

import asyncio
import asyncio.subprocess
import subprocess
import sys

from netwarren import Cluster, Pod
from tests.runtime.conftest import where

PRINT = "import os; print(os.stat('/proc/self/ns/net').st_ino)"


async def test_asyncio_subprocesses_run_in_the_pod(pod: Pod) -> None:
    async with pod:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PRINT, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert int(out) == pod.inode
        assert where() == pod.inode


async def test_a_shell_of_asyncio_runs_in_the_pod(pod: Pod) -> None:
    async with pod:
        process = await asyncio.create_subprocess_shell(
            "stat -Lc %i /proc/self/ns/net", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert int(out) == pod.inode


async def test_subprocess_run_does_too(pod: Pod) -> None:
    async with pod:
        assert int(subprocess.check_output([sys.executable, "-c", PRINT])) == pod.inode


async def test_programs_of_strangers_do_not(pod: Pod) -> None:
    async def stranger() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PRINT, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return int(out)

    task = asyncio.create_task(stranger())
    async with pod:
        assert await task != pod.inode


async def test_a_program_left_running_ends_with_the_pod(cluster: Cluster, pod: Pod) -> None:
    async with pod:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
    cluster.remove_pod(pod)
    async with asyncio.timeout(30):
        assert await process.wait() == -9


async def test_popen_and_check_output_work_from_a_task_in_another_pod(pod: Pod, other: Pod) -> None:
    async with pod:
        assert int(other.check_output([sys.executable, "-c", PRINT])) == other.inode
        assert where() == pod.inode
