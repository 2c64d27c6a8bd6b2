"""Two byte streams joined."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator

import pytest

from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.copy import Copied, copy_both_ways
from netwarren.mesh.hbone.failure import StreamReset
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest
from tests.mesh.hbone.ends import joined, read_all

Pair = tuple[socket.socket, socket.socket]


def connected() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


@pytest.fixture
def pairs() -> Iterator[tuple[Pair, Pair]]:
    """(client, our end to it), (our end to the server, server)."""
    one, other = connected(), connected()
    yield one, other
    for sock in (*one, *other):
        sock.close()


async def test_each_direction_ends_alone_and_bytes_are_counted(pairs: tuple[Pair, Pair]) -> None:
    (client, ours), (onward, server) = pairs
    live: list[tuple[str, int]] = []
    copying = asyncio.ensure_future(
        copy_both_ways(
            SocketStream(ours),
            SocketStream(onward),
            on_sent=lambda count: live.append(("sent", count)),
            on_received=lambda count: live.append(("received", count)),
        )
    )
    one, other = SocketStream(client), SocketStream(server)
    await one.write(b"ping")
    await one.write_eof()
    assert await read_all(other) == b"ping"
    assert live == [("sent", 4)]
    assert not copying.done()
    await other.write(b"pong!")
    await other.write_eof()
    assert await read_all(one) == b"pong!"
    assert await copying == Copied(4, 5)
    assert live == [("sent", 4), ("received", 5)]
    assert ours.fileno() == onward.fileno() == -1


async def test_much_arrives_whole_while_the_buffer_grows(pairs: tuple[Pair, Pair]) -> None:
    (client, ours), (onward, server) = pairs
    data = os.urandom(1 << 20) * 12
    sizes: set[int] = set()
    copying = asyncio.ensure_future(
        copy_both_ways(SocketStream(ours), SocketStream(onward), on_sent=sizes.add)
    )
    one, other = SocketStream(client), SocketStream(server)

    async def write() -> None:
        await one.write(data)
        await one.write_eof()

    _, got = await asyncio.gather(write(), read_all(other))
    assert got == data
    await other.close()
    assert (await copying).sent == len(data)
    assert min(sizes) <= 1024
    assert 16320 < max(sizes) <= 262080


async def test_a_client_that_resets_ends_the_copy_without_error(pairs: tuple[Pair, Pair]) -> None:
    (client, ours), (onward, server) = pairs
    copying = asyncio.ensure_future(copy_both_ways(SocketStream(ours), SocketStream(onward)))
    await SocketStream(client).write(b"x")
    other = SocketStream(server)
    assert await other.read(1) == b"x"
    SocketStream(client).abort()
    assert await other.read(1) == b""
    assert await copying == Copied(1, 0)


async def test_a_cancelled_copy_resets_both(pairs: tuple[Pair, Pair]) -> None:
    (client, ours), (onward, server) = pairs
    copying = asyncio.ensure_future(copy_both_ways(SocketStream(ours), SocketStream(onward)))
    await asyncio.sleep(0)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    for sock in (client, server):
        with pytest.raises(ConnectionResetError):
            await SocketStream(sock).read(1)


async def test_a_tunnel_joins_two_sockets(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, pairs: tuple[Pair, Pair]
) -> None:
    (client, ours), (onward, server) = pairs
    counts: list[Copied] = []

    async def on_connect(request: ConnectRequest) -> None:
        counts.append(await copy_both_ways(request.accept(), SocketStream(onward)))

    data = os.urandom(1 << 20) * 12
    async with joined(client_context, server_context, on_connect) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        copying = asyncio.ensure_future(copy_both_ways(SocketStream(ours), stream))
        one, other = SocketStream(client), SocketStream(server)

        async def ask() -> bytes:
            await one.write(data)
            await one.write_eof()
            return await read_all(one)

        async def answer() -> None:
            got = await read_all(other)
            await other.write(got[::-1])
            await other.write_eof()

        answered, _ = await asyncio.gather(ask(), answer())
        assert answered == data[::-1]
        assert await copying == Copied(len(data), len(data))
        while not counts:
            await asyncio.sleep(0.001)
        assert counts == [Copied(len(data), len(data))]


async def test_a_stream_reset_with_an_error_is_an_error_and_resets_the_client(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, pairs: tuple[Pair, Pair]
) -> None:
    (client, ours), _ = pairs

    async def on_connect(request: ConnectRequest) -> None:
        stream = request.accept()
        await stream.read(1)
        request._session.connection.reset(stream.stream_id, frames.INTERNAL_ERROR)

    async with joined(client_context, server_context, on_connect) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        copying = asyncio.ensure_future(copy_both_ways(SocketStream(ours), stream))
        one = SocketStream(client)
        await one.write(b"x")
        with pytest.raises(StreamReset):
            await copying
        with pytest.raises(ConnectionResetError):
            await one.read(1)


async def test_a_tunnel_whose_connection_is_lost_ends_the_copy_without_error(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, pairs: tuple[Pair, Pair]
) -> None:
    (client, ours), _ = pairs

    async def on_connect(request: ConnectRequest) -> None:
        await read_all(request.accept())

    async with joined(client_context, server_context, on_connect) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        copying = asyncio.ensure_future(copy_both_ways(SocketStream(ours), stream))
        await SocketStream(client).write(b"x")
        await ends.server.close()
        assert (await copying).received == 0
