"""netwarren's turn: stepping into a pod and back, by all its verbs, beside what each is compared with.

Prints one JSON object of lists, in microseconds for one, each value the mean of a batch. What is compared takes
turns, batch by batch.
"""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable

from netwarren import Cluster, Pod

BATCH = 1000


def nothing() -> None:
    """What `pod.run` runs."""


def timed(action: Callable[[], object]) -> float:
    """Microseconds for one ``action``, over a batch."""
    start = time.perf_counter()
    for _ in range(BATCH):
        action()
    return (time.perf_counter() - start) / BATCH * 1e6


async def steps() -> float:
    """Microseconds for one step of the task that asks."""
    start = time.perf_counter()
    for _ in range(BATCH):
        await asyncio.sleep(0)
    return (time.perf_counter() - start) / BATCH * 1e6


async def task_steps(pod: Pod, batches: int) -> tuple[list[float], list[float]]:
    """Of a plain task and of one in ``pod``."""

    async def inside() -> float:
        async with pod:
            return await steps()

    async def alone(coroutine: Awaitable[float]) -> float:
        return await asyncio.ensure_future(coroutine)

    plain, stepped = [], []
    for _ in range(batches):
        plain.append(await alone(steps()))
        stepped.append(await alone(inside()))
    return plain, stepped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=50, help=f"of {BATCH} each")
    arguments = parser.parse_args()
    with Cluster(nodes=["node"]) as cluster:
        pod = cluster.add_pod("pod")
        with pod:  # from here on, this thread can come and go
            pass

        def step() -> None:
            with pod:
                pass

        actions: dict[str, Callable[[], object]] = {
            "call_us": nothing,
            "with_us": step,
            "run_us": lambda: pod.run(nothing),
            "plain_socket_us": lambda: socket.socket().close(),
            "pod_socket_us": lambda: pod.socket().close(),
        }
        found: dict[str, list[float]] = {name: [] for name in actions}
        for action in actions.values():
            timed(action)
        for _ in range(arguments.batches):
            for name, action in actions.items():
                found[name].append(timed(action))
        found["plain_task_us"], found["pod_task_us"] = asyncio.run(task_steps(pod, arguments.batches))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
