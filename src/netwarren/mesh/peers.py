"""Who stands at the ends of a tested proxy: servers for `Pod.start`, which are no proxies, and a client.

They are what ztunnel's own tests have (src/test_helpers/tcp.rs and hbone_server.rs): an echo that says everything
twice, a forwarder, a forwarder that is told where to by a PROXY header, a server of HBONE.
Rules: each serves many at once, on one thread and loop, on all addresses of its pod, until its pod ends; a client
that breaks off is no error of theirs.
Does not belong here: what a proxy does (see `netwarren.mesh.proxy`), waiting for its metrics and log (see
`netwarren.mesh.telemetry.expect`).
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from netwarren.errors import MeshError
from netwarren.mesh.accepting import serve_until
from netwarren.mesh.config import INBOUND_HBONE_PORT
from netwarren.mesh.hbone import proxy_protocol, transport
from netwarren.mesh.hbone.copy import copy_both_ways
from netwarren.mesh.hbone.stream import ByteStream, SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import server_context
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.state.headers import Baggage, format_baggage

ECHO_PORT = 8080
PROXY_PROTOCOL_PORT = 15088

Ready: TypeAlias = Callable[..., object]
Handler: TypeAlias = Callable[[ByteStream], Awaitable[object]]

_CHUNK = 64 << 10


def echo(
    port: int = ECHO_PORT, *, times: int = 2, greeting: bytes = b"", ready: Ready, stop: threading.Event
) -> None:
    """Say ``greeting``, then everything that comes, ``times`` times each (as it comes in), until the client's end."""
    _serve(port, lambda stream: _echo(stream, times, greeting), ready, stop)


def forward(
    to: tuple[str, int], port: int = ECHO_PORT, *, greeting: bytes = b"", ready: Ready, stop: threading.Event
) -> None:
    """Say ``greeting``, then join the client with a server at ``to`` (host and port)."""
    _serve(port, lambda stream: _forward(stream, to, greeting), ready, stop)


def forward_by_proxy_header(port: int = PROXY_PROTOCOL_PORT, *, ready: Ready, stop: threading.Event) -> None:
    """Read a PROXY protocol header (version 2) and join the client with its destination; a sandwiched waypoint.

    The `Background`'s value is a list of the headers that came (`netwarren.mesh.hbone.proxy_protocol.ProxyHeader`).
    """
    came: list[proxy_protocol.ProxyHeader] = []

    async def handle(stream: ByteStream) -> None:
        data = b""
        while (decoded := proxy_protocol.decode(data)) is None:
            more = await stream.read(_CHUNK)
            if not more:
                return
            data += more
        header, length = decoded
        came.append(header)
        await _forward(stream, _pair(header.destination), b"", data[length:])

    _serve(port, handle, ready, stop, came)


def hbone(
    certificate: Certificate,
    port: int = INBOUND_HBONE_PORT,
    *,
    greeting: bytes = b"waypoint\n",
    to: tuple[str, int] | None = None,
    status: int = 200,
    baggage: Baggage | None = None,
    ready: Ready,
    stop: threading.Event,
) -> None:
    """Take HBONE by mutual TLS, as a waypoint or gateway does; ``certificate`` says who this is.

    Each CONNECT is answered with ``status`` and, where that is 200, with ``baggage``, ``greeting``, and then an echo,
    or what a server at ``to`` says. The `Background`'s value is a list of the requests that came
    (`netwarren.mesh.hbone.transport.ConnectRequest`: ``authority``, ``headers``, ``tls``).
    """
    came: list[ConnectRequest] = []
    headers = (("baggage", format_baggage(baggage, "deployment")),) if baggage is not None else ()

    async def answer(request: ConnectRequest) -> None:
        came.append(request)
        if status != 200:
            request.refuse(status)
            return
        stream = request.accept(headers)
        with suppress(OSError):  # of clients that break off, or where nobody listens
            if to is None:
                await _echo(stream, 1, greeting)
            else:
                await _forward(stream, to, greeting)

    async def handle(stream: ByteStream) -> None:
        await transport.serve(stream, server_context(certificate), on_connect=answer)

    _serve(port, handle, ready, stop, came)


def talk(host: str, port: int = ECHO_PORT, said: bytes = b"hello", *, seconds: float = 20.0) -> bytes:
    """Connect from where the calling thread stands, say something, half-close; all that is answered.

    For `Pod.run`: ``client.run(talk, server.ip)``. Raises `OSError` where the connection is refused or reset, and
    `TimeoutError` where nothing comes for ``seconds``.
    """
    with socket.create_connection((host, port), timeout=seconds) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(_CHUNK):
            answer += data
    return answer


# --- inside ---


async def _echo(stream: ByteStream, times: int, greeting: bytes) -> None:
    if greeting:
        await stream.write(greeting)
    while data := await stream.read(_CHUNK):
        await stream.write(data * times)
    await stream.write_eof()


async def _forward(stream: ByteStream, to: tuple[str, int], greeting: bytes, said: bytes = b"") -> None:
    far = SocketStream(await _connected(*to))
    if greeting:
        await stream.write(greeting)
    if said:
        await far.write(said)
    await copy_both_ways(stream, far)


async def _connected(host: str, port: int) -> socket.socket:
    # Looked up on this thread, which stands in the pod; the loop would have another one do it.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _name, address) in enumerate(found, 1):
        far = socket.socket(family, kind, protocol)
        far.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(far, address)
        except BaseException as error:
            far.close()
            if number == len(found) or not isinstance(error, OSError):
                raise
        else:
            return far
    raise OSError(f"{host} has no address")


def _pair(address: SocketAddress) -> tuple[str, int]:
    return str(address.address), address.port


def _serve(port: int, handle: Handler, ready: Ready, stop: threading.Event, value: Any = None) -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_serve_until(port, handle, ready, stop, value))


async def _serve_until(port: int, handle: Handler, ready: Ready, stop: threading.Event, value: Any) -> None:
    loop = asyncio.get_running_loop()

    async def one(accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = SocketStream(accepted)
        try:
            await handle(stream)
        except (OSError, MeshError):
            pass  # of clients that break off, or that do not like us
        finally:
            await stream.close()

    ending = asyncio.Event()

    def end() -> None:
        stop.wait()
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(ending.set)

    threading.Thread(target=end, name="netwarren-peer-end", daemon=True).start()
    with _listener(port) as listener:
        ready(value)
        await serve_until(ending, listener, one)


def _listener(port: int) -> socket.socket:
    """On all addresses of both families, where there are both."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port), backlog=1024)
    return listener
