"""netwarren's turn: clusters made and closed, one after the other, in one process.

Prints one JSON object in the shape of `floor.c` and `ip_commands.py`: milliseconds until each cluster was
ready (``build_ms``) and until it was closed as well (``total_ms``); and besides, for each phase, where the time
went, and what the process holds on to as it goes on.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from netwarren import Cluster

EVERY = 50
"""After so many clusters it is noted what the process holds."""


@dataclass
class Phase:
    """Where the time of one kind of step went, in ms over all clusters."""

    name: str
    wall: float = 0.0
    user: float = 0.0
    """The calling thread's, computing."""
    system: float = 0.0
    """The calling thread's, in the kernel."""
    queued: float = 0.0
    """The calling thread's, waiting for a processor that others use."""
    background: float = 0.0
    """Processor time of the process's other threads meanwhile."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add what the block takes; by getrusage(2) and /proc/thread-self/schedstat."""
        mine, everybody, queued = _used(resource.RUSAGE_THREAD), _used(resource.RUSAGE_SELF), _queued()
        start = time.perf_counter()
        yield
        self.wall += (time.perf_counter() - start) * 1e3
        user, system = (now - then for now, then in zip(_used(resource.RUSAGE_THREAD), mine, strict=True))
        self.user += user
        self.system += system
        self.queued += _queued() - queued
        self.background += max(0.0, sum(_used(resource.RUSAGE_SELF)) - sum(everybody) - user - system)


def _used(who: int) -> tuple[float, float]:
    usage = resource.getrusage(who)
    return usage.ru_utime * 1e3, usage.ru_stime * 1e3


def _queued() -> float:
    """Ms that this thread has waited for a processor so far; 0 where the kernel does not count that."""
    try:
        with open("/proc/thread-self/schedstat") as schedstat:
            return int(schedstat.read().split()[1]) / 1e6
    except OSError:
        return 0.0


def held(clusters: int) -> dict[str, int]:
    """What the process holds after ``clusters`` of them: memory of its own in kB, descriptors, threads."""
    with open("/proc/self/smaps_rollup") as rollup:
        anonymous = next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))
    return {
        "clusters": clusters,
        "memory_kb": anonymous,
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # not the one that lists them
        "threads": len(os.listdir("/proc/self/task")),
    }


def check(cluster: Cluster) -> None:
    """Whether the cluster carries traffic: a connection from its first pod to its last."""
    first, *_, last = cluster.pods.values()
    with last.socket() as listener, first.socket() as client:
        listener.bind((last.ip, 8080))
        listener.listen()
        client.settimeout(5)
        client.connect((last.ip, 8080))
        connection, (address, _port) = listener.accept()
        connection.close()
    if address != first.ip:
        raise SystemExit(f"the last pod saw {address}, and not {first.ip}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--pods", type=int, default=3, help="on each node")
    parser.add_argument("--pause", type=float, default=0, help="ms before each cluster but the first")
    parser.add_argument("--check", action="store_true", help="that the first carries traffic, untimed")
    arguments = parser.parse_args()
    names = [f"node-{number}" for number in range(arguments.nodes)]
    build: list[float] = []
    total: list[float] = []
    holds = []
    root, pods, close = Phase("root"), Phase("nodes and pods"), Phase("close")
    for made in range(arguments.clusters):
        if made and arguments.pause:
            time.sleep(arguments.pause / 1e3)
        start = time.perf_counter()
        with root.timed():
            cluster = Cluster(nodes=names)
        with pods.timed():
            for node in names:
                for number in range(arguments.pods):
                    cluster.add_pod(f"pod-{number}-{node}", node=node)
        build.append((time.perf_counter() - start) * 1e3)
        if arguments.check and not made:
            check(cluster)
        closing = time.perf_counter()
        with close.timed():
            cluster.close()
        total.append(build[-1] + (time.perf_counter() - closing) * 1e3)
        if (made + 1) % EVERY == 0:
            holds.append(held(made + 1))
    print(
        json.dumps(
            {
                "clusters": arguments.clusters,
                "nodes": arguments.nodes,
                "pods": arguments.pods,
                "build_ms": build,
                "total_ms": total,
                "phases": [asdict(phase) for phase in (root, pods, close)],
                "held": holds,
            }
        )
    )


if __name__ == "__main__":
    main()
