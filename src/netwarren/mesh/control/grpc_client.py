"""A client's end of gRPC: one call, alone on its connection; a message each way, or as many as the two like.

Rules: `Call` is bytes in, messages out.
Does not belong here: TLS and sockets (see `endpoint`), what is said.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from netwarren.errors import MeshError
from netwarren.mesh.control.failure import Broken, CallFailed
from netwarren.mesh.control.grpc import (
    MOST_BYTES,
    MOST_STREAMED_BYTES,
    OK,
    announced,
    framed,
    taken,
    text,
)

_WINDOW = 4 << 20
"""Bytes that a server may send ahead."""


class Call:
    """A call of ``path``, with ``headers`` besides those of every call; ``most`` bytes may a message have that comes.

    ``begun``: the server has taken it. ``ended``: it has said all, and that the call was well.
    """

    def __init__(
        self,
        authority: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        most: int = MOST_STREAMED_BYTES,
    ) -> None:
        self.begun = False
        self.ended = False
        self._path = path
        self._most = most
        self._unsent = bytearray()
        self._last = False
        self._heard = bytearray()
        self._told: dict[str, str] = {}
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW},
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._stream = self._h2.get_next_available_stream_id()
        request = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *headers,
        ]
        self._h2.send_headers(self._stream, request)

    def say(self, message: bytes, *, last: bool = False) -> None:
        """Send ``message``; after the ``last`` one there is no other."""
        self._unsent += framed(message)
        self._last = last
        self._send()

    def ping(self) -> None:
        """Have the server say that it is there."""
        self._h2.ping(bytes(8))

    def data_to_send(self) -> bytes:
        """What is to be written to the connection now."""
        return bytes(self._h2.data_to_send())

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are whole now that ``data`` has come; ``b""`` is the connection's end.

        Raises `CallFailed`, `Broken` where it ends before the call, and `MeshError` for what is no gRPC.
        """
        if not data:
            raise Broken(f"{self._path}: the connection has ended without an answer")
        try:
            events = self._h2.receive_data(data)
        except H2Error as error:
            raise MeshError(f"{self._path}: the answer is no HTTP/2: {error}") from None
        for event in events:
            self._on_event(event)
        found: list[bytes] = []
        while (message := taken(self._heard)) is not None:
            found.append(message)
        if announced(self._heard) > self._most:
            raise MeshError(f"{self._path}: the answer is longer than {self._most} bytes")
        return found

    def _on_event(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                self._told |= text(event.headers)
                self.begun = "grpc-status" not in self._told or self.begun
            case DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                self._heard += event.data or b""
            case WindowUpdated():
                self._send()
            case StreamReset() | ConnectionTerminated():
                if not self.ended:
                    raise Broken(f"{self._path}: the server has let the call go ({event.error_code!r})")
            case StreamEnded():
                self._check_status()
                self.ended = True

    def _send(self) -> None:
        while self._unsent:
            most = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if most <= 0:
                return
            end = self._last and most >= len(self._unsent)
            self._h2.send_data(self._stream, bytes(self._unsent[:most]), end_stream=end)
            del self._unsent[:most]

    def _check_status(self) -> None:
        status = self._told.get("grpc-status", "")
        if not status.isdecimal():
            http = self._told.get(":status", "?")
            raise MeshError(f"{self._path}: the answer (HTTP {http}) has no status of gRPC")
        if int(status) != OK:
            raise CallFailed(self._path, int(status), unquote(self._told.get("grpc-message", "")))


async def call(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    authority: str,
    path: str,
    message: bytes,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """One call with one message and its answer's. Raises as `Call.receive` does."""
    if len(message) > MOST_BYTES:
        raise MeshError(f"{path}: a message of {len(message)} bytes is longer than {MOST_BYTES}")
    asked = Call(authority, path, headers, most=MOST_BYTES)
    asked.say(message, last=True)
    answers: list[bytes] = []
    while not asked.ended:
        writer.write(asked.data_to_send())
        await writer.drain()
        answers += asked.receive(await reader.read(1 << 16))
    if len(answers) != 1:
        raise MeshError(f"{path}: one message was to be the answer, and {len(answers)} came")
    return answers[0]
