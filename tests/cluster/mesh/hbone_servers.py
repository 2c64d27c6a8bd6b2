"""HBONE servers of tests, in pods: waypoints and gateways that are none of netwarren's own."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

from netwarren import Cluster, Pod
from netwarren.mesh.hbone.copy import copy_both_ways
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest, serve
from netwarren.mesh.identity import tls
from netwarren.mesh.model import Identity

Handle = Callable[[ConnectRequest], Awaitable[None]]


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def via(request: ConnectRequest) -> None:
    """Says ``via`` to everybody, and then what they say."""
    stream = request.accept()
    await stream.write(b"via\n")
    while data := await stream.read(1024):
        await stream.write(data)
    await stream.write_eof()


def forwarding(pod: Pod, leads: Callable[[str], str], port: int = 15008) -> Handle:
    """A network's gateway in ``pod``: what is asked for leads to ``port`` of ``leads(authority)``, byte by byte."""

    async def forward(request: ConnectRequest) -> None:
        host = leads(request.authority)
        made = pod.socket(family(host))
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
        except OSError:
            made.close()
            request.refuse(503)
            return
        await copy_both_ways(request.accept(), SocketStream(made))

    return forward


@contextlib.contextmanager
def hbone_server(
    cluster: Cluster,
    pod: Pod,
    identity: Identity | None = None,
    *,
    handle: Handle = via,
    host: str = "",
) -> Iterator[list[ConnectRequest]]:
    """HBONE on port 15008 of ``pod`` (at ``host``), as its own ``identity``; gives the requests that came."""
    certificate = cluster.mesh.authority.issue(identity or cluster.mesh.workload(pod).identity)
    host = host or pod.ip
    listener = pod.socket(family(host))
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, 15008))
    listener.listen()
    came: list[ConnectRequest] = []
    loop = asyncio.new_event_loop()

    async def answer(request: ConnectRequest) -> None:
        came.append(request)
        await handle(request)

    async def one(accepted: socket.socket) -> None:
        with contextlib.suppress(Exception):  # of clients that did not like us
            await serve(SocketStream(accepted), tls.server_context(certificate), on_connect=answer)

    async def main(ending: asyncio.Event) -> None:
        async def accept() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(one((await loop.sock_accept(listener))[0]))

        accepting = asyncio.ensure_future(accept())
        await ending.wait()
        accepting.cancel()
        await asyncio.wait((accepting,))

    ending = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(ending),))
    thread.start()
    try:
        yield came
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()
        listener.close()
