"""Connections, servers, protocols and names of tasks that live in pods."""

import asyncio
import socket

import pytest

from netwarren import Cluster, Pod
from tests.runtime.conftest import where


async def test_a_server_and_its_handlers_live_in_the_pod(pod: Pod, other: Pod) -> None:
    handled = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(where())
        writer.write(await reader.readline())
        await writer.drain()
        handled.append(where())
        writer.close()

    async with pod:
        server = await asyncio.start_server(handle, port=8080)
    async with other:
        reader, writer = await asyncio.open_connection(pod.ip, 8080)
        assert writer.get_extra_info("sockname")[0] == other.ip
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    assert handled == [pod.inode, pod.inode]


async def test_a_handler_may_connect_onwards_from_its_pod(cluster: Cluster, pod: Pod, other: Pod) -> None:
    client = cluster.add_pod("client")
    peers = []

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(other.ip, 80)
        writer.write(await onward.read() + b"end")
        back.close()
        writer.close()

    async with other:
        second = await asyncio.start_server(backend, port=80)
    async with pod:
        first = await asyncio.start_server(proxy, port=80)
    async with client:
        reader, writer = await asyncio.open_connection(pod.ip, 80)
        assert await reader.read() == b"end"
        writer.close()
        await writer.wait_closed()
    for server in (first, second):
        server.close()
        await server.wait_closed()
    assert peers == [pod.ip]


async def test_protocol_callbacks_run_in_the_pod(pod: Pod) -> None:
    seen: dict[str, int] = {}
    lost = asyncio.get_running_loop().create_future()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            seen["made"] = where()
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            seen["data"] = where()
            self.transport.write(data)

        def eof_received(self) -> None:
            seen["eof"] = where()

        def connection_lost(self, error: Exception | None) -> None:
            seen["lost"] = where()
            lost.set_result(None)

    loop = asyncio.get_running_loop()
    async with pod:
        server = await loop.create_server(Echo, port=80)
        reader, writer = await asyncio.open_connection("127.0.0.1", 80)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    writer.close()
    await writer.wait_closed()
    await lost
    server.close()
    await server.wait_closed()
    assert seen == dict.fromkeys(("made", "data", "eof", "lost"), pod.inode)


async def test_datagram_endpoints(pod: Pod, other: Pod) -> None:
    loop = asyncio.get_running_loop()
    got: asyncio.Future[tuple[bytes, str, int]] = loop.create_future()

    class Take(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            got.set_result((data, addr[0], where()))

    async with pod:
        taking, _ = await loop.create_datagram_endpoint(Take, local_addr=("0.0.0.0", 53))
    async with other:
        giving, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(pod.ip, 53))
        giving.sendto(b"ask")
    async with asyncio.timeout(20):
        assert await got == (b"ask", other.ip, pod.inode)
    taking.close()
    giving.close()


async def test_readers_and_writers_of_the_loop(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    seen: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    def on_read() -> None:
        loop.remove_reader(near)
        seen.put_nowait(("read", where()))

    def on_write() -> None:
        loop.remove_writer(near)
        seen.put_nowait(("write", where()))

    async with pod:
        loop.add_reader(near, on_read)
        loop.add_writer(near, on_write)
    far.send(b"x")
    assert {await seen.get(), await seen.get()} == {("read", pod.inode), ("write", pod.inode)}
    near.close()
    far.close()


async def test_the_loops_socket_methods(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    async with pod:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            server.setblocking(False)
            client.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(server))
            await loop.sock_connect(client, server.getsockname())
            accepted, _ = await accepting
            with accepted:
                await loop.sock_sendall(client, b"x")
                assert await loop.sock_recv(accepted, 1) == b"x"
        assert where() == pod.inode


async def test_getaddrinfo_is_asked_in_the_pod(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = socket.getaddrinfo

    def getaddrinfo(*arguments: object, **options: object) -> object:
        asked.append(where())
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with pod:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    assert asked == [pod.inode]


async def test_a_tls_upgrade_keeps_the_pod(pod: Pod) -> None:
    """Only that wrapping works at all: the handshake fails for want of a certificate, in the pod."""
    import ssl

    async with pod:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), port=443)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", 443, ssl=ssl.create_default_context())
        assert where() == pod.inode
        server.close()
        await server.wait_closed()
