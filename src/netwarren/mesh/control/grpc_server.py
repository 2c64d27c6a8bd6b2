"""A server's end of gRPC: unary calls and streams, by path.

Rules: bytes in, bytes out; a peer that does not keep to the protocol gets a status, or loses its connection.
Does not belong here: TLS and sockets (see `server`), what is said.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error

from netwarren.errors import MeshError
from netwarren.mesh.control.grpc import (
    INTERNAL,
    INVALID_ARGUMENT,
    MOST_BYTES,
    MOST_STREAMED_BYTES,
    OK,
    UNIMPLEMENTED,
    announced,
    framed,
    taken,
    text,
    unframed,
)

Method: TypeAlias = Callable[[bytes], bytes]
"""A request's message in, the answer's out; `MeshError` is the status INVALID_ARGUMENT with its text."""


class StreamHandler(Protocol):
    """Who hears what a client says on a stream."""

    def hear(self, message: bytes) -> None:
        """The next message; a `MeshError` ends the stream with the status INVALID_ARGUMENT."""

    def ended(self) -> None:
        """The client says no more, or is gone."""


StreamMethod: TypeAlias = Callable[[Callable[[bytes], None]], StreamHandler]
"""Begins a stream; it is given what sends a message on it, on the same thread at any time until its end."""

_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


@dataclass(slots=True)
class _Call:
    path: str
    handler: StreamHandler | None = None
    """Of a stream."""
    said: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)
    """What is to be sent yet."""
    trailers: tuple[tuple[str, str], ...] = ()
    """To be sent after the answer; empty as long as that is not whole."""


class ServerConnection:
    """A server's end of one connection; ``methods`` and ``streams`` by path, as ``/istio.v1.auth.Service/Method``.

    ``write`` sends bytes. ``closed``: the peer has ended it, or is to lose it.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        streams: Mapping[str, StreamMethod],
        write: Callable[[bytes], None],
    ) -> None:
        self.closed = False
        self._methods = methods
        self._streams = streams
        self._write = write
        self._calls: dict[int, _Call] = {}
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.initiate_connection()
        self._flush()

    def receive(self, data: bytes) -> None:
        """The client has sent ``data``."""
        try:
            for event in self._h2.receive_data(data):
                self._on_event(event)
        except H2Error:
            self.closed = True
        self._flush()

    def close(self) -> None:
        """The connection is over: streams are told."""
        self.closed = True
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.handler is not None:
                call.handler.ended()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event.stream_id, text(event.headers).get(":path", ""))
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            if (call := self._calls.get(event.stream_id)) is not None:
                call.said += event.data or b""
                self._heard(event.stream_id, call)
        elif isinstance(event, StreamEnded) and (call := self._calls.get(event.stream_id)) is not None:
            if call.handler is None:
                self._answer(event.stream_id, call)
            else:
                call.handler.ended()
                self._end(event.stream_id, call, OK)
        elif isinstance(event, StreamReset):
            self._forget(event.stream_id)
        elif isinstance(event, WindowUpdated):
            for stream in list(self._calls):
                self._send(stream)
        elif isinstance(event, ConnectionTerminated):
            self.closed = True

    def _begin(self, stream: int, path: str) -> None:
        call = self._calls[stream] = _Call(path)
        begin = self._streams.get(path)
        if begin is not None:
            self._h2.send_headers(stream, _HEADERS)
            call.handler = begin(lambda message: self._say(stream, message))
        elif path not in self._methods:  # at once: of a stream there may be no end to wait for
            self._answer(stream, call)

    def _heard(self, stream: int, call: _Call) -> None:
        if call.handler is not None:
            try:
                while (message := taken(call.said)) is not None:
                    call.handler.hear(message)
            except MeshError as error:
                call.handler.ended()
                self._end(stream, call, INVALID_ARGUMENT, str(error))
                return
        if _too_long(call):
            self._forget(stream)
            self._h2.reset_stream(stream, ErrorCodes.ENHANCE_YOUR_CALM)

    def _forget(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and call.handler is not None:
            call.handler.ended()

    def _answer(self, stream: int, call: _Call) -> None:
        answer, status, reason = b"", OK, ""
        method = self._methods.get(call.path)
        if method is None:
            status, reason = UNIMPLEMENTED, f"there is no {call.path}"
        else:
            try:
                answer = framed(method(unframed(bytes(call.said))))
            except MeshError as error:
                status, reason = INVALID_ARGUMENT, str(error)
            except Exception as error:  # a mistake of ours: others go on, and the caller is told
                status, reason = INTERNAL, f"{type(error).__name__}: {error}"
        if status != OK:  # which is "Trailers-Only"
            self._h2.send_headers(stream, (*_HEADERS, *_trailers(status, reason)), end_stream=True)
            del self._calls[stream]
            return
        self._h2.send_headers(stream, _HEADERS)
        call.answer += answer
        self._end(stream, call, OK)

    def _say(self, stream: int, message: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None and not call.trailers:
            call.answer += framed(message)
            self._send(stream)
            self._flush()

    def _end(self, stream: int, call: _Call, status: int, reason: str = "") -> None:
        call.handler = None
        call.trailers = _trailers(status, reason)
        self._send(stream)

    def _send(self, stream: int) -> None:
        call = self._calls[stream]
        while call.answer:
            most = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if most <= 0:
                return
            self._h2.send_data(stream, bytes(call.answer[:most]))
            del call.answer[:most]
        if call.trailers:
            self._h2.send_headers(stream, call.trailers, end_stream=True)
            del self._calls[stream]

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._write(data)


async def serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    methods: Mapping[str, Method],
    streams: Mapping[str, StreamMethod],
) -> None:
    """Serve one connection to its end."""
    connection = ServerConnection(methods, streams, writer.write)
    try:
        while not connection.closed and (data := await reader.read(1 << 16)):
            connection.receive(data)
            await writer.drain()
    finally:
        connection.close()


def _trailers(status: int, reason: str) -> tuple[tuple[str, str], ...]:
    return ("grpc-status", str(status)), ("grpc-message", quote(reason, safe=" "))


def _too_long(call: _Call) -> bool:
    """Whether more has come than there may be; on a stream, whether so much is announced."""
    if call.handler is None:
        return len(call.said) > MOST_BYTES
    return announced(call.said) > MOST_STREAMED_BYTES
