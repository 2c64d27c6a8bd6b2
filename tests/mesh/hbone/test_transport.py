"""Tunnels over sockets: both ends of HBONE together, and alone with peers that misbehave."""

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
from h2.connection import H2Connection

from netwarren.errors import MeshError
from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.failure import ConnectionLost, ConnectRefused, Http2Failure, StreamReset, TlsFailure
from netwarren.mesh.hbone.frames import PREFACE, frame_header
from netwarren.mesh.hbone.session import handshake
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest, ServerTunnel, Tunnel
from tests.mesh.hbone.certificates import Authority, identities
from tests.mesh.hbone.ends import echo, joined, read_all


async def test_a_tunnel_carries_bytes_both_ways_and_its_ends(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with joined(client_context, server_context) as ends:
        opened = await ends.client.open_stream("10.0.0.1:80", (("baggage", ""),))
        assert opened.status == 200
        assert opened.headers == (("baggage", "service.name=echo"),)
        await opened.stream.write(b"hello")
        await opened.stream.write_eof()
        assert await read_all(opened.stream) == b"hello"
        await opened.stream.close()
        assert ends.client.stream_count == 0


async def test_more_than_all_windows_arrives_in_order(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    data = os.urandom(1 << 20) * 24
    async with joined(client_context, server_context) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream

        async def write() -> None:
            await stream.write(data)
            await stream.write_eof()

        writing = asyncio.ensure_future(write())
        assert await read_all(stream) == data
        await writing


async def test_many_streams_share_a_connection_while_one_is_not_read(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    settings = Http2Settings(stream_window=65536, connection_window=4 * 65536)
    never = asyncio.Event()

    async def on_connect(request: ConnectRequest) -> None:
        if request.authority == "stalled:1":
            request.accept()
            await never.wait()
        await echo(request)

    async with joined(client_context, server_context, on_connect, settings=settings) as ends:
        stalled = (await ends.client.open_stream("stalled:1")).stream
        writing = asyncio.ensure_future(stalled.write(bytes(1 << 20)))

        async def exchange(number: int) -> bytes:
            stream = (await ends.client.open_stream("10.0.0.1:80")).stream
            await stream.write(bytes([number]) * 50_000)
            await stream.write_eof()
            return await read_all(stream)

        assert await asyncio.gather(*map(exchange, range(20))) == [bytes([n]) * 50_000 for n in range(20)]
        assert not writing.done()
        stalled.abort()
        with pytest.raises(BrokenPipeError):
            await writing


async def test_a_refusal_has_its_status_and_the_connection_goes_on(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def on_connect(request: ConnectRequest) -> None:
        if request.authority.endswith(":81"):
            request.refuse(401)
        else:
            await echo(request)

    async with joined(client_context, server_context, on_connect) as ends:
        with pytest.raises(ConnectRefused, match="http status: 401 Unauthorized") as caught:
            await ends.client.open_stream("10.0.0.1:81")
        assert caught.value.flag == "CONNECT"
        assert (await ends.client.open_stream("10.0.0.1:80")).status == 200


async def test_a_handler_that_fails_before_it_answered_is_a_503(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def on_connect(request: ConnectRequest) -> None:
        return

    async with joined(client_context, server_context, on_connect) as ends:
        with pytest.raises(ConnectRefused, match="503"):
            await ends.client.open_stream("10.0.0.1:80")


async def test_the_answer_comes_only_when_the_handler_gives_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    asked, connected = asyncio.Event(), asyncio.Event()

    async def on_connect(request: ConnectRequest) -> None:
        asked.set()
        await connected.wait()
        await echo(request)

    async with joined(client_context, server_context, on_connect) as ends:
        opening = asyncio.ensure_future(ends.client.open_stream("10.0.0.1:80"))
        await asked.wait()
        assert not opening.done()
        connected.set()
        assert (await opening).status == 200


async def test_giving_up_on_an_answer_ends_the_handler(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def on_connect(request: ConnectRequest) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with joined(client_context, server_context, on_connect) as ends:
        opening = asyncio.ensure_future(ends.client.open_stream("10.0.0.1:80"))
        await asked.wait()
        opening.cancel()
        await cancelled.wait()
        assert ends.client.stream_count == 0


@pytest.mark.parametrize("code", [frames.NO_ERROR, frames.CANCEL])
async def test_a_reset_that_is_no_error_reads_as_an_end_after_the_bytes_before_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, code: int
) -> None:
    async def on_connect(request: ConnectRequest) -> None:
        stream = request.accept()
        await stream.write(b"before")
        request._session.connection.reset(stream.stream_id, code)

    async with joined(client_context, server_context, on_connect) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        assert await read_all(stream) == b"before"
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")


async def test_another_reset_is_an_error(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def on_connect(request: ConnectRequest) -> None:
        stream = request.accept()
        request._session.connection.reset(stream.stream_id, frames.INTERNAL_ERROR)

    async with joined(client_context, server_context, on_connect) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        with pytest.raises(StreamReset, match="INTERNAL_ERROR"):
            await read_all(stream)


async def test_draining_lets_streams_finish_and_then_ends(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with joined(client_context, server_context) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        draining = asyncio.ensure_future(ends.server.drain(60))
        while ends.client.usable:
            await asyncio.sleep(0.001)
        await stream.write(b"still")
        await stream.write_eof()
        assert await read_all(stream) == b"still"
        await stream.close()
        await draining
        await ends.client.wait_closed()


async def test_draining_an_idle_connection_ends_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with joined(client_context, server_context) as ends:
        await ends.server.drain(60)
        await ends.client.wait_closed()
        with pytest.raises(ConnectionLost):
            await ends.client.open_stream("10.0.0.1:80")


async def test_what_does_not_finish_by_the_deadline_is_cut(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with joined(client_context, server_context) as ends:
        stream = (await ends.client.open_stream("10.0.0.1:80")).stream
        await ends.server.drain(0.05)
        with pytest.raises(ConnectionResetError):
            await read_all(stream)


async def test_pings_go_on_in_their_interval_however_long_an_answer_may_take(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinged, ping = asyncio.Semaphore(0), H2Connection.ping

    def count(connection: H2Connection, data: bytes) -> None:
        if connection.config.client_side:
            pinged.release()
        ping(connection, data)

    monkeypatch.setattr(H2Connection, "ping", count)
    settings = Http2Settings(ping_interval=0.02, ping_timeout=600.0)
    async with joined(client_context, server_context, settings=settings), asyncio.timeout(60):
        for _ in range(3):
            await pinged.acquire()


async def test_a_peer_that_vanishes_takes_streams_and_handlers_with_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    seen: list[BaseException] = []

    async def on_connect(request: ConnectRequest) -> None:
        stream = request.accept()
        try:
            await stream.read(1)
        except ConnectionResetError as error:
            seen.append(error)

    async with joined(client_context, server_context, on_connect) as ends:
        await ends.client.open_stream("10.0.0.1:80")
        opening = asyncio.ensure_future(ends.client.open_stream("10.0.0.1:80"))
        await opening
        ends.client_socket.shutdown(socket.SHUT_RDWR)
        await ends.server.wait_closed()
        assert len(seen) == 2


async def test_a_ping_without_answer_ends_the_tunnel(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    one, other = socket.socketpair()
    (tls, _), client = await asyncio.gather(
        handshake(SocketStream(other), server_context, server_side=True, verify=None),
        Tunnel.connect(
            SocketStream(one), client_context, settings=Http2Settings(ping_interval=0.02, ping_timeout=0.05)
        ),
    )
    assert tls.established
    await client.wait_closed()  # the peer reads nothing and answers nothing
    with pytest.raises(ConnectionLost):
        await client.open_stream("10.0.0.1:80")
    other.close()


async def test_verify_on_the_server_sees_the_client_and_may_refuse(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    def verify(tls: ssl.SSLObject) -> None:
        raise MeshError(f"not {identities(tls)[0]}")

    one, other = socket.socketpair()
    connecting = asyncio.ensure_future(Tunnel.connect(SocketStream(one), client_context))
    with pytest.raises(MeshError, match="sa/client"):
        await ServerTunnel.accept(SocketStream(other), server_context, on_connect=echo, verify=verify)
    assert other.fileno() == -1
    tunnel = await connecting
    with pytest.raises((Http2Failure, OSError)):
        await tunnel.open_stream("10.0.0.1:80")
    await tunnel.wait_closed()
    assert one.fileno() == -1


async def test_a_certificate_that_the_server_refuses_is_a_tls_failure_of_the_stream(
    authority: Authority, server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path, "other").context("client", server=False, trusts=authority)
    one, other = socket.socketpair()
    accepting = asyncio.ensure_future(
        ServerTunnel.accept(SocketStream(other), server_context, on_connect=echo)
    )
    tunnel = await Tunnel.connect(SocketStream(one), foreign)
    with pytest.raises(TlsFailure):
        await accepting
    with pytest.raises(TlsFailure, match="alert"):
        await tunnel.open_stream("10.0.0.1:80")
    await tunnel.wait_closed()


async def test_a_cancelled_handshake_leaves_no_socket(client_context: ssl.SSLContext) -> None:
    one, other = socket.socketpair()
    connecting = asyncio.ensure_future(Tunnel.connect(SocketStream(one), client_context))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert one.fileno() == -1
    other.close()


async def test_a_client_that_speaks_no_http2_gets_a_goaway_and_an_end(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    one, other = socket.socketpair()
    lower = SocketStream(one)
    server, (tls, _) = await asyncio.gather(
        ServerTunnel.accept(SocketStream(other), server_context, on_connect=echo),
        handshake(lower, client_context, server_side=False, verify=None),
    )
    await lower.write(tls.send(PREFACE + frame_header(4, frames.DATA, 0, 77) + b"what"))
    await server.wait_closed()
    assert isinstance(server.failure, Http2Failure)
    plaintext = b""
    while data := await lower.read(65536):
        plaintext += tls.receive(data)
    assert frame_header(8, frames.GOAWAY, 0, 0)[3:4] in plaintext
    assert tls.ended
    await lower.close()


async def test_a_stream_within_a_reset_connection_may_be_opened_on_another(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with joined(client_context, server_context) as ends:
        ends.server.abort(frames.ENHANCE_YOUR_CALM)
        await ends.client.wait_closed()
        assert not ends.client.usable
