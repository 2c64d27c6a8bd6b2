"""How fast HBONE carries bulk data, next to what it is made of: prints one JSON object, in Gbit/s and ratios.

All on loopback, in two processes of one thread each besides the sender and the receiver, like two node proxies:

* direct: sender to receiver.
* tcp: sender, a relay that copies, receiver.
* tls: sender, asyncio relay to asyncio TLS, asyncio relay from asyncio TLS, receiver.
* hbone: the same with an HBONE tunnel in place of TLS.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.mesh.hbone.certificates import Authority

from netwarren.mesh.hbone.copy import copy_both_ways
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest, Tunnel, serve

CHUNK = 1 << 20


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


async def dial(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def accepting(
    listener: socket.socket, handler: Callable[[socket.socket], Coroutine[Any, Any, None]]
) -> None:
    loop = asyncio.get_running_loop()
    tasks = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(handler(sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def tcp_relay(listener: socket.socket, port: int) -> None:
    async def handle(sock: socket.socket) -> None:
        await copy_both_ways(SocketStream(sock), SocketStream(await dial(port)))

    await accepting(listener, handle)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(256 << 10):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def joined(
    context: ssl.SSLContext | None, port: int
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # server_hostname: asyncio wants one; none is checked.
        name = "peer" if context else None
        onward, back = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name, limit=256 << 10
        )
        one, other = asyncio.create_task(pipe(reader, back)), asyncio.create_task(pipe(onward, writer))
        await asyncio.wait([one, other], return_when=asyncio.FIRST_COMPLETED)
        for task in (one, other):
            task.cancel()
        back.close()
        writer.close()

    return handle


async def tls_front(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    server = await asyncio.start_server(joined(context, port), sock=listener, limit=256 << 10)
    await server.serve_forever()


async def tls_back(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    server = await asyncio.start_server(joined(None, port), sock=listener, ssl=context, limit=256 << 10)
    await server.serve_forever()


async def hbone_front(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    tunnel = await Tunnel.connect(SocketStream(await dial(port)), context)

    async def handle(sock: socket.socket) -> None:
        opened = await tunnel.open_stream("127.0.0.1:80")
        await copy_both_ways(SocketStream(sock), opened.stream)

    await accepting(listener, handle)


async def hbone_back(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    async def on_connect(request: ConnectRequest) -> None:
        upstream = SocketStream(await dial(port))
        await copy_both_ways(request.accept(), upstream)

    async def handle(sock: socket.socket) -> None:
        await serve(SocketStream(sock), context, on_connect=on_connect)

    await accepting(listener, handle)


def run(coroutine_function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(
        target=lambda: asyncio.run(coroutine_function(*arguments)), daemon=True
    )
    process.start()
    return process


def sink(listener: socket.socket) -> None:
    """Reads as many bytes as the first eight say, then says so by a byte."""
    # Not till the end of the stream: asyncio's TLS cannot half-close.
    listener.setblocking(True)
    buffer = bytearray(CHUNK)
    while True:
        sock, _ = listener.accept()
        left = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
        while left and (count := sock.recv_into(buffer)):
            left -= count
        sock.sendall(b".")
        sock.close()


def run_sink(listener: socket.socket) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=sink, args=(listener,), daemon=True)
    process.start()
    return process


def measure(port: int, size: int) -> float:
    """Gbit/s from the first byte until the receiver has read the last."""
    data = bytes(CHUNK)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        start = time.perf_counter()
        sock.sendall(size.to_bytes(8, "big"))
        for _ in range(size // CHUNK):
            sock.sendall(data)
        if sock.recv(1) != b".":
            raise SystemExit("the receiver did not get it")
        return size * 8 / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=512, help="sent in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts, taken in turns")
    parser.add_argument("--only", help="one of direct, tcp, tls, hbone")
    arguments = parser.parse_args()
    processes: list[BaseProcess] = []
    ports: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        client = authority.context("client", server=False)
        server = authority.context("server", server=True)
        receiver = listening()
        processes.append(run_sink(receiver))
        ports["direct"] = last = receiver.getsockname()[1]
        listener = listening()
        processes.append(run(tcp_relay, listener, last))
        ports["tcp"] = listener.getsockname()[1]
        for name, front, back in (("tls", tls_front, tls_back), ("hbone", hbone_front, hbone_back)):
            behind, before = listening(), listening()
            processes.append(run(back, behind, last, server))
            processes.append(run(front, before, behind.getsockname()[1], client))
            ports[name] = before.getsockname()[1]
    try:
        best = dict.fromkeys([arguments.only] if arguments.only else ports, 0.0)
        for _ in range(arguments.rounds):
            for name in best:
                best[name] = max(best[name], measure(ports[name], arguments.mib << 20))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    result: dict[str, object] = {"gbit_per_s": {name: round(value, 2) for name, value in best.items()}}
    if not arguments.only:
        result["hbone_of_tls"] = round(best["hbone"] / best["tls"], 2)
        result["hbone_of_direct"] = round(best["hbone"] / best["direct"], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
