"""``async with pod:`` and ``with pod:`` under trio."""

import socket
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from netwarren import Pod
from netwarren.errors import SteppingError
from netwarren.runtime import standing
from tests.runtime.conftest import where


def run(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main)
    assert standing.here.frames == []


def test_the_task_is_in_the_pod_and_back_afterwards(pod: Pod) -> None:
    async def main() -> None:
        home = where()
        async with pod:
            assert where() == pod.inode
            await trio.lowlevel.checkpoint()
            assert where() == pod.inode
            home = standing.home().inode
        assert where() == home
        await trio.lowlevel.checkpoint()
        assert where() == home

    run(main)


def test_blocks_nest(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        async with pod:
            async with other:
                await trio.lowlevel.checkpoint()
                assert where() == other.inode
            assert where() == pod.inode
            await trio.lowlevel.checkpoint()
            assert where() == pod.inode

    run(main)


def test_tasks_of_a_nursery_follow(pod: Pod) -> None:
    seen = []

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        seen.append(where())

    async def main() -> None:
        async with pod, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child)

    run(main)
    assert seen == [pod.inode] * 3


def test_unrelated_tasks_never_see_the_pod(pod: Pod, other: Pod) -> None:
    seen = set()

    async def stranger() -> None:
        for _ in range(50):
            seen.add(where())
            await trio.lowlevel.checkpoint()

    async def live(machine: Pod) -> None:
        async with machine:
            for _ in range(20):
                await trio.lowlevel.checkpoint()
                assert where() == machine.inode

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for machine in (pod, other) * 3:
                nursery.start_soon(stranger)
                nursery.start_soon(live, machine)

    run(main)
    assert not seen & {pod.inode, other.inode}


def test_an_exception_goes_through(pod: Pod) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="mine"):
            async with pod:
                await trio.lowlevel.checkpoint()
                raise ValueError("mine")
        assert where() != pod.inode

    run(main)


def test_cancelled_inside_the_task_tidies_up_in_the_pod(pod: Pod) -> None:
    seen = []

    async def live(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with pod:
                task_status.started(scope)
                try:
                    await trio.sleep_forever()
                finally:
                    seen.append(where())
        seen.append(where())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (await nursery.start(live)).cancel()

    run(main)
    assert seen[0] == pod.inode != seen[1]


def test_cancelled_while_entering_the_task_is_where_it_was(pod: Pod) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                async with pod:
                    await trio.lowlevel.checkpoint()
            finally:
                assert where() != pod.inode
        assert scope.cancelled_caught
        await trio.lowlevel.checkpoint()
        assert where() != pod.inode

    run(main)


def test_threads_run_in_the_pod_and_are_home_afterwards(pod: Pod) -> None:
    async def main() -> None:
        async with pod:
            assert await trio.to_thread.run_sync(where) == pod.inode
        for _ in range(3):
            assert await trio.to_thread.run_sync(where) != pod.inode

    run(main)


def test_programs_run_in_the_pod(pod: Pod) -> None:
    async def main() -> None:
        async with pod:
            script = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
            result = await trio.run_process([sys.executable, "-c", script], capture_stdout=True)
            assert int(result.stdout) == pod.inode

    run(main)


def test_getaddrinfo_is_asked_in_the_pod(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = socket.getaddrinfo

    def getaddrinfo(*arguments: object, **options: object) -> object:
        asked.append(where())
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        async with pod:
            await trio.socket.getaddrinfo("localhost", 80)

    run(main)
    assert pod.inode in asked
    assert set(asked) <= {pod.inode}


def test_connections_and_servers(pod: Pod, other: Pod) -> None:
    handled = []

    async def handle(stream: trio.SocketStream) -> None:
        handled.append(where())
        await stream.send_all(await stream.receive_some(10))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with pod:
                await nursery.start(trio.serve_tcp, handle, 80)
            async with other:
                stream = await trio.open_tcp_stream(pod.ip, 80)
                await stream.send_all(b"hello")
                assert await stream.receive_some(10) == b"hello"
                await stream.aclose()
            nursery.cancel_scope.cancel()

    run(main)
    assert handled == [pod.inode]


def test_a_short_block_is_fine_between_checkpoints(pod: Pod) -> None:
    async def main() -> None:
        with pod:
            assert where() == pod.inode
        assert where() != pod.inode
        await trio.lowlevel.checkpoint()
        with pod:
            assert where() == pod.inode

    run(main)


def test_a_short_block_across_a_checkpoint_is_told_and_nobody_saw_the_pod(pod: Pod) -> None:
    seen = []

    async def stranger() -> None:
        for _ in range(10):
            seen.append(where())
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger)
            nursery.start_soon(stranger)
            with pytest.raises(SteppingError, match=r"async with"), pod:
                await trio.lowlevel.checkpoint()
                seen.append(where())

    run(main)
    assert len(seen) == 21
    assert pod.inode not in seen


def test_a_short_block_across_a_checkpoint_is_told_to_a_task_in_a_pod_too(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        async with pod:
            with pytest.raises(SteppingError), other:
                await trio.lowlevel.checkpoint()
                assert where() == pod.inode
            assert where() == pod.inode

    run(main)


def test_inside_a_short_block_it_is_refused(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        with pod, pytest.raises(SteppingError, match="does not nest"):
            await other.__aenter__()

    run(main)


def test_left_in_another_task_is_an_error(pod: Pod) -> None:
    failures = []

    async def leave(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await pod.__aexit__(None, None, None)
        except SteppingError as error:
            failures.append(str(error))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(leave)

    run(main)
    assert len(failures) == 1
    assert "another task" in failures[0]


def test_a_run_inside_a_block_stays_in_it(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        assert where() == pod.inode
        async with other:
            await trio.lowlevel.checkpoint()
            assert where() == other.inode
        await trio.lowlevel.checkpoint()
        assert where() == pod.inode

    with pod:
        trio.run(main)
    assert where() != pod.inode


def test_run_async_works_from_trio(pod: Pod) -> None:
    async def inode() -> int:
        import asyncio

        await asyncio.sleep(0)
        return where()

    async def main() -> None:
        home = where()
        assert await pod.run_async(inode) == pod.inode
        assert where() == home

    run(main)


def test_run_async_raises_in_trio(pod: Pod) -> None:
    async def fail() -> None:
        raise LookupError("from the loop")

    async def main() -> None:
        with pytest.raises(LookupError, match="from the loop"):
            await pod.run_async(fail)

    run(main)


def test_run_async_cancelled_from_trio_cancels_the_coroutine(pod: Pod) -> None:
    import asyncio
    import threading

    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pod.run_async, wait)
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()

    run(main)
    assert cancelled.wait(30)
