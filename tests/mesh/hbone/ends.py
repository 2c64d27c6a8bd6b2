"""Both ends of an HBONE connection over a pair of sockets, for tests."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone.stream import ByteStream, SocketStream
from netwarren.mesh.hbone.tls import Verify
from netwarren.mesh.hbone.transport import ConnectRequest, OnConnect, ServerTunnel, Tunnel


async def echo(request: ConnectRequest) -> None:
    """Accepts and sends back what it gets."""
    stream = request.accept((("baggage", "service.name=echo"),))
    while data := await stream.read(65536):
        await stream.write(data)
    await stream.write_eof()


async def read_all(stream: ByteStream) -> bytes:
    parts = []
    while data := await stream.read(65536):
        parts.append(data)
    return b"".join(parts)


@dataclass
class Ends:
    client: Tunnel
    server: ServerTunnel
    client_socket: socket.socket
    server_socket: socket.socket


@contextlib.asynccontextmanager
async def joined(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    on_connect: OnConnect = echo,
    *,
    settings: Http2Settings = Http2Settings(),  # noqa: B008
    verify: Verify | None = None,
) -> AsyncIterator[Ends]:
    """A connection whose tasks and sockets must be gone afterwards."""
    tasks = asyncio.all_tasks()
    one, other = socket.socketpair()
    client, server = await asyncio.gather(
        Tunnel.connect(SocketStream(one), client_context, settings=settings),
        ServerTunnel.accept(
            SocketStream(other), server_context, on_connect=on_connect, settings=settings, verify=verify
        ),
    )
    try:
        yield Ends(client, server, one, other)
    finally:
        await client.close()
        await server.close()
    assert one.fileno() == other.fileno() == -1
    assert asyncio.all_tasks() == tasks
