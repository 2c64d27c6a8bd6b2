"""What node proxies cost: connections, round trips and bulk data by them, next to none; and deploying them.

* direct: between two pods of two nodes that nobody carries.
* plain: the client is carried, the server is not: one proxy, plain text.
* hbone: both are carried: two proxies, mutual TLS and HTTP/2 between them.

Client and server are processes of their own. Both proxies are threads of one process, as they are in a test, and so
share one interpreter lock: two of them never compute at the same time. The connections of hbone are streams of one
tunnel, whose handshake is made once, before; so are those of a real one. All ways are taken in turns; each figure is
the median of the rounds, each ratio that of the medians. Prints one JSON object.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from netwarren import Cluster, Pod, port

ECHO, SINK = 8080, 8081
CHUNK = 1 << 20
WAYS = ("direct", "plain", "hbone")
HERE = os.path.abspath(__file__)


def connect(host: str, number: int) -> socket.socket:
    connection = socket.create_connection((host, number), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65536):
        connection.sendall(data)


def sink(connection: socket.socket) -> None:
    """Reads until the client's end, then says so by a byte."""
    buffer = bytearray(CHUNK)
    while connection.recv_into(buffer):
        pass
    connection.sendall(b".")


def serve() -> None:
    def listen(number: int, handle: Callable[[socket.socket], None]) -> None:
        def one(connection: socket.socket) -> None:
            with connection:
                handle(connection)

        with socket.create_server(("", number), backlog=128) as listener:
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, args=(SINK, sink), daemon=True).start()
    listen(ECHO, echo)


def measure(host: str, connections: int, trips: int, mib: int) -> dict[str, float]:
    start = time.perf_counter()
    for _ in range(connections):
        with connect(host, ECHO) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
    rate = connections / (time.perf_counter() - start)
    took = []
    with connect(host, ECHO) as connection:
        for _ in range(trips):
            start = time.perf_counter()
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            took.append(time.perf_counter() - start)
    data = bytes(CHUNK)
    with connect(host, SINK) as connection:
        start = time.perf_counter()
        for _ in range(mib):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"."
        bulk = mib * CHUNK * 8 / (time.perf_counter() - start) / 1e9
    return {"connections_per_s": rate, "round_trip_us": statistics.median(took) * 1e6, "gbit_per_s": bulk}


def took_ms(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def costs(rounds: int, pods: int) -> dict[str, float]:
    """Of deploying and of being carried, in ms; the first proxy of a process loads what proxies need."""
    deploy: list[float] = []
    carried: list[float] = []
    alone: list[float] = []
    for _ in range(rounds):
        with Cluster() as cluster:
            cluster.add_pod("warm", "node-b")
            deploy.append(took_ms(partial(cluster.deploy_ztunnel_sync, "node-a")))
            for number in range(pods):
                for kept, captured in ((alone, False), (carried, True)):
                    add = partial(
                        cluster.add_pod, f"pod-{number}-{captured}".lower(), "node-a", captured=captured
                    )
                    kept.append(took_ms(add))
    return {
        "first_deploy_ms": round(deploy[0], 1),
        "deploy_ms": round(statistics.median(deploy[1:] or deploy), 1),
        "pod_carried_ms": round(statistics.median(carried), 2),
        "pod_not_carried_ms": round(statistics.median(alone), 2),
    }


def traffic(rounds: int, connections: int, trips: int, mib: int) -> dict[str, dict[str, list[float]]]:
    with Cluster() as cluster:
        for node in ("node-a", "node-b"):
            cluster.deploy_ztunnel_sync(node)
        servers = {each: cluster.add_pod(f"s-{each}", "node-b", captured=each == "hbone") for each in WAYS}
        clients = {each: cluster.add_pod(f"c-{each}", "node-a", captured=each != "direct") for each in WAYS}
        for pod in servers.values():
            pod.popen([sys.executable, HERE, "--serve"], ready=port(SINK))

        def once(way: str, *sizes: int) -> dict[str, float]:
            client: Pod = clients[way]
            words = [sys.executable, HERE, "--measure", str(servers[way].ip), *map(str, sizes)]
            rates: dict[str, float] = json.loads(client.check_output(words))
            return rates

        found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
        for way in WAYS:
            once(way, 5, 50, 1)  # what is loaded and made with the first connection
        for _ in range(rounds):
            for way in WAYS:
                for name, value in once(way, connections, trips, mib).items():
                    found[way].setdefault(name, []).append(value)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=200, help="one after the other, in each round")
    parser.add_argument("--trips", type=int, default=2000, help="of one byte, in each round")
    parser.add_argument("--mib", type=int, default=256, help="sent in each round")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    if arguments.measure:
        host, *sizes = arguments.measure
        print(json.dumps(measure(host, *map(int, sizes))))
        return
    before = os.getloadavg()[0]
    cost = costs(arguments.rounds, 10)
    found = traffic(arguments.rounds, arguments.connections, arguments.trips, arguments.mib)
    median = {way: {name: statistics.median(values) for name, values in found[way].items()} for way in WAYS}
    result = {
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "load_before": round(before, 2),
        "cost": cost,
        "median": {way: {name: round(value, 2) for name, value in median[way].items()} for way in WAYS},
        "range": {
            way: {name: [round(min(values), 2), round(max(values), 2)] for name, values in found[way].items()}
            for way in WAYS
        },
        "of_direct": {
            way: {name: round(value / median["direct"][name], 3) for name, value in median[way].items()}
            for way in WAYS[1:]
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
