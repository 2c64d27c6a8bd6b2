"""What `bench.py` times of netwarren: clusters made and closed, one after the other, in one process.

Prints one JSON object in the shape of `floor.c` and `ip_commands.py`: milliseconds until each cluster was
ready (``build_ms``) and until it was closed as well (``total_ms``).
"""

import argparse
import json
import time

from netwarren import Cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--pods", type=int, default=3, help="on each node")
    arguments = parser.parse_args()
    names = [f"node-{number}" for number in range(arguments.nodes)]
    build: list[float] = []
    total: list[float] = []
    for _ in range(arguments.clusters):
        start = time.perf_counter()
        cluster = Cluster(nodes=names)
        for node in names:
            for number in range(arguments.pods):
                cluster.add_pod(f"pod-{number}-{node}", node=node)
        build.append((time.perf_counter() - start) * 1e3)
        cluster.close()
        total.append((time.perf_counter() - start) * 1e3)
    print(
        json.dumps(
            {
                "clusters": arguments.clusters,
                "nodes": arguments.nodes,
                "pods": arguments.pods,
                "build_ms": build,
                "total_ms": total,
            }
        )
    )


if __name__ == "__main__":
    main()
