"""Runs one HTTP/2 connection over TLS over a byte stream: the handshake, reading, writing, pings, the end.

Rules: one task for reading and one for writing; whatever way it ends, streams are told, tasks are gone and the
byte stream beneath is closed; the last words (GOAWAY, close_notify) get a second to be written, and a peer that
broke the protocol another one to read them.
Does not belong here: what a client asks for and a server answers (see `transport`).
"""

import asyncio
import ssl
from collections.abc import Callable

from netwarren.errors import MeshError
from netwarren.mesh.config import Http2Settings
from netwarren.mesh.failure import ProxyError
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.connection import Connection
from netwarren.mesh.hbone.events import (
    DataReceived,
    Event,
    StreamEnded,
    StreamWasReset,
    WindowOpened,
)
from netwarren.mesh.hbone.failure import ConnectionLost, Http2Failure, TlsFailure
from netwarren.mesh.hbone.headers import Role
from netwarren.mesh.hbone.stream import ByteStream
from netwarren.mesh.hbone.tls import TlsSession, Verify
from netwarren.mesh.hbone.tunnel_stream import TunnelStream

_READ = 256 << 10
# Bytes that may wait to be encrypted. Half of ztunnel's send buffer of a server: what is encrypted at once then is
# about one read of a copy, which stays in the processor's cache on its way (measured: a quarter faster).
_MOST_PENDING = 200_000
_TURN = 1 << 20  # bytes after which other tasks get their turn
_LAST_WORDS = 1.0  # seconds


class Session:
    """One connection and its streams. ``on_event`` gets the events that are not a stream's own, ``on_end`` the end.

    ``releasing``: it ends by itself when its last stream does.
    """

    def __init__(
        self,
        lower: ByteStream,
        tls: TlsSession,
        role: Role,
        settings: Http2Settings,
        *,
        on_event: Callable[[Event], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._lower = lower
        self.tls = tls
        self.connection = Connection(role, settings, self._loop.time())
        self.streams: dict[int, TunnelStream] = {}
        self.releasing = False
        self.failure: Exception | None = None
        self._on_event = on_event
        self._on_end = on_end
        self._awake = asyncio.Event()
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._ending: asyncio.Future[None] = self._loop.create_future()
        self._hurry = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, early: bytes) -> None:
        """Runs it from here on; ``early`` is plaintext that came with the end of the handshake."""
        self._task = self._loop.create_task(self._run(early))
        self._tick()

    @property
    def ended(self) -> bool:
        """Whether it carries nothing any more."""
        return self._ending.done() or self.connection.closed

    # --- for streams --------------------------------------------------------------------------------

    def open_stream_object(self, stream_id: int) -> TunnelStream:
        """The stream of that number, which is told what happens from here on."""
        stream = self.streams[stream_id] = TunnelStream(self, stream_id)
        return stream

    def wake(self) -> None:
        self._awake.set()

    async def room(self) -> None:
        while self.connection.pending > _MOST_PENDING and not self.ended:
            future = self._loop.create_future()
            self._waiting_for_room.append(future)
            await future

    def forget(self, stream_id: int) -> None:
        self.streams.pop(stream_id, None)
        self.end_if_done()

    # --- ending -------------------------------------------------------------------------------------

    def end_if_done(self) -> None:
        """Ends it if it is only kept for streams and has none."""
        drained = self.connection.drained or not self.connection.draining
        if self.releasing and drained and not self.streams:
            self.end()

    def end(self, failure: Exception | None = None, code: int = frames.NO_ERROR) -> None:
        """Ends it now: GOAWAY, and streams read that their connection is lost. May be called again.

        A ``failure`` that is the proxy's own decision (`ProxyError`) is what they read instead.
        """
        if not self._ending.done():
            self.failure = self.failure or failure
            self.connection.close(code)
            self._ending.set_result(None)
        else:
            self._hurry.set()

    async def wait_ended(self) -> None:
        """Returns when it has ended and all of it is gone."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # --- running ------------------------------------------------------------------------------------

    async def _run(self, early: bytes) -> None:
        reading = self._loop.create_task(self._read(early))
        writing = self._loop.create_task(self._write())
        try:
            await asyncio.wait({reading, writing, self._ending}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and not self._ending.done():
                # The peer takes nothing more; what it said before (an alert, a GOAWAY) tells why.
                await asyncio.wait(
                    {reading, self._ending}, timeout=_LAST_WORDS, return_when=asyncio.FIRST_COMPLETED
                )
            for task in (reading, writing):
                if task.done() and self.failure is None:
                    self.failure = _why(task.exception())
        finally:
            self.end()
            reading.cancel()
            self._tell_streams()
            self._awake.set()  # for the last words
            try:
                await asyncio.wait([writing], timeout=_LAST_WORDS)
            finally:
                said = writing.done() and not writing.cancelled() and writing.exception() is None
                writing.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)
                try:
                    if said and self._offended():
                        await self._linger()
                finally:
                    await self._lower.close()

    def _offended(self) -> bool:
        failure = self.failure
        if isinstance(failure, ConnectionLost) or not isinstance(failure, Http2Failure):
            return False
        return failure.code != frames.NO_ERROR

    async def _linger(self) -> None:
        """Let the peer read why it is sent away: what it still sends would have its end reset (RFC 9112, 9.6)."""

        async def read_on() -> None:
            await self._lower.write_eof()
            while await self._lower.read(_READ):
                await asyncio.sleep(0)

        waited = [self._loop.create_task(each) for each in (read_on(), self._hurry.wait())]
        try:
            await asyncio.wait(waited, timeout=_LAST_WORDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waited:
                task.cancel()
            await asyncio.gather(*waited, return_exceptions=True)

    def _tell_streams(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        told = self.failure
        if not isinstance(told, ProxyError):
            reason = f": {self.failure}" if self.failure else ""
            told = ConnectionLost(f"the connection of the tunnel ended{reason}")
            told.__cause__ = self.failure
        for stream in list(self.streams.values()):
            stream.feed_failure(told)
        self._wake_room()
        self._on_end()

    async def _read(self, early: bytes) -> None:
        turn = 0
        plaintext = early
        while True:
            if plaintext:
                self._handle(self.connection.receive(plaintext, self._loop.time()))
                if self.connection.pending:
                    self._awake.set()
            if self.tls.ended:
                raise ConnectionLost("closed by the peer")
            data = await self._lower.read(_READ)
            if not data:
                raise ConnectionLost("closed by the peer without close_notify")
            plaintext = self.tls.receive(data)
            turn += len(data)
            if turn > _TURN:
                turn = 0
                await asyncio.sleep(0)

    async def _write(self) -> None:
        while True:
            if not self.connection.pending:
                if self.connection.closed:
                    await _write_if_any(self._lower, self.tls.close())
                    return
                self._awake.clear()
                await self._awake.wait()
            out = self.tls.send(self.connection.take())
            self._wake_room()
            await _write_if_any(self._lower, out)

    def _wake_room(self) -> None:
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case DataReceived(stream_id, data):
                    if stream := self.streams.get(stream_id):
                        stream.feed(data)
                case StreamEnded(stream_id):
                    if stream := self.streams.get(stream_id):
                        stream.feed_end()
                case StreamWasReset(stream_id, code):
                    if stream := self.streams.get(stream_id):
                        stream.feed_reset(code)
                    self._on_event(event)
                case WindowOpened(0):
                    for stream in self.streams.values():
                        stream.feed_window()
                case WindowOpened(stream_id):
                    if stream := self.streams.get(stream_id):
                        stream.feed_window()
                case _:
                    self._on_event(event)
        if self.releasing:
            self.end_if_done()

    def _tick(self) -> None:
        if self.ended:
            return
        try:
            at = self.connection.tick(self._loop.time())
        except Exception as error:
            self.end(error)
            return
        self._awake.set()
        self._timer = self._loop.call_at(at, self._tick)


async def handshake(
    lower: ByteStream, context: ssl.SSLContext, *, server_side: bool, verify: Verify | None
) -> tuple[TlsSession, bytes]:
    """TLS over ``lower``: the session, and plaintext that came with the end of the handshake.

    Raises `TlsFailure` (the peer was told by an alert, or has gone) and what ``verify`` raises. Whatever it raises,
    ``lower`` is closed.
    """
    tls = TlsSession(context, server_side=server_side, verify=verify)
    try:
        await _write_if_any(lower, tls.start())
        early = b""
        while not tls.established:
            data = await lower.read(_READ)
            if not data:
                raise TlsFailure("tls error: the peer closed the connection during the handshake")
            try:
                early = tls.receive(data)
            finally:
                await _write_if_any(lower, tls.take())
        return tls, early
    except OSError as error:
        await lower.close()
        if isinstance(error, MeshError):  # of a tunnel beneath
            raise
        raise TlsFailure(f"tls error: {error.strerror or error} during the handshake") from error
    except BaseException:
        await lower.close()
        raise


def _why(error: BaseException | None) -> Exception | None:
    """What ended a connection, as an error of ours; the kernel's words for that the peer has gone are one, too."""
    if isinstance(error, OSError) and not isinstance(error, MeshError):
        lost = ConnectionLost(f"the peer has gone: {error.strerror or error}")
        lost.__cause__ = error
        return lost
    return error if isinstance(error, Exception) else None


async def _write_if_any(lower: ByteStream, data: bytes) -> None:
    if data:
        await lower.write(data)
