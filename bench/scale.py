"""netwarren's turn: one large cluster, pods dealt out to its nodes in turn, and then one pod more and one less.

Prints one JSON object: ms until it was ready (``build_ms``, of which ``pods_ms`` for the pods), ms to add and to
remove a pod (``add_ms``, ``remove_ms``), what a pod takes of memory, and how many packets arrived of those sent
between pods taken at random.
"""

import argparse
import gc
import json
import random
import socket
import time

from bench.clusters import held
from bench.machine import kernel_memory
from netwarren import Cluster, Pod


def exchange(sender: Pod, receiver: Pod) -> bool:
    """Whether a datagram arrives, from the sender's own address."""
    with sender.socket(type=socket.SOCK_DGRAM) as here, receiver.socket(type=socket.SOCK_DGRAM) as there:
        there.settimeout(5)
        there.bind((receiver.ip, 0))
        here.sendto(b"x", there.getsockname())
        try:
            return bool(there.recvfrom(10)[1][0] == sender.ip)
        except TimeoutError:
            return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--spread", type=int, default=1000, help="pods of all nodes together")
    parser.add_argument("--adding", type=int, default=100, help="pods to add and to remove, one by one")
    parser.add_argument("--sample", type=int, default=200, help="pairs of pods that exchange a packet")
    arguments = parser.parse_args()
    names = [f"node-{number}" for number in range(arguments.nodes)]
    Cluster(nodes=names[:1]).close()  # loads what is loaded with the first, as a suite's first test does

    start = time.perf_counter()
    with Cluster(nodes=names) as cluster:
        for node in names:
            cluster.node(node)
        nodes_ms = (time.perf_counter() - start) * 1e3
        gc.collect()
        before, kernel_before = held(0), kernel_memory()
        start = time.perf_counter()
        pods = [
            cluster.add_pod(f"pod-{number}", names[number % len(names)]) for number in range(arguments.spread)
        ]
        pods_ms = (time.perf_counter() - start) * 1e3
        gc.collect()
        after, kernel_after = held(0), kernel_memory()

        added, removed = [], []
        for number in range(arguments.adding):
            start = time.perf_counter()
            pod = cluster.add_pod(f"more-{number}", names[number % len(names)])
            added.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            cluster.remove_pod(pod)
            removed.append((time.perf_counter() - start) * 1e3)

        chance = random.Random(5)
        pairs = [chance.sample(pods, 2) for _ in range(arguments.sample)] if len(pods) > 1 else []
        arrived = sum(exchange(*pair) for pair in pairs)
        start = time.perf_counter()
    close_ms = (time.perf_counter() - start) * 1e3
    print(
        json.dumps(
            {
                "nodes": arguments.nodes,
                "pods": arguments.spread,
                "build_ms": [nodes_ms + pods_ms],
                "nodes_ms": [nodes_ms],
                "pods_ms": [pods_ms],
                "close_ms": [close_ms],
                "add_ms": added,
                "remove_ms": removed,
                "sent": len(pairs),
                "arrived": arrived,
                "own_kb": (after["memory_kb"] - before["memory_kb"]) / max(1, arguments.spread),
                "kernel_kb": (kernel_after - kernel_before) / max(1, arguments.spread),
            }
        )
    )


if __name__ == "__main__":
    main()
