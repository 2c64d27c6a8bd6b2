"""Flows of datagrams, on a loop of the test's own: bounded in number, ended when idle, and with their socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import pytest

from netwarren import Cluster
from netwarren.kernel import tproxy
from netwarren.runtime.flows import Flows
from netwarren.runtime.forwarder import Endpoint


class Bench:
    """A listening socket and a client in the root of a cluster, and an echo server as the host's."""

    def __init__(self, cluster: Cluster, **options: float) -> None:
        root = cluster.root
        _streams, self.listener = root.run(tproxy.listeners, ip_address("127.0.0.1"), 1)
        _streams.close()
        self.server = root.run(self.bound)
        self.server.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.server, self.answer)
        self.answerers: list[socket.socket] = []
        self.target: Endpoint | None = self.server.getsockname()

        async def answerer(client: Endpoint, destination: Endpoint) -> socket.socket:
            made = root.run(tproxy.transparent_socket, ip_address(destination[0]), socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((destination[0], 0))
            made.connect(client)
            self.answerers.append(made)
            return made

        def outer(family: int, kind: int) -> socket.socket:
            return root.socket(family, kind)

        self.reached = 0
        self.flows = Flows(self.reach, answerer, outer=outer, **options)  # type: ignore[arg-type]
        self.flows.listen(self.listener)
        self.clients: list[socket.socket] = []
        self.root = root

    def reach(self, _destination: Endpoint) -> Endpoint | None:
        self.reached += 1
        return self.target

    @staticmethod
    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        return made

    def answer(self) -> None:
        data, client = self.server.recvfrom(65535)
        self.server.sendto(data[::-1], client)

    def client(self) -> socket.socket:
        made = self.root.run(self.bound)
        made.setblocking(False)
        self.clients.append(made)
        return made

    async def ask(self, client: socket.socket, data: bytes) -> bytes:
        await self.loop.sock_sendto(client, data, self.listener.getsockname())
        return await asyncio.wait_for(self.loop.sock_recv(client, 65535), 20)

    def close(self) -> None:
        self.flows.close()
        self.loop.remove_reader(self.server)
        for each in (self.server, *self.clients):
            each.close()


@pytest.fixture
async def make(cluster: Cluster) -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(**options: float) -> Bench:
        made.append(Bench(cluster, **options))
        return made[-1]

    yield bench
    for each in made:
        each.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition``; the test's timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.001)


async def test_one_client_has_one_flow_for_all_its_datagrams(make: Callable[..., Bench]) -> None:
    bench = make()
    client = bench.client()
    for number in range(5):
        assert await bench.ask(client, b"ab%d" % number) == b"%dba" % number
    assert len(bench.flows) == 1
    assert len(bench.flows.sockets) == 3  # the listening one, and one for each side


async def test_a_flow_that_is_idle_ends(make: Callable[..., Bench]) -> None:
    bench = make(idle=1.0)  # an answer comes sooner, also on a busy machine
    client = bench.client()
    assert await bench.ask(client, b"ab") == b"ba"
    await until(lambda: len(bench.flows) == 0)
    assert [each.fileno() for each in bench.answerers] == [-1]
    assert len(bench.flows.sockets) == 1
    assert await bench.ask(client, b"cd") == b"dc"  # and begins anew


async def test_of_too_many_flows_the_one_idle_longest_ends(make: Callable[..., Bench]) -> None:
    bench = make(most=3)
    clients = [bench.client() for _ in range(3)]
    for client in clients:
        await bench.ask(client, b"x")
    await bench.ask(clients[0], b"x")
    await bench.ask(bench.client(), b"x")
    assert len(bench.flows) == 3
    assert [each.fileno() < 0 for each in bench.answerers] == [False, True, False, False]


async def test_what_goes_nowhere_makes_no_flow(make: Callable[..., Bench]) -> None:
    bench = make()
    target, bench.target = bench.target, None
    client = bench.client()
    await bench.loop.sock_sendto(client, b"lost", bench.listener.getsockname())
    await until(lambda: bench.reached == 1)
    assert len(bench.flows) == 0
    bench.target = target
    assert await bench.ask(bench.client(), b"ab") == b"ba"
    assert len(bench.flows) == 1


async def test_a_target_that_refuses_costs_no_more_than_the_datagrams(make: Callable[..., Bench]) -> None:
    bench = make()
    with bench.root.run(bench.bound) as gone:
        nobody = gone.getsockname()
    target, bench.target = bench.target, nobody
    client = bench.client()
    for _ in range(3):
        await bench.loop.sock_sendto(client, b"lost", bench.listener.getsockname())
    await until(lambda: len(bench.flows) == 1)
    bench.target = target
    assert await bench.ask(bench.client(), b"ab") == b"ba"


async def test_closing_closes_every_socket(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.ask(bench.client(), b"x")
    bench.flows.close()
    assert len(bench.flows) == 0
    assert bench.listener.fileno() == -1
    assert [each.fileno() for each in bench.answerers] == [-1]
    bench.flows.close()
