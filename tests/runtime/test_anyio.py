"""anyio: its tasks, threads and programs in pods, on asyncio and on trio."""

import subprocess
import sys
from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import pytest

from netwarren import Pod
from tests.runtime.conftest import where

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(main: Callable[[], Awaitable[None]]) -> None:
        anyio.run(main, backend=request.param)

    return run


def test_task_groups_follow(run: Run, pod: Pod) -> None:
    seen = []

    async def child() -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(where())

    async def main() -> None:
        async with pod, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(child)
        assert where() != pod.inode

    run(main)
    assert seen == [pod.inode] * 3


def test_connections_and_servers(run: Run, pod: Pod, other: Pod) -> None:
    handled = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            handled.append(where())
            await stream.send(await stream.receive())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            async with pod:
                listener = await anyio.create_tcp_listener(local_port=80)
                group.start_soon(listener.serve, handle)
            async with other, await anyio.connect_tcp(pod.ip, 80) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
            group.cancel_scope.cancel()
        await listener.aclose()

    run(main)
    # The group was opened outside, and its children live where they were started.
    assert handled == [pod.inode]


def test_threads_run_in_the_pod(run: Run, pod: Pod) -> None:
    async def main() -> None:
        async with pod:
            assert await anyio.to_thread.run_sync(where) == pod.inode

    run(main)


def test_a_thread_is_home_for_the_next_job(run: Run, pod: Pod, other: Pod) -> None:
    async def main() -> None:
        async with pod:
            assert await anyio.to_thread.run_sync(where) == pod.inode
        for _ in range(5):
            assert await anyio.to_thread.run_sync(where) not in (pod.inode, other.inode)
        async with other:
            assert await anyio.to_thread.run_sync(where) == other.inode

    run(main)


def test_threads_that_are_there_already_follow(run: Run, pod: Pod) -> None:
    async def main() -> None:
        before = await anyio.to_thread.run_sync(where)
        async with pod:
            assert await anyio.to_thread.run_sync(where) == pod.inode
        assert before != pod.inode

    run(main)


def test_arguments_and_exceptions_of_threads_go_through(run: Run, pod: Pod) -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    async def main() -> None:
        async with pod:
            assert await anyio.to_thread.run_sync(max, 1, 2, abandon_on_cancel=True) == 2
            with pytest.raises(ValueError, match="7"):
                await anyio.to_thread.run_sync(fail, 7)
            assert await anyio.Path("/proc/self").exists()

    run(main)


def test_programs_run_in_the_pod(run: Run, pod: Pod) -> None:
    async def main() -> None:
        async with pod:
            script = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
            result = await anyio.run_process([sys.executable, "-c", script])
            assert int(result.stdout) == pod.inode

    run(main)


def test_cancel_scopes(run: Run, pod: Pod) -> None:
    seen = []

    async def live(*, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope() as scope:
            async with pod:
                task_status.started(scope)
                try:
                    await anyio.sleep_forever()
                finally:
                    seen.append(where())
        seen.append(where())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            (await group.start(live)).cancel()

    run(main)
    assert seen[0] == pod.inode != seen[1]


def test_a_short_block_across_an_await_is_told(run: Run, pod: Pod) -> None:
    from netwarren.errors import SteppingError

    seen = []

    async def stranger() -> None:
        for _ in range(5):
            seen.append(where())
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stranger)
            with pytest.raises(SteppingError, match="an await or yield"), pod:
                await anyio.lowlevel.checkpoint()

    run(main)
    assert pod.inode not in seen


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_loaded_only_inside_a_pod_follows_as_well(backend: str) -> None:
    script = f"""
import asyncio
from netwarren import Cluster
from netwarren.kernel.netns import inode_of

async def main():
    async with pod:
        import anyio.to_thread
        assert await anyio.to_thread.run_sync(inode_of) == pod.inode
    assert await anyio.to_thread.run_sync(inode_of) != pod.inode

with Cluster() as cluster:
    pod = cluster.add_pod("a")
    if {backend!r} == "trio":
        import trio
        trio.run(main)
    else:
        asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
