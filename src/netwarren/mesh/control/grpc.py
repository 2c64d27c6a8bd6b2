"""gRPC over HTTP/2 (grpc/grpc, ``doc/PROTOCOL-HTTP2.md``): a server's end of unary calls and streams, a client's call.

Rules: the server's end is bytes in, bytes out; messages are not compressed; a peer that does not keep to it gets a
status, or loses its connection.
Does not belong here: TLS and sockets (see `server`, `certificate_client`), what is said.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias
from urllib.parse import quote, unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error

from netwarren.errors import MeshError

MOST_BYTES = 60_000
"""Of a unary call's message and of its answer; it fits an HTTP/2 window as it is at first (65535)."""

MOST_STREAMED_BYTES = 200 << 20
"""Of a message on a stream, as for ztunnel: one that comes again names all that it knows."""

OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
"""Of grpc/grpc, ``doc/statuscodes.md``."""

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

_PREFIX = struct.Struct("!?I")  # compressed or not, length


_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


class CallFailed(MeshError):
    """A call was answered with another status than OK: ``status`` and the server's ``reason``."""

    def __init__(self, path: str, status: int, reason: str) -> None:
        self.path = path
        self.status = status
        self.reason = reason
        super().__init__(f"{path} was answered with status {status}: {reason or 'no reason is given'}")


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
            self._begin(event.stream_id, _text(event.headers).get(":path", ""))
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

    def _heard(self, stream: int, call: _Call) -> None:
        if call.handler is not None:
            try:
                while (message := _taken(call.said)) is not None:
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
                answer = _framed(method(_unframed(bytes(call.said))))
            except MeshError as error:
                status, reason = INVALID_ARGUMENT, str(error)
            except Exception as error:  # a mistake of ours: others go on, and the caller is told
                status, reason = INTERNAL, f"{type(error).__name__}: {error}"
        self._h2.send_headers(stream, _HEADERS)
        call.answer += answer
        self._end(stream, call, status, reason)

    def _say(self, stream: int, message: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None and not call.trailers:
            call.answer += _framed(message)
            self._send(stream)
            self._flush()

    def _end(self, stream: int, call: _Call, status: int, reason: str = "") -> None:
        call.handler = None
        call.trailers = (("grpc-status", str(status)), ("grpc-message", quote(reason, safe=" ")))
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


async def call(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    authority: str,
    path: str,
    message: bytes,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """One call on a connection of its own, with ``headers`` besides those of every call; its answer's message.

    Raises `CallFailed`, and `MeshError` where the answer is none of gRPC or the connection ends before it.
    """
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    h2.initiate_connection()
    request = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *headers,
    ]
    stream = h2.get_next_available_stream_id()
    h2.send_headers(stream, request)
    framed = _framed(message)
    if len(framed) > MOST_BYTES:
        raise MeshError(f"{path}: a message of {len(message)} bytes is longer than {MOST_BYTES}")
    size = h2.max_outbound_frame_size
    for at in range(0, len(framed), size):
        h2.send_data(stream, framed[at : at + size], end_stream=at + size >= len(framed))
    answer = bytearray()
    said: dict[str, str] = {}
    while True:
        writer.write(h2.data_to_send())
        await writer.drain()
        data = await reader.read(1 << 16)
        if not data:
            raise MeshError(f"{path}: the connection has ended without an answer")
        try:
            events = h2.receive_data(data)
        except H2Error as error:
            raise MeshError(f"{path}: the answer is no HTTP/2: {error}") from None
        for event in events:
            if isinstance(event, ResponseReceived | TrailersReceived):
                said |= _text(event.headers)
            elif isinstance(event, DataReceived):
                h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                answer += event.data or b""
                if len(answer) > MOST_BYTES:
                    raise MeshError(f"{path}: the answer is longer than {MOST_BYTES} bytes")
            elif isinstance(event, StreamReset | ConnectionTerminated):
                raise MeshError(f"{path}: the server has refused the call ({event.error_code!r})")
            elif isinstance(event, StreamEnded):
                return _answered(path, said, bytes(answer))


def _answered(path: str, said: Mapping[str, str], answer: bytes) -> bytes:
    status = said.get("grpc-status", "")
    if not status.isdecimal():
        raise MeshError(f"{path}: the answer (HTTP {said.get(':status', '?')}) has no status of gRPC")
    if int(status) != OK:
        raise CallFailed(path, int(status), unquote(said.get("grpc-message", "")))
    return _unframed(answer)


def _text(headers: Iterable[tuple[bytes, bytes]] | None) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers or ()}


def _framed(message: bytes) -> bytes:
    return _PREFIX.pack(False, len(message)) + message


def _too_long(call: _Call) -> bool:
    """Whether more has come than there may be; on a stream, whether so much is announced."""
    if call.handler is None:
        return len(call.said) > MOST_BYTES
    return len(call.said) >= _PREFIX.size and _PREFIX.unpack_from(call.said)[1] > MOST_STREAMED_BYTES


def _taken(said: bytearray) -> bytes | None:
    """The first message of a stream's, which is taken off; None while it is not whole."""
    if len(said) < _PREFIX.size:
        return None
    compressed, length = _PREFIX.unpack_from(said)
    if compressed:
        raise MeshError("the message is compressed, which was not offered")
    end = _PREFIX.size + length
    if len(said) < end:
        return None
    message = bytes(said[_PREFIX.size : end])
    del said[:end]
    return message


def _unframed(data: bytes) -> bytes:
    if len(data) < _PREFIX.size:
        raise MeshError(f"a message of gRPC has {_PREFIX.size} bytes before it; these are {len(data)}")
    compressed, length = _PREFIX.unpack_from(data)
    if compressed:
        raise MeshError("the message is compressed, which was not offered")
    if len(data) != _PREFIX.size + length:
        raise MeshError(f"one message of {length} bytes was announced, and {len(data) - _PREFIX.size} came")
    return data[_PREFIX.size :]
