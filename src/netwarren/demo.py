"""``netwarren demo``: the main job, shown: a cluster is built, code runs in it three ways, nothing is left.

Rules: only what a user could write; every step is timed where the user would wait.
Does not belong here: benchmarks.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netwarren.cluster import Cluster, Pod

PORT = 8080

_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
    s.sendall(b"ping")
    print(s.recv(100).decode())
"""


class _Steps:
    """Prints each step with the milliseconds it took."""

    def __init__(self) -> None:
        self.total = 0.0

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add(what, (time.perf_counter() - start) * 1e3)

    def add(self, what: str, milliseconds: float) -> None:
        self.total += milliseconds
        print(f"  {milliseconds:7.2f} ms  {what}")


def main() -> int:
    """Run the demo; returns the exit status."""
    steps = _Steps()
    print("A cluster of Linux namespaces, in this process, without root:")
    with steps.step("enter the sandbox; make the root namespace with its bridge"):
        cluster = Cluster("demo")
    with cluster:
        with steps.step("two nodes: node-a, node-b"):
            _nodes = cluster.nodes
        pods: dict[str, Pod] = {}
        for name, node in (
            ("server", "node-a"),
            ("near", "node-a"),
            ("far", "node-b"),
            ("farther", "node-b"),
        ):
            with steps.step(f"pod {name} on {node}"):
                pods[name] = cluster.add_pod(name, node=node)
        print()
        print(cluster.describe())
        print()
        with steps.step("start a TCP echo server in the background of pod server"):
            pods["server"].start(_serve)
        _say(pods, steps, "near", _from_thread, "a thread,  same node")
        _say(pods, steps, "far", _from_thread, "a thread,  other node")
        _say(pods, steps, "near", _from_program, "a program, same node")
        _say(pods, steps, "farther", _from_program, "a program, other node")
        asyncio.run(_from_tasks(pods, steps))
        closing = time.perf_counter()
    steps.add("close the cluster: programs, threads, namespaces", (time.perf_counter() - closing) * 1e3)
    print(f"  {steps.total:7.2f} ms  in all; nothing is left behind")
    sys.stdout.flush()
    return 0


def _serve(ready: Callable[[], None]) -> None:
    with socket.create_server(("", PORT)) as server:
        ready()
        while True:
            connection, (peer, _port) = server.accept()
            with connection:
                connection.sendall(f"{connection.recv(100).decode()} from {peer}".encode())


def _say(pods: dict[str, Pod], steps: _Steps, name: str, way: Callable[[Pod, str], str], what: str) -> None:
    pod = pods[name]
    start = time.perf_counter()
    answer = way(pod, pods["server"].ip)
    _report(steps, (time.perf_counter() - start) * 1e3, pod, what, answer)


def _report(steps: _Steps, milliseconds: float, pod: Pod, what: str, answer: str) -> None:
    if answer != f"ping from {pod.ip}":
        raise AssertionError(f"the server answered {answer!r} to {pod!r}")
    steps.add(f"{what}: {pod.name} asks server, which answers {answer!r}", milliseconds)


def _from_thread(pod: Pod, address: str) -> str:
    with pod, socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"ping")
        return connection.recv(100).decode()


def _from_program(pod: Pod, address: str) -> str:
    return pod.check_output([sys.executable, "-I", "-S", "-c", _CLIENT, address, str(PORT)]).strip()


async def _from_tasks(pods: dict[str, Pod], steps: _Steps) -> None:
    for name, what in (("near", "a task,    same node"), ("far", "a task,    other node")):
        pod = pods[name]
        start = time.perf_counter()
        async with pod:
            reader, writer = await asyncio.open_connection(pods["server"].ip, PORT)
        writer.write(b"ping")
        answer = (await reader.read(100)).decode()
        writer.close()
        await writer.wait_closed()
        _report(steps, (time.perf_counter() - start) * 1e3, pod, what, answer)
