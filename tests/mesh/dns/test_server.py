"""The DNS proxy's sockets: clients of every kind, and what is left when it is closed."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator

import dns.message
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netwarren.mesh.dns import server as server_module
from netwarren.mesh.dns.resolver import Transport
from netwarren.mesh.dns.server import DnsServer
from netwarren.mesh.model import SocketAddress
from tests.mesh.dns.edge import bound, dns_proxy, name_server

QUERY = dns.message.make_query("productpage.", "A", id=4711).to_wire()


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


@contextlib.asynccontextmanager
async def connection(
    address: SocketAddress,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(str(address.address), address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def message_from(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(10):
        length = int.from_bytes(await reader.readexactly(2), "big")
        return dns.message.from_wire(await reader.readexactly(length))


async def echo(data: bytes, _transport: Transport) -> bytes | None:
    return data


# --- TCP ---


async def test_one_connection_carries_many_questions() -> None:
    async with dns_proxy() as proxy, connection(proxy.address) as (reader, writer):
        for number in range(100):
            writer.write(framed(dns.message.make_query("productpage.", "A", id=number).to_wire()))
        got = [await message_from(reader) for _ in range(100)]
        assert {response.id for response in got} == set(range(100))
        assert all(response.answer for response in got)


async def test_a_slow_answer_does_not_hold_up_another() -> None:
    go_on = asyncio.Event()

    async def reply(query: dns.message.Message, _transport: Transport) -> bytes:
        await go_on.wait()
        return dns.message.make_response(query).to_wire()

    async with (
        name_server(reply) as (upstream, _questions),
        dns_proxy([upstream]) as proxy,
        connection(proxy.address) as (reader, writer),
    ):
        writer.write(framed(dns.message.make_query("elsewhere.example.", "A", id=1).to_wire()))
        writer.write(framed(dns.message.make_query("productpage.", "A", id=2).to_wire()))
        assert (await message_from(reader)).id == 2
        go_on.set()
        assert (await message_from(reader)).id == 1


async def test_a_client_that_says_no_more_still_gets_its_answer_and_then_the_end() -> None:
    async with dns_proxy() as proxy, connection(proxy.address) as (reader, writer):
        writer.write(framed(QUERY))
        writer.write_eof()
        assert (await message_from(reader)).id == 4711
        assert await reader.read() == b""


async def test_a_question_may_come_byte_by_byte() -> None:
    async with dns_proxy() as proxy, connection(proxy.address) as (reader, writer):
        for byte in framed(QUERY):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await message_from(reader)).answer


@pytest.mark.parametrize("said", [b"", b"\x00", b"\x00\x20only this"])
async def test_a_client_that_goes_silent_is_let_go(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE", 0.05)
    async with dns_proxy() as proxy, connection(proxy.address) as (reader, writer):
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE", 0.2)
    udp, tcp, address = bound()

    async def long(_data: bytes, _transport: Transport) -> bytes:
        return bytes(65535)

    async with DnsServer(long, datagrams=[udp], streams=[tcp]):
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, (str(address.address), address.port))
            async with asyncio.timeout(20):
                with pytest.raises(OSError):  # it is reset, in the middle of what was not read
                    while True:
                        await loop.sock_sendall(client, framed(QUERY) * 1000)


async def test_the_oldest_connection_goes_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 2)
    async with dns_proxy() as proxy, contextlib.AsyncExitStack() as stack:
        connections = []
        for _ in range(3):
            connections.append(await stack.enter_async_context(connection(proxy.address)))
            connections[-1][1].write(framed(QUERY))
            await message_from(connections[-1][0])
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(connections[0][0].read(), 10) == b""
        for reader, writer in connections[1:]:
            writer.write(framed(QUERY))
            assert (await message_from(reader)).id == 4711


async def test_a_client_that_resets_does_no_harm() -> None:
    async with dns_proxy() as proxy:
        for _ in range(20):
            async with connection(proxy.address) as (_reader, writer):
                writer.write(framed(QUERY) * 5)
                await writer.drain()
                writer.transport.abort()
        assert (await proxy.ask("productpage.", "A", "tcp")).answer


# --- UDP ---


async def test_more_questions_than_are_kept_are_lost_and_the_rest_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "MOST_DATAGRAMS", 3)
    udp, tcp, address = bound()
    got, enough, go_on = [], asyncio.Event(), asyncio.Event()

    async def slow(data: bytes, transport: Transport) -> bytes:
        if transport == "udp":
            got.append(data)
            if len(got) == 3:
                enough.set()
            await go_on.wait()
        return data

    async with DnsServer(slow, datagrams=[udp], streams=[tcp]):
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect((str(address.address), address.port))
            for number in range(6):
                client.send(bytes([number]))
            await enough.wait()
            client.send(b"last")
            async with connection(address) as (reader, writer):  # is answered meanwhile
                writer.write(framed(b"tcp"))
                assert await asyncio.wait_for(reader.readexactly(5), 10) == framed(b"tcp")
            go_on.set()
            answers = {await asyncio.wait_for(loop.sock_recv(client, 100), 10) for _ in range(3)}
            assert answers == {bytes([number]) for number in range(3)} == set(got)


# --- anything at all ---


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_from_a_client_are_survived(datagrams: list[bytes]) -> None:
    async def run() -> None:
        async with dns_proxy() as proxy:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for data in datagrams:
                    client.sendto(data, (str(proxy.address.address), proxy.address.port))
            async with connection(proxy.address) as (_reader, writer):
                writer.write(b"".join(datagrams))
                for data in datagrams:
                    writer.write(framed(data))
                with contextlib.suppress(OSError):
                    await writer.drain()
                for transport in ("udp", "tcp"):
                    assert (await proxy.ask("productpage.", "A", transport)).answer

    asyncio.run(run())


# --- the end ---


async def test_closing_leaves_nothing_behind() -> None:
    async def reply(_query: dns.message.Message, _transport: Transport) -> None:
        asked.set()
        await asyncio.Event().wait()

    gc.collect()
    before = asyncio.all_tasks()
    asked = asyncio.Event()
    async with name_server(reply) as (upstream, _questions), dns_proxy([upstream]) as proxy:
        reader, writer = await asyncio.open_connection(str(proxy.address.address), proxy.address.port)
        writer.write(framed(dns.message.make_query("elsewhere.example.", "A").to_wire()))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.sendto(QUERY, (str(proxy.address.address), proxy.address.port))
        await asked.wait()
        await proxy.server.close()
        assert not proxy.sockets.open
        assert proxy.sockets.made
        await proxy.server.close()  # again is fine
        client.close()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind((str(proxy.address.address), proxy.address.port))
    assert asyncio.all_tasks() == before


async def test_a_server_that_cannot_start_closes_what_it_was_given() -> None:
    udp, tcp, _address = bound()
    wrong = socket.socket()
    wrong.close()
    with pytest.raises(OSError):
        await DnsServer(echo, datagrams=[udp], streams=[tcp, wrong]).start()
    assert (udp.fileno(), tcp.fileno()) == (-1, -1)
