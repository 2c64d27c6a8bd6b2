"""Unary calls of gRPC over HTTP/2 (grpc/grpc, ``doc/PROTOCOL-HTTP2.md``): a server's end and a client's call.

Rules: the server's end is bytes in, bytes out; one message each way, not compressed; a peer that does not keep to it
gets a status, or loses its connection.
Does not belong here: TLS and sockets (see `ca_server`, `ca_client`), what the calls say (see `certificate_service`).
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote, unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
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
"""Of a message; it goes through an HTTP/2 window as it is at first (65535)."""

OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
"""Of grpc/grpc, ``doc/statuscodes.md``."""

Method: TypeAlias = Callable[[bytes], bytes]
"""A request's message in, the answer's out; `MeshError` is the status INVALID_ARGUMENT with its text."""

_PREFIX = struct.Struct("!?I")  # compressed or not, length


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
    said: bytearray = field(default_factory=bytearray)
    answer: memoryview = field(default_factory=lambda: memoryview(b""))
    trailers: tuple[tuple[str, str], ...] = ()
    """To be sent after the answer; empty as long as there is none."""


class ServerConnection:
    """A server's end of one connection; ``methods`` by path, as ``/istio.v1.auth.Service/Method``.

    ``closed``: the peer has ended it, or is to lose it.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.closed = False
        self._methods = methods
        self._calls: dict[int, _Call] = {}
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.initiate_connection()

    def receive(self, data: bytes) -> bytes:
        """What is to be sent once ``data`` has come (none: the settings, at first)."""
        try:
            for event in self._h2.receive_data(data) if data else ():
                if isinstance(event, RequestReceived):
                    self._calls[event.stream_id] = _Call(_text(event.headers).get(":path", ""))
                elif isinstance(event, DataReceived):
                    self._heard(event)
                elif isinstance(event, StreamEnded) and event.stream_id in self._calls:
                    self._answer(event.stream_id)
                elif isinstance(event, StreamReset):
                    self._calls.pop(event.stream_id, None)
                elif isinstance(event, WindowUpdated):
                    for stream in list(self._calls):
                        self._send(stream)
                elif isinstance(event, ConnectionTerminated):
                    self.closed = True
        except H2Error:
            self.closed = True
        return self._h2.data_to_send()

    def _heard(self, event: DataReceived) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        call.said += event.data or b""
        if len(call.said) > MOST_BYTES:
            del self._calls[event.stream_id]
            self._h2.reset_stream(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)

    def _answer(self, stream: int) -> None:
        call = self._calls[stream]
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
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        call.answer = memoryview(answer)
        call.trailers = (("grpc-status", str(status)), ("grpc-message", quote(reason, safe=" ")))
        self._send(stream)

    def _send(self, stream: int) -> None:
        call = self._calls[stream]
        if not call.trailers:
            return  # it has not been answered
        while call.answer:
            most = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if most <= 0:
                return
            self._h2.send_data(stream, bytes(call.answer[:most]))
            call.answer = call.answer[most:]
        self._h2.send_headers(stream, call.trailers, end_stream=True)
        del self._calls[stream]


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, methods: Mapping[str, Method]
) -> None:
    """Serve one connection to its end."""
    connection = ServerConnection(methods)
    writer.write(connection.receive(b""))
    while not connection.closed and (data := await reader.read(1 << 16)):
        writer.write(connection.receive(data))
        await writer.drain()


async def call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, path: str, message: bytes
) -> bytes:
    """One call on a connection of its own, and its answer's message.

    Raises `CallFailed`, and `MeshError` where the answer is none of gRPC or the connection ends before it.
    """
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    h2.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    stream = h2.get_next_available_stream_id()
    h2.send_headers(stream, headers)
    framed = _framed(message)
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
    if len(message) > MOST_BYTES - _PREFIX.size:
        raise MeshError(f"a message of {len(message)} bytes is longer than {MOST_BYTES - _PREFIX.size}")
    return _PREFIX.pack(False, len(message)) + message


def _unframed(data: bytes) -> bytes:
    if len(data) < _PREFIX.size:
        raise MeshError(f"a message of gRPC has {_PREFIX.size} bytes before it; these are {len(data)}")
    compressed, length = _PREFIX.unpack_from(data)
    if compressed:
        raise MeshError("the message is compressed, which was not offered")
    if len(data) != _PREFIX.size + length:
        raise MeshError(f"one message of {length} bytes was announced, and {len(data) - _PREFIX.size} came")
    return data[_PREFIX.size :]
