"""Tunnel connections that are used again."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from netwarren.mesh.hbone.double import open_within
from netwarren.mesh.hbone.failure import ConnectionLost, ConnectRefused, Http2Failure
from netwarren.mesh.hbone.pool import Pool, PoolKey
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest, ServerTunnel, Tunnel, serve
from netwarren.mesh.model import Identity, SocketAddress
from tests.mesh.hbone.certificates import identities
from tests.mesh.hbone.ends import echo, joined, read_all

KEY = PoolKey(
    Identity("cluster.local", "default", "client"),
    frozenset({Identity("cluster.local", "default", "server")}),
    SocketAddress(ip_address("10.0.1.2"), 15008),
    ip_address("10.0.0.2"),
)


class Servers:
    """Makes connections, each to a server of its own; ``gate`` holds handshakes back.

    ``losses`` is how many requests end their connection instead of being answered.
    """

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        self._contexts = client, server
        self.made: list[tuple[PoolKey, ServerTunnel]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.losses = 0

    async def connect(self, key: PoolKey) -> Tunnel:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        one, other = socket.socketpair()
        client, server = await asyncio.gather(
            Tunnel.connect(SocketStream(one), self._contexts[0]),
            ServerTunnel.accept(SocketStream(other), self._contexts[1], on_connect=self.answer),
        )
        self.made.append((key, server))
        return client

    async def answer(self, request: ConnectRequest) -> None:
        if self.losses:
            self.losses -= 1
            self.made[-1][1].abort()
        elif request.authority == "refused:1":
            request.refuse(401)
        else:
            await echo(request)


@pytest.fixture
async def servers(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> AsyncIterator[Servers]:
    servers = Servers(client_context, server_context)
    yield servers
    for _, server in servers.made:
        await server.close()


async def test_streams_of_one_key_share_a_connection(servers: Servers) -> None:
    pool = Pool(servers.connect)
    for _ in range(3):
        opened, _ = await pool.open_stream(KEY, "10.0.0.1:80")
        await opened.stream.close()
    assert len(servers.made) == len(pool) == 1
    await pool.close()
    assert len(pool) == 0


async def test_those_who_come_at_once_wait_for_one_handshake(servers: Servers) -> None:
    pool = Pool(servers.connect)
    servers.gate.clear()
    opening = [asyncio.ensure_future(pool.open_stream(KEY, "10.0.0.1:80")) for _ in range(20)]
    await asyncio.sleep(0)
    servers.gate.set()
    await asyncio.gather(*opening)
    assert len(servers.made) == 1
    await pool.close()


async def test_a_handshake_that_fails_fails_for_one_and_the_next_tries_again(servers: Servers) -> None:
    pool = Pool(servers.connect)
    servers.gate.clear()
    servers.failures.append(OSError("no route"))
    opening = [asyncio.ensure_future(pool.open_stream(KEY, "10.0.0.1:80")) for _ in range(3)]
    await asyncio.sleep(0)
    servers.gate.set()
    outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, tuple, tuple]
    assert len(servers.made) == 1
    await pool.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, source=Identity("cluster.local", "default", "other")),
        replace(KEY, destinations=frozenset({Identity("cluster.local", "default", "other")})),
        replace(KEY, destination=SocketAddress(ip_address("10.0.1.2"), 15009)),
        replace(KEY, source_address=ip_address("10.0.0.3")),
    ],
    ids=["source", "destinations", "destination", "source address"],
)
async def test_a_key_that_differs_in_anything_has_a_connection_of_its_own(
    servers: Servers, other: PoolKey
) -> None:
    pool = Pool(servers.connect)
    await pool.open_stream(KEY, "10.0.0.1:80")
    await pool.open_stream(other, "10.0.0.1:80")
    assert [key for key, _ in servers.made] == [KEY, other]
    await pool.close()


async def test_a_connection_that_came_to_its_most_streams_is_not_used_again(servers: Servers) -> None:
    pool = Pool(servers.connect, most_streams=2)
    streams = [(await pool.open_stream(KEY, "10.0.0.1:80"))[0].stream for _ in range(2)]
    assert len(servers.made) == 1
    await streams.pop().close()
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 2
    await streams[0].write(b"the first goes on")
    await streams[0].write_eof()
    assert await read_all(streams[0]) == b"the first goes on"
    await streams[0].close()
    await servers.made[0][1].wait_closed()
    assert len(pool) == 1
    await pool.close()


async def test_a_connection_that_says_goaway_is_replaced(servers: Servers) -> None:
    pool = Pool(servers.connect)
    opened, tunnel = await pool.open_stream(KEY, "10.0.0.1:80")
    draining = asyncio.ensure_future(servers.made[0][1].drain(60))
    while tunnel.usable:
        await asyncio.sleep(0.001)
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 2
    await opened.stream.write(b"still")
    await opened.stream.write_eof()
    assert await read_all(opened.stream) == b"still"
    await opened.stream.close()
    await draining
    await pool.close()


async def test_a_connection_that_died_is_replaced(servers: Servers) -> None:
    pool = Pool(servers.connect)
    _, tunnel = await pool.open_stream(KEY, "10.0.0.1:80")
    await servers.made[0][1].close()
    await tunnel.wait_closed()
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 2
    await pool.close()


async def test_a_connection_lost_to_the_request_that_it_was_made_for_is_not_tried_again(
    servers: Servers,
) -> None:
    pool = Pool(servers.connect)
    servers.losses = 1
    with pytest.raises(ConnectionLost):
        await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 1
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 2
    await pool.close()


async def test_a_connection_that_was_there_and_is_lost_to_a_request_is_replaced_once(
    servers: Servers,
) -> None:
    pool = Pool(servers.connect)
    await pool.open_stream(KEY, "10.0.0.1:80")
    servers.losses = 1
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 2
    servers.losses = 3
    with pytest.raises(ConnectionLost):
        await pool.open_stream(KEY, "10.0.0.1:80")
    assert (len(servers.made), servers.losses) == (3, 1)
    await pool.close()


async def test_a_connection_lost_to_many_is_made_once_for_each_at_most(servers: Servers) -> None:
    pool = Pool(servers.connect)
    servers.losses = 100
    opening = [asyncio.ensure_future(pool.open_stream(KEY, "10.0.0.1:80")) for _ in range(5)]
    outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert all(isinstance(outcome, Http2Failure) for outcome in outcomes)
    assert len(servers.made) <= 5
    await pool.close()


async def test_a_refusal_leaves_the_connection_in_use(servers: Servers) -> None:
    pool = Pool(servers.connect)
    with pytest.raises(ConnectRefused):
        await pool.open_stream(KEY, "refused:1")
    await pool.open_stream(KEY, "10.0.0.1:80")
    assert len(servers.made) == 1
    await pool.close()


async def test_an_idle_connection_ends_with_its_last_stream(servers: Servers) -> None:
    pool = Pool(servers.connect, idle=0.02)
    opened, tunnel = await pool.open_stream(KEY, "10.0.0.1:80")
    while tunnel.usable:
        await asyncio.sleep(0.001)
    await opened.stream.write(b"idle")
    await opened.stream.write_eof()
    assert await read_all(opened.stream) == b"idle"
    assert len(pool) == 1
    await opened.stream.close()
    await tunnel.wait_closed()
    await pool.close()


async def test_closing_the_pool_ends_its_streams_and_refuses_new_ones(servers: Servers) -> None:
    pool = Pool(servers.connect)
    opened, _ = await pool.open_stream(KEY, "10.0.0.1:80")
    await pool.close()
    await pool.close()
    with pytest.raises(ConnectionResetError):
        await opened.stream.read(1)
    with pytest.raises(ConnectionLost):
        await pool.open_stream(KEY, "10.0.0.1:80")


# --- a tunnel within a tunnel -----------------------------------------------------------------------


async def test_a_tunnel_within_a_tunnel_has_its_own_certificates_and_ends_with_its_stream(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    seen: list[list[str]] = []

    async def inner(request: ConnectRequest) -> None:
        seen.append(identities(request.tls))
        await echo(request)

    async def gateway(request: ConnectRequest) -> None:
        await serve(request.accept(), server_context, on_connect=inner)

    async with joined(client_context, server_context, gateway) as ends:
        outer = (await ends.client.open_stream("svc.example:80")).stream
        opened, within = await open_within(
            outer, client_context, "svc.example:80", (("x-forwarded-network", "n"),)
        )
        assert identities(within.tls) == ["spiffe://cluster.local/ns/default/sa/server"]
        assert seen == [["spiffe://cluster.local/ns/default/sa/client"]]
        data = bytes(range(256)) * 20_000
        writing = asyncio.ensure_future(opened.stream.write(data))
        got = b""
        while len(got) < len(data):
            got += await opened.stream.read(65536)
        await writing
        assert got == data
        await opened.stream.write_eof()
        assert await read_all(opened.stream) == b""
        await opened.stream.close()
        while ends.client.stream_count:
            await asyncio.sleep(0.001)


async def test_a_refusal_within_a_tunnel_lets_go_of_the_outer_stream(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def inner(request: ConnectRequest) -> None:
        request.refuse(401)

    async def gateway(request: ConnectRequest) -> None:
        await serve(request.accept(), server_context, on_connect=inner)

    async with joined(client_context, server_context, gateway) as ends:
        outer = (await ends.client.open_stream("svc.example:80")).stream
        with pytest.raises(ConnectRefused, match="401"):
            await open_within(outer, client_context, "svc.example:80")
        assert ends.client.stream_count == 0
