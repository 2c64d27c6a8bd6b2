"""The two ends of HBONE: a client's tunnel connection, and a server's, which decides on each CONNECT.

Rules: a stream opens after the answer 200 and not before; a handler that answers nothing is answered for (503);
whoever is cancelled leaves no stream, task or socket behind.
Does not belong here: which connection is used again (see `pool`), what is decided on a CONNECT.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.failure import ProxyError
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.events import (
    Event,
    GoAwayReceived,
    Headers,
    RequestReceived,
    RequestRejected,
    ResponseReceived,
    StreamWasReset,
)
from netwarren.mesh.hbone.failure import ConnectionLost, ConnectRefused, StreamReset
from netwarren.mesh.hbone.session import Session, handshake
from netwarren.mesh.hbone.stream import ByteStream
from netwarren.mesh.hbone.tls import TlsSession, Verify
from netwarren.mesh.hbone.tunnel_stream import TunnelStream, error_name


class OpenedStream(NamedTuple):
    """A tunnel that the peer accepted: its status (200), its headers, and the bytes."""

    status: int
    headers: Headers
    stream: TunnelStream


class Tunnel:
    """A client's connection, made by `connect`, which carries many streams."""

    def __init__(self, lower: ByteStream, tls: TlsSession, settings: Http2Settings) -> None:
        self._answers: dict[int, asyncio.Future[ResponseReceived]] = {}
        self._session = Session(lower, tls, "client", settings, on_event=self._on_event, on_end=self._on_end)
        self._at_end: list[Callable[[], object]] = []

    @classmethod
    async def connect(
        cls,
        lower: ByteStream,
        context: ssl.SSLContext,
        *,
        verify: Verify | None = None,
        settings: Http2Settings = Http2Settings(),  # noqa: B008 (frozen)
    ) -> "Tunnel":
        """Handshake over ``lower``, which is the tunnel's from here on, also where this raises.

        Raises `TlsFailure` and what ``verify`` raises. That a TLS 1.3 server does not accept the
        client's certificate shows only when a stream is opened.
        """
        tls, early = await handshake(lower, context, server_side=False, verify=verify)
        tunnel = cls(lower, tls, settings)
        tunnel._session.start(early)
        return tunnel

    @property
    def tls(self) -> ssl.SSLObject:
        """The handshake's outcome, with the peer's certificate."""
        return self._session.tls.object

    @property
    def usable(self) -> bool:
        """Whether new streams may be opened: it has not ended and no GOAWAY came."""
        return not (self._session.ended or self._session.connection.going_away or self._session.releasing)

    @property
    def stream_count(self) -> int:
        """How many streams are in use."""
        return len(self._session.streams)

    @property
    def most_streams(self) -> int:
        """How many streams the peer allows at a time, as far as it has said so."""
        return self._session.connection.most_streams

    async def open_stream(self, authority: str, headers: Headers = ()) -> OpenedStream:
        """A tunnel to ``authority`` once the peer has answered 200. Cancelled, it resets the stream.

        Raises `ConnectRefused` for another answer; `StreamReset`, `ConnectionLost`, or why the connection ended.
        """
        stream_id = self._session.connection.open_stream(authority, headers)
        stream = self._session.open_stream_object(stream_id)
        answer = self._answers[stream_id] = asyncio.get_running_loop().create_future()
        self._session.wake()
        try:
            response = await answer
            if response.status != 200:
                raise ConnectRefused(response.status, authority)
        except BaseException:
            stream.abort()
            raise
        finally:
            self._answers.pop(stream_id, None)
        return OpenedStream(response.status, response.headers, stream)

    def release(self) -> None:
        """It ends when its last stream does, which may be now."""
        self._session.releasing = True
        self._session.end_if_done()

    def abort(self, failure: Exception | None = None) -> None:
        """Begins its end: GOAWAY, and all streams are lost; what uses them is told why (``failure``)."""
        self._session.end(failure)

    async def close(self) -> None:
        """Ends it now and waits until it is gone."""
        self._session.end()
        await self._session.wait_ended()

    async def wait_closed(self) -> None:
        """Returns when it has ended, whoever ended it."""
        await self._session.wait_ended()

    def at_end(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when it ends, whoever ends it; at once if it has."""
        if self._session.ended:
            callback()
        else:
            self._at_end.append(callback)

    def _on_event(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id):
                if (answer := self._answers.get(stream_id)) and not answer.done():
                    answer.set_result(event)
            case StreamWasReset(stream_id, code):
                if (answer := self._answers.get(stream_id)) and not answer.done():
                    answer.set_exception(
                        StreamReset(f"the peer reset the stream before it answered: {error_name(code)}", code)
                    )
            case GoAwayReceived():
                self._session.releasing = True

    def _on_end(self) -> None:
        for callback in self._at_end:
            callback()
        for answer in self._answers.values():
            if not answer.done():
                failure = self._session.failure
                lost = ConnectionLost("the connection ended before the peer answered")
                answer.set_exception(failure if failure is not None else lost)


class ConnectRequest:
    """A client's CONNECT: to be answered once, by `accept` or `refuse`."""

    def __init__(self, session: Session, stream: TunnelStream, authority: str, headers: Headers) -> None:
        self.authority = authority
        self.headers = headers
        self.answered = False
        self._session = session
        self._stream = stream

    @property
    def tls(self) -> ssl.SSLObject:
        """The handshake's outcome, with the client's certificate."""
        return self._session.tls.object

    def on_cut(self, callback: Callable[[ProxyError], None]) -> None:
        """Have ``callback`` called when the proxy itself ends the connection, see `TunnelStream`."""
        self._stream.on_cut = callback

    def accept(self, headers: Headers = ()) -> TunnelStream:
        """Answers 200; raises `StreamGone` if the client went away meanwhile."""
        self.answered = True
        self._session.connection.respond(self._stream.stream_id, 200, headers)
        self._session.wake()
        return self._stream

    def refuse(self, status: int, headers: Headers = ()) -> None:
        """Answers ``status`` with an empty body; nothing if the client went away meanwhile."""
        self.answered = True
        try:
            self._session.connection.respond(self._stream.stream_id, status, headers, end=True)
        except BrokenPipeError:
            pass
        self._stream.abort()


OnConnect: TypeAlias = Callable[[ConnectRequest], Awaitable[None]]
"""Answers a request and then does the stream's work; an exception before it answered is answered with 503."""


class ServerTunnel:
    """A server's connection, made by `accept`; ``on_connect`` runs in a task for each CONNECT."""

    def __init__(
        self,
        lower: ByteStream,
        tls: TlsSession,
        settings: Http2Settings,
        on_connect: OnConnect,
        on_rejected: Callable[[str], None] | None = None,
    ) -> None:
        self._on_connect = on_connect
        self._on_rejected = on_rejected
        self._handlers: dict[int, tuple[ConnectRequest, asyncio.Task[None]]] = {}
        self._session = Session(
            lower, tls, "server", settings, on_event=self._on_event, on_end=self._cancel_unanswered
        )

    @classmethod
    async def accept(
        cls,
        lower: ByteStream,
        context: ssl.SSLContext,
        *,
        on_connect: OnConnect,
        verify: Verify | None = None,
        settings: Http2Settings = Http2Settings(),  # noqa: B008 (frozen)
        on_rejected: Callable[[str], None] | None = None,
    ) -> "ServerTunnel":
        """Handshake over ``lower``, which is the connection's from here on, also where this raises.

        ``on_rejected`` is told the method of each request that was answered with 400 (see `RequestRejected`).
        Raises `TlsFailure` and what ``verify`` raises.
        """
        tls, early = await handshake(lower, context, server_side=True, verify=verify)
        tunnel = cls(lower, tls, settings, on_connect, on_rejected)
        tunnel._session.start(early)
        return tunnel

    @property
    def tls(self) -> ssl.SSLObject:
        """The handshake's outcome, with the client's certificate."""
        return self._session.tls.object

    @property
    def failure(self) -> Exception | None:
        """Why it ended, None if it has not, or was ended on our side."""
        return self._session.failure

    async def drain(self, deadline: float | None = None) -> None:
        """Says GOAWAY, lets open streams finish, for ``deadline`` seconds at the most, then closes."""
        self._session.connection.drain()
        self._session.releasing = True
        self._session.wake()
        try:
            async with asyncio.timeout(deadline):
                await self.wait_closed()
        except TimeoutError:
            pass
        finally:
            await self.close()

    def abort(self, code: int = frames.NO_ERROR, failure: Exception | None = None) -> None:
        """Begins its end: GOAWAY with ``code``, and all streams are lost; what uses them is told why (``failure``)."""
        self._session.end(failure, code)

    async def close(self) -> None:
        """Ends it now, and the handlers, and waits until all are gone."""
        self._session.end()
        for _, task in self._handlers.values():
            task.cancel()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Returns when it has ended, whoever ended it, and so have the handlers."""
        await self._session.wait_ended()
        while self._handlers:
            await asyncio.wait([task for _, task in self._handlers.values()])

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id, authority, headers):
                stream = self._session.open_stream_object(stream_id)
                request = ConnectRequest(self._session, stream, authority, headers)
                task = asyncio.get_running_loop().create_task(self._handle(request, stream))
                self._handlers[stream_id] = request, task
                task.add_done_callback(lambda _: self._handled(stream_id, request))
            case RequestRejected(_, method):
                if self._on_rejected is not None:
                    self._on_rejected(method)
            case StreamWasReset(stream_id):
                if (handler := self._handlers.get(stream_id)) and not handler[0].answered:
                    handler[1].cancel()
            case GoAwayReceived():
                pass  # a client that opens no more streams, as it always may

    async def _handle(self, request: ConnectRequest, stream: TunnelStream) -> None:
        try:
            await self._on_connect(request)
        finally:
            if not request.answered:
                request.refuse(503)
            await stream.close()

    def _handled(self, stream_id: int, request: ConnectRequest) -> None:
        del self._handlers[stream_id]
        if not request.answered:  # cancelled before it began, so that nothing of it has run
            request.refuse(503)

    def _cancel_unanswered(self) -> None:
        for request, task in self._handlers.values():
            if not (request.answered or task.cancelling()):
                task.cancel()


async def serve(
    lower: ByteStream,
    context: ssl.SSLContext,
    *,
    on_connect: OnConnect,
    verify: Verify | None = None,
    settings: Http2Settings = Http2Settings(),  # noqa: B008 (frozen)
) -> None:
    """`ServerTunnel.accept`, until the connection has ended; cancelled, it closes it."""
    tunnel = await ServerTunnel.accept(
        lower, context, on_connect=on_connect, verify=verify, settings=settings
    )
    try:
        await tunnel.wait_closed()
    finally:
        await tunnel.close()
