"""One tunnel of an HTTP/2 connection as a byte stream.

Rules: bytes are given back to the peer's window when they were read, not when they came, so that who does not read
holds up itself and not its connection; a reset with NO_ERROR or CANCEL is an end.
Does not belong here: what runs the connection (see `session`).
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from netwarren.mesh.failure import ProxyError
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.chunks import Chunks
from netwarren.mesh.hbone.connection import Connection
from netwarren.mesh.hbone.failure import Http2Failure, StreamGone, StreamReset

_ENDS = (frames.NO_ERROR, frames.CANCEL)


class Carrier(Protocol):
    """What a stream needs of what runs its connection."""

    @property
    def connection(self) -> Connection: ...

    def wake(self) -> None:
        """There is something to send."""

    async def room(self) -> None:
        """Returns when what waits to be sent is not too much."""

    def forget(self, stream_id: int) -> None:
        """The stream is not used any more."""


class TunnelStream:
    """A `ByteStream` within a connection; ``stream_id`` is its number there.

    ``on_cut`` is called when the proxy itself ends the connection, whatever the stream's user waits for then.
    """

    def __init__(self, carrier: Carrier, stream_id: int) -> None:
        self.stream_id = stream_id
        self._carrier = carrier
        self._chunks = Chunks()
        self._ended = False
        self._failure: Exception | None = None
        self._gone = False  # nothing can be written: reset, lost or closed
        self._closed = False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.on_cut: Callable[[ProxyError], None] | None = None

    async def read(self, most: int) -> bytes:
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._readable = asyncio.get_running_loop().create_future()
            try:
                await self._readable
            finally:
                self._readable = None
        data = self._chunks.pop(most)
        connection = self._carrier.connection
        connection.consumed(self.stream_id, len(data))
        if connection.pending:
            self._carrier.wake()
        return data

    async def write(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            self._refuse_if_gone()
            sent = self._carrier.connection.send(self.stream_id, rest)
            if sent:
                self._carrier.wake()
                await self._carrier.room()
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            if not sent:
                self._writable = asyncio.get_running_loop().create_future()
                try:
                    await self._writable
                finally:
                    self._writable = None

    async def write_eof(self) -> None:
        self._refuse_if_gone()
        self._carrier.connection.end(self.stream_id)
        self._carrier.wake()

    def _refuse_if_gone(self) -> None:
        if self._gone:
            raise self._failure or StreamGone("the peer takes no more of this stream")

    def abort(self) -> None:
        """RST_STREAM with CANCEL."""
        self._let_go(frames.CANCEL)

    async def close(self) -> None:
        """Ends what was not ended: with END_STREAM, and RST_STREAM if the peer may still send."""
        if not (self._closed or self._gone):
            try:
                self._carrier.connection.end(self.stream_id)
            except Http2Failure:
                pass
        self._let_go(frames.NO_ERROR if self._carrier.connection.role == "server" else frames.CANCEL)

    def _let_go(self, code: int) -> None:
        if self._closed:
            return
        self._closed = self._gone = True
        self._chunks.clear()
        self._carrier.connection.reset(self.stream_id, code)
        self._fail(StreamGone("the stream was closed"))
        self._carrier.forget(self.stream_id)
        self._carrier.wake()

    # --- told by what runs the connection -----------------------------------------------------------

    def feed(self, data: memoryview) -> None:
        """More bytes of the peer."""
        if self._closed:
            return
        self._chunks.push(data)
        _set(self._readable)

    def feed_end(self) -> None:
        """The peer sends no more."""
        self._ended = True
        _set(self._readable)

    def feed_reset(self, code: int) -> None:
        """The peer reset the stream."""
        self._gone = True
        if code in _ENDS:
            self.feed_end()
            _set(self._writable)
        else:
            self._fail(StreamReset(f"the peer reset the stream: {error_name(code)}", code))

    def feed_failure(self, error: Exception) -> None:
        """The connection is gone; what came before can still be read."""
        self._gone = True
        if isinstance(error, ProxyError):
            self._fail(error)
            if self.on_cut is not None:
                self.on_cut(error)
        elif not self._ended:
            self._fail(error)
        _set(self._writable)

    def feed_window(self) -> None:
        """More may be written."""
        _set(self._writable)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        _set(self._readable)
        _set(self._writable)


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def error_name(code: int) -> str:
    """The name of an HTTP/2 error code: ``error_name(8) == "CANCEL"``."""
    from h2.errors import ErrorCodes

    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
