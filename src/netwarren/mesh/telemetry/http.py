"""A small HTTP/1.1 server (RFC 9112) on `h11`: one function answers, on a listening socket made elsewhere.

Rules: nothing a client sends, or does not send, holds more than a bounded buffer for a bounded time; what is no HTTP
gets 400; requests of one connection are answered one after the other.
Does not belong here: what is answered (see `admin`, `readiness`, `metrics_page`).
"""

import asyncio
import contextlib
import inspect
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import h11

PLAIN = "text/plain; charset=utf-8"
BUFFER_SIZE = 8 << 10
"""Bytes of a request line and headers."""
MOST_BODY = 64 << 10
"""Bytes of a request's body, which nothing here reads."""
MOST_CONNECTIONS = 256
LINGER_SECONDS = 0.5
MOST_LINGERING = 256 << 10
"""Bytes read of a client that has been refused, so that it gets to read why."""

# RFC 9112, section 3: what a request line may look like while it is still coming in.
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}(?: [\x21-\x7e\x80-\xff]*(?: [HTP/0-9.]{0,8})?)?")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str:
        """All values of a header as one list, ``""`` where there is none; RFC 9110, section 5.2."""
        return ", ".join([value for each, value in self.headers if each == name])


@dataclass(frozen=True, slots=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]


def text(body: str, status: HTTPStatus = HTTPStatus.OK, content_type: str = PLAIN) -> Response:
    """An answer of text."""
    return Response(status, body.encode(), content_type)


def empty(status: HTTPStatus) -> Response:
    """An answer without a body."""
    return Response(status)


def not_allowed(allowed: str, body: str = "") -> Response:
    """405, with the methods there are; RFC 9110, section 15.5.6."""
    return Response(
        HTTPStatus.METHOD_NOT_ALLOWED, body.encode(), PLAIN if body else "", (("allow", allowed),)
    )


class _Refused(Exception):
    """The client gets `status` and the end of the connection."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class HttpServer:
    """Serves ``handler`` on ``listener``, which it closes in the end, on the loop that it is started on.

    ``header_seconds`` is how long a request's headers may take, and how long a kept connection may be idle;
    ``write_seconds`` how long a client may take to read an answer. ``on_error`` gets what a handler raised.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Handler,
        *,
        header_seconds: float = 2.0,
        write_seconds: float = 10.0,
        most_connections: int = MOST_CONNECTIONS,
        on_error: Callable[[Request, Exception], None] | None = None,
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._header_seconds = header_seconds
        self._write_seconds = write_seconds
        self._most_connections = most_connections
        self._on_error = on_error
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], bool] = {}
        """Of each connection, with whether it is answering a request."""
        self._closing = False

    def __repr__(self) -> str:
        state = "closed" if self._closing else "serving" if self._server else "not started"
        return f"<HttpServer {state}, {len(self._tasks)} connections>"

    async def start(self) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(self._accepted, sock=self._listener, limit=BUFFER_SIZE)

    async def close(self, grace: float = 1.0) -> None:
        """Accept no more, end idle connections, give answers under way ``grace`` seconds; repeatable."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        self._listener.close()
        for task, answering in self._tasks.items():
            if not answering:
                task.cancel()
        here = asyncio.current_task()
        others = [task for task in self._tasks if task is not here]
        if others:
            _, late = await asyncio.wait(others, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writer.transport.set_write_buffer_limits(high=0)  # `drain` returns when all is with the kernel
        if self._closing or len(self._tasks) >= self._most_connections:
            writer.transport.abort()
            return
        self._tasks[task] = False
        try:
            await self._serve(task, reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client is gone, or too slow, or the server closes: either way this connection ends
        finally:
            del self._tasks[task]
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(
        self, task: "asyncio.Task[None]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=BUFFER_SIZE)
        while True:
            try:
                async with asyncio.timeout(self._header_seconds):
                    request = await self._next_request(protocol, reader)
            except TimeoutError:
                if protocol.their_state is h11.IDLE and not protocol.trailing_data[0]:
                    return  # kept, and not used again
                await self._refuse(protocol, reader, writer, HTTPStatus.REQUEST_TIMEOUT)
                return
            except _Refused as refused:
                await self._refuse(protocol, reader, writer, refused.status)
                return
            if request is None:
                return
            self._tasks[task] = True
            response = await self._answer(request)
            await self._send(protocol, writer, request.method, response, last=self._closing)
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            protocol.start_next_cycle()
            self._tasks[task] = False

    async def _next_request(self, protocol: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
        """The next request, once its body has passed; None where the client has ended in between."""
        request: Request | None = None
        body = 0
        while True:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refused(HTTPStatus(error.error_status_hint)) from None
            if event is h11.NEED_DATA:
                # `h11` takes a line as one when it has come to its end; garbage may never get there.
                unread = protocol.trailing_data[0]
                if request is None and b"\n" not in unread and not _BEGINNING.fullmatch(unread.rstrip(b"\r")):
                    raise _Refused(HTTPStatus.BAD_REQUEST)
                protocol.receive_data(await reader.read(BUFFER_SIZE))
            elif isinstance(event, h11.Request):
                request = _request(event)
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > MOST_BODY:
                    raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None  # ConnectionClosed

    async def _answer(self, request: Request) -> Response:
        try:
            answer = self._handler(request)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            if self._on_error is not None:
                self._on_error(request, error)
            return text(f"{type(error).__name__}: {error}\n", HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _send(
        self,
        protocol: h11.Connection,
        writer: asyncio.StreamWriter,
        method: str,
        response: Response,
        *,
        last: bool,
    ) -> None:
        headers = [
            ("date", formatdate(usegmt=True)),
            ("content-length", str(len(response.body))),
            *response.headers,
        ]
        if response.content_type:
            headers.append(("content-type", response.content_type))
        if last:
            headers.append(("connection", "close"))
        try:
            start = h11.Response(
                status_code=response.status, headers=headers, reason=response.status.phrase.encode()
            )
            data = protocol.send(start) or b""
            if method != "HEAD" and response.body:
                data += protocol.send(h11.Data(data=response.body)) or b""
            data += protocol.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError:
            return  # the client's error came where no answer is possible any more
        async with asyncio.timeout(self._write_seconds):
            writer.write(data)
            await writer.drain()

    async def _refuse(
        self,
        protocol: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        status: HTTPStatus,
    ) -> None:
        await self._send(protocol, writer, "GET", empty(status), last=True)
        # RFC 9112, section 9.6: closed with something unread, the connection is reset, and the answer may be lost.
        writer.write_eof()
        async with asyncio.timeout(LINGER_SECONDS):
            for _ in range(MOST_LINGERING // BUFFER_SIZE):
                if not await reader.read(BUFFER_SIZE):
                    return


def _request(event: h11.Request) -> Request:
    if event.http_version not in (b"1.0", b"1.1"):
        raise _Refused(HTTPStatus.BAD_REQUEST)  # above all the first words of HTTP/2
    target = event.target.decode("latin-1")
    try:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=64))
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in event.headers
    )
    return Request(event.method.decode("latin-1"), parts.path, query, headers)
