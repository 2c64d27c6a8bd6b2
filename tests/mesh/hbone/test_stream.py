"""Byte streams over sockets."""

import asyncio
import socket
import struct

import pytest

from netwarren.mesh.hbone.stream import SocketStream

Pair = tuple[socket.socket, socket.socket]


async def read_all(stream: SocketStream) -> bytes:
    got = b""
    while data := await stream.read(65536):
        got += data
    return got


async def test_bytes_and_half_closes_go_both_ways(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    await one.write(b"ping")
    await one.write_eof()
    assert await read_all(other) == b"ping"
    await other.write(b"pong")
    await other.write_eof()
    assert await read_all(one) == b"pong"


async def test_a_read_waits_for_bytes(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    reading = asyncio.ensure_future(other.read(10))
    await asyncio.sleep(0)
    assert not reading.done()
    await one.write(b"late")
    assert await reading == b"late"


async def test_a_write_waits_for_a_reader_that_is_slow(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    data = bytes(range(256)) * 65536  # more than both buffers

    async def write() -> None:
        await one.write(data)
        await one.write_eof()

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0)
    assert not writing.done()
    assert await read_all(other) == data
    await writing


async def test_nothing_is_read_before_it_is_asked_for_so_a_dropped_stream_resets(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    await one.write(b"unread")
    await asyncio.sleep(0)
    await other.close()
    with pytest.raises(ConnectionResetError):
        await one.read(1)


async def test_an_abort_resets(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    other.abort()
    with pytest.raises(ConnectionResetError):
        await one.read(1)


async def test_closing_wakes_who_waits_and_may_be_repeated(tcp_pair: Pair) -> None:
    one = SocketStream(tcp_pair[0])
    reading = asyncio.ensure_future(one.read(1))
    await asyncio.sleep(0)
    await one.close()
    await one.close()
    with pytest.raises(ConnectionResetError):
        await reading


async def test_a_cancelled_read_leaves_the_bytes(tcp_pair: Pair) -> None:
    one, other = map(SocketStream, tcp_pair)
    reading = asyncio.ensure_future(other.read(10))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await one.write(b"kept")
    assert await other.read(10) == b"kept"


async def test_a_reset_by_the_peer_is_a_lost_connection(tcp_pair: Pair) -> None:
    stream = SocketStream(tcp_pair[0])
    reading = asyncio.ensure_future(stream.read(1))
    await asyncio.sleep(0)
    tcp_pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp_pair[1].close()
    with pytest.raises(ConnectionResetError):
        await reading
