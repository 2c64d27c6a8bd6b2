"""Fifty rounds of everything leave as many descriptors and threads as one."""

import asyncio
import os
import threading
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import ProgramError
from tests.kept import let_go
from tests.runtime.conftest import eventually, in_thread, where

pytestmark = pytest.mark.usefixtures("nothing_kept")


def block(pod: Pod, other: Pod) -> None:
    with pod, other:
        pass


def call(pod: Pod, other: Pod) -> None:
    pod.run(where)


def block_in_thread(pod: Pod, other: Pod) -> None:
    def visit() -> None:
        with pod:
            in_thread(lambda: other.run(where))

    in_thread(visit)


def background(pod: Pod, other: Pod) -> None:
    pod.start(where).result(30)


def sockets(pod: Pod, other: Pod) -> None:
    pod.socket().close()


def tasks(pod: Pod, other: Pod) -> None:
    async def main() -> None:
        async with pod, other:
            await asyncio.to_thread(where)

    asyncio.run(main())


def own_loop(pod: Pod, other: Pod) -> None:
    asyncio.run(pod.run_async(asyncio.sleep, 0))


def program(pod: Pod, other: Pod) -> None:
    pod.popen(["true"]).wait(30)


def failed_program(pod: Pod, other: Pod) -> None:
    with pytest.raises(ProgramError):
        pod.popen(["no-such-program"])


def output(pod: Pod, other: Pod) -> None:
    pod.check_output(["cat"], input="x")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "use",
    [block, call, block_in_thread, background, sockets, tasks, own_loop, program, failed_program, output],
)
def test_nothing_is_left_of(use: Callable[[Pod, Pod], None], pod: Pod, other: Pod) -> None:
    use(pod, other)
    fds, threads = descriptors(), threading.active_count()
    for _ in range(50):
        use(pod, other)
    # What others close, like the thread that reads output, they close in their own time.
    eventually(lambda: descriptors() <= fds)
    eventually(lambda: threading.active_count() <= threads)


def test_a_closed_cluster_leaves_no_descriptor_and_no_thread(cluster: Cluster) -> None:
    def life() -> None:
        with Cluster("short") as short:
            one, two = short.add_pod("one"), short.add_pod("two", node="node-b")
            for use in (block, call, background, program, own_loop):
                use(one, two)
            one.popen(["sleep", "1000"])
            one.start(lambda stop: stop.wait())

    def left() -> int:
        let_go()
        return descriptors()

    life()
    fds, threads = left(), threading.active_count()
    for _ in range(5):
        life()
    eventually(lambda: left() <= fds)
    eventually(lambda: threading.active_count() <= threads)
