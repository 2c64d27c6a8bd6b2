"""A Python asyncio service and its clients, each on a machine of its own, on one loop."""

import asyncio
import json

from netwarren import Cluster


class Counter:
    """The service under test: counts the requests of each address that asks."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")[0]
        while await reader.readline():
            self.seen[address] = self.seen.get(address, 0) + 1
            writer.write(json.dumps({"you": address, "count": self.seen[address]}).encode() + b"\n")
            await writer.drain()
        writer.close()


async def ask(service: str, times: int) -> dict[str, object]:
    """The client under test."""
    reader, writer = await asyncio.open_connection(service, 7000)
    for _ in range(times):
        writer.write(b"hello\n")
        answer: dict[str, object] = json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return answer


async def test_each_client_is_counted_by_its_own_address(cluster: Cluster) -> None:
    counter = Counter()
    server = cluster.add_pod("counter", node="node-a")
    near, far = cluster.add_pod("near", node="node-a"), cluster.add_pod("far", node="node-b")
    async with server:
        listener = await asyncio.start_server(counter.serve, port=7000)
    async with near:
        assert await ask("counter", times=3) == {"you": near.ip, "count": 3}
    async with far:
        assert await ask("counter", times=1) == {"you": far.ip, "count": 1}
    assert counter.seen == {near.ip: 3, far.ip: 1}
    listener.close()


async def test_a_hundred_clients_ask_at_once(cluster: Cluster) -> None:
    counter = Counter()
    server = cluster.add_pod("counter")
    async with server:
        listener = await asyncio.start_server(counter.serve, port=7000)

    async def client(number: int) -> dict[str, object]:
        async with cluster.add_pod(f"client-{number}", node="node-b"):
            return await ask("counter", times=2)

    answers = await asyncio.gather(*(client(number) for number in range(100)))
    assert [answer["count"] for answer in answers] == [2] * 100
    assert len(counter.seen) == 100
    listener.close()
