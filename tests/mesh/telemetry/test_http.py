"""The HTTP server, with well-behaved clients and with others."""

import asyncio
import contextlib
import http.client
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import pytest

from netwarren.mesh.telemetry.http import BUFFER_SIZE, MOST_BODY, HttpServer, Request, Response, empty, text

Serve = Callable[..., Awaitable[tuple[str, int]]]


def echo(request: Request) -> Response:
    shown = f"{request.method} {request.path} {dict(request.query)} {request.header('x-test')}\n"
    return text(shown)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers on loopback; gives their address."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Callable[[Request], object] = echo, **options: object) -> tuple[str, int]:
            listener = socket.create_server(("127.0.0.1", 0))
            server = HttpServer(listener, handler, **options)  # type: ignore[arg-type]
            address: tuple[str, int] = listener.getsockname()
            await server.start()
            stack.push_async_callback(server.close)
            return address

        yield start


async def exchange(address: tuple[str, int], *pieces: bytes, end: bool = True) -> bytes:
    """Send ``pieces``, end or not, and read all there is until the server ends."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def answer(address: tuple[str, int], request: bytes) -> bytes:
    """The first line of the answer to ``request``, the connection staying open on our side."""
    return (await exchange(address, request, end=False)).partition(b"\r\n")[0]


async def test_a_request_gets_its_answer(serve: Serve) -> None:
    address = await serve()
    got = await exchange(
        address,
        b"GET /a?x=1&y= HTTP/1.1\r\nHost: h\r\nX-Test: one\r\nx-test: two\r\nConnection: close\r\n\r\n",
    )
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert body == b"GET /a {'x': '1', 'y': ''} one, two\n"
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"content-type: text/plain; charset=utf-8" in head.lower()


async def test_a_real_client_keeps_its_connection(serve: Serve) -> None:
    host, port = await serve()

    def ask() -> list[bytes]:
        client = http.client.HTTPConnection(host, port, timeout=30)
        bodies = []
        sockets = set()
        for number in range(3):
            client.request("POST", f"/{number}", body=b"ignored" * 100)
            sockets.add(client.sock)
            bodies.append(client.getresponse().read())
        client.close()
        assert len(sockets) == 1
        return bodies

    assert await asyncio.to_thread(ask) == [f"POST /{number} {{}} \n".encode() for number in range(3)]


async def test_pipelined_requests_are_answered_one_after_the_other(serve: Serve) -> None:
    active = 0

    async def handler(request: Request) -> Response:
        nonlocal active
        active += 1
        assert active == 1
        await asyncio.sleep(0)
        active -= 1
        return text(request.path)

    address = await serve(handler)
    requests = [f"GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for number in range(200)]
    got = await exchange(address, b"".join(requests))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [f"/{number}".encode() for number in range(200)]


async def test_a_client_that_reads_nothing_is_not_read_for_ever(serve: Serve) -> None:
    handled = 0

    def handler(request: Request) -> Response:
        nonlocal handled
        handled += 1
        return text("x" * 100_000)

    address = await serve(handler, write_seconds=0.05)

    def send_without_end() -> None:
        with socket.create_connection(address, timeout=30) as client:
            while True:
                client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 100)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.to_thread(send_without_end)
    assert handled < 1000


async def test_a_head_has_no_body(serve: Serve) -> None:
    address = await serve()
    got = await exchange(address, b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-length: 12" in head.lower()
    assert body == b""


async def test_http_1_0_is_answered_and_ended(serve: Serve) -> None:
    address = await serve()
    got = await exchange(address, b"GET /old HTTP/1.0\r\n\r\n", end=False)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"GET /old {} \n")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"hello there general kenobi",
        b"{" * 20_000,
        b"\x00",
        b"\xff" * 10,
        b"\r\n\r\n\x01",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad\x00: 1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
async def test_garbage_gets_400_at_once_and_the_end(serve: Serve, garbage: bytes) -> None:
    address = await serve(header_seconds=60)
    assert (await answer(address, garbage)).startswith(b"HTTP/1.1 400 ")


async def test_garbage_after_a_good_request_gets_400(serve: Serve) -> None:
    address = await serve()
    got = await exchange(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n\x16\x03\x01", end=False)
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in got


async def test_a_request_that_breaks_off_gets_400(serve: Serve) -> None:
    address = await serve(header_seconds=60)
    assert (await exchange(address, b"GET / HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 400 ")


async def test_headers_that_do_not_fit_get_431(serve: Serve) -> None:
    address = await serve(header_seconds=60)
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * (4 * BUFFER_SIZE)
    assert (await answer(address, request)).startswith(b"HTTP/1.1 431 ")


async def test_a_body_that_is_too_large_gets_413(serve: Serve) -> None:
    address = await serve(header_seconds=60)
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n" + bytes(MOST_BODY + 1)
    assert (await answer(address, request)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", b"POST"])
async def test_a_slow_request_gets_408_and_the_end(serve: Serve, beginning: bytes) -> None:
    address = await serve(header_seconds=0.5)
    assert await answer(address, beginning) == b"HTTP/1.1 408 Request Timeout"


async def test_a_body_that_does_not_come_gets_408(serve: Serve) -> None:
    address = await serve(header_seconds=0.5)
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345"
    assert await answer(address, request) == b"HTTP/1.1 408 Request Timeout"


async def test_a_client_that_says_nothing_is_left_without_a_word(serve: Serve) -> None:
    address = await serve(header_seconds=0.02)
    assert await exchange(address, end=False) == b""


async def test_a_handler_that_fails_is_told_of_and_answered_with_500(serve: Serve) -> None:
    told: list[tuple[str, str]] = []

    def handler(request: Request) -> Response:
        raise LookupError("no such thing")

    address = await serve(handler, on_error=lambda request, error: told.append((request.path, str(error))))
    got = await exchange(address, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 500 Internal Server Error")
    assert got.endswith(b"LookupError: no such thing\n")
    assert told == [("/x", "no such thing")]


async def test_an_answer_of_megabytes_arrives_whole(serve: Serve) -> None:
    body = "0123456789" * 500_000
    address = await serve(lambda request: text(body))
    got = await exchange(address, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", end=False)
    assert got.partition(b"\r\n\r\n")[2] == body.encode()


async def test_one_connection_too_many_is_refused_and_the_others_live_on(serve: Serve) -> None:
    address = await serve(most_connections=2, header_seconds=60)
    async with contextlib.AsyncExitStack() as stack:

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*address)
            stack.callback(writer.close)
            return reader, writer

        first, second, third = [await connect() for _ in range(3)]
        assert await third[0].read() == b""
        for reader, writer in (first, second):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_a_client_that_resets_does_no_harm(serve: Serve) -> None:
    address = await serve()
    for _ in range(20):
        client = socket.create_connection(address)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /")
        client.close()
    assert (await exchange(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_many_clients_are_answered_at_once(serve: Serve) -> None:
    everybody_here = asyncio.Barrier(50)

    async def handler(request: Request) -> Response:
        await everybody_here.wait()
        return text(request.path)

    address = await serve(handler)
    got = await asyncio.gather(
        *(exchange(address, f"GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n".encode()) for n in range(50))
    )
    assert [each.partition(b"\r\n\r\n")[2] for each in got] == [f"/{n}".encode() for n in range(50)]


async def test_closing_lets_an_answer_finish_and_ends_idle_connections() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    asked, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        asked.set()
        await go.wait()
        return empty(HTTPStatus.OK)

    server = HttpServer(listener, handler, header_seconds=60)
    await server.start()
    idle = asyncio.create_task(exchange(address, end=False))
    busy = asyncio.create_task(exchange(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", end=False))
    await asked.wait()
    closing = asyncio.create_task(server.close(grace=60))
    assert await idle == b""
    go.set()
    await closing
    got = await busy
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in got.lower()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await server.close()


async def test_closing_does_not_wait_for_a_handler_without_end() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    asked = asyncio.Event()

    async def handler(request: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()
        return empty(HTTPStatus.OK)

    server = HttpServer(listener, handler)
    await server.start()
    busy = asyncio.create_task(exchange(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", end=False))
    await asked.wait()
    await server.close(grace=0)
    assert await busy == b""
