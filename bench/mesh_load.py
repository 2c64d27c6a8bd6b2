"""What node proxies carry at once, and what it takes: connections by the thousand, pods by the hundred.

* load: connections from one carried pod to another on the other node, a thousand open at a time, each sending a
  line of its own and reading it back; what is lost, and what the two proxies keep when all are gone.
* memory: of a connection while it is open, both proxies together, and of a carried pod on a node of a hundred; both
  of this process alone (its resident memory), after a first round that fills what is kept for later.

The client and the server are processes of their own, so that what is counted here is the proxies'. Prints one JSON
object.
"""

import argparse
import gc
import json
import os
import selectors
import socket
import sys
import time

from netwarren import Cluster, Pod, port
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.runtime import ferry

ECHO = 8080
HERE = os.path.abspath(__file__)
PATIENCE = 120.0
"""Seconds."""


def serve() -> None:
    """Echo, on one thread: what a thousand threads take is not what is asked here."""
    selector = selectors.DefaultSelector()
    with socket.create_server(("", ECHO), backlog=1024) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fileobj is listener:
                    connection, _peer = listener.accept()
                    selector.register(connection, selectors.EVENT_READ, connection)
                    continue
                connection = key.data
                try:
                    data = connection.recv(4096)
                    if data:
                        connection.sendall(data)
                        continue
                except OSError:
                    pass
                selector.unregister(connection)
                connection.close()


def load(host: str, total: int, at_once: int) -> None:
    """Open ``at_once`` connections, hold them until all have had their answers and a line is read, close; again.

    Prints one line a round: how many got all their answers.
    """
    for first in range(0, total, at_once):
        selector = selectors.DefaultSelector()
        waiting: dict[socket.socket, bytes] = {}
        for number in range(first, min(first + at_once, total)):
            connection = socket.create_connection((host, ECHO), timeout=PATIENCE)
            line = b"%08d\n" % number
            connection.sendall(line)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, connection)
            waiting[connection] = line
        held, right = list(waiting), 0
        deadline = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < deadline:
            for key, _events in selector.select(1.0):
                connection = key.data
                try:
                    data = connection.recv(100)
                except OSError:
                    data = b""
                selector.unregister(connection)
                right += data == waiting.pop(connection)
        print(right, flush=True)
        sys.stdin.readline()  # now they are counted, while they are open
        for connection in held:
            connection.close()
        selector.close()


def resident() -> int:
    """Of this process, in bytes."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    ferry.catch_up()
    return len(os.listdir("/proc/self/fd"))


def under_load(total: int, at_once: int) -> dict[str, object]:
    with Cluster() as cluster:
        for node in ("node-a", "node-b"):
            cluster.deploy_ztunnel_sync(node)
        client, server = cluster.add_pod("client", "node-a"), cluster.add_pod("server", "node-b")
        server.popen([sys.executable, HERE, "--serve"], ready=port(ECHO))
        rounds = run(client, str(server.ip), at_once, at_once)  # what is loaded and made with the first ones
        settle(cluster)
        before, files = resident(), descriptors()
        start = time.perf_counter()
        rounds = run(client, str(server.ip), total, at_once)
        took = time.perf_counter() - start
        settle(cluster)
        return {
            "connections": total,
            "at_once": at_once,
            "lost": total - sum(right for right, _memory in rounds),
            "per_s": round(total / took, 1),
            "kib_per_open_connection": round(max(memory for _right, memory in rounds) / at_once / 1024, 1),
            "kib_kept_after_all": round((resident() - before) / 1024, 1),
            "descriptors_left": descriptors() - files,
        }


def run(client: Pod, host: str, total: int, at_once: int) -> list[tuple[int, int]]:
    """Of each round: how many connections were answered, and by how much memory had grown while they were open."""
    before = resident()
    found = []
    words = [sys.executable, HERE, "--load", host, str(total), str(at_once)]
    program = client.popen(words, stdin=-1, stdout=-1, may_exit=True)
    assert program.stdin is not None
    assert program.stdout is not None
    for line in program.stdout:
        found.append((int(line), resident() - before))
        program.stdin.write(b"\n")
        program.stdin.flush()
    assert program.wait(PATIENCE) == 0
    return found


def settle(cluster: Cluster) -> None:
    """Wait until no proxy has a connection of its pods open."""
    deadline = time.monotonic() + PATIENCE
    for proxy in cluster.mesh.proxies.values():
        while open_connections(proxy) and time.monotonic() < deadline:
            time.sleep(0.05)


def open_connections(proxy: NodeProxy) -> float:
    totals = {"istio_tcp_connections_opened_total": 0.0, "istio_tcp_connections_closed_total": 0.0}
    for sample in proxy.metrics.registry.samples():
        if sample.name in totals:
            totals[sample.name] += sample.value
    opened, closed = totals.values()
    return opened - closed


def pods(number: int) -> dict[str, object]:
    with Cluster(pod_prefix=22, nodes=["node-a"]) as cluster:
        cluster.deploy_ztunnel_sync("node-a")
        for each in range(10):
            cluster.add_pod(f"warm-{each}")
        before, files = resident(), descriptors()
        start = time.perf_counter()
        for each in range(number):
            cluster.add_pod(f"pod-{each}")
        took = time.perf_counter() - start
        return {
            "pods": number,
            "ms_per_pod": round(took * 1e3 / number, 2),
            "kib_per_pod": round((resident() - before) / number / 1024, 1),
            "descriptors_per_pod": round((descriptors() - files) / number, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    if arguments.load:
        host, *sizes = arguments.load
        load(host, *map(int, sizes))
        return
    carried = pods(arguments.pods)  # first, as long as memory of others is not there to be used again
    found = {"pods": carried, "load": under_load(arguments.connections, arguments.at_once)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
