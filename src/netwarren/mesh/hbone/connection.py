"""One end of an HTTP/2 connection that carries CONNECT tunnels: bytes and calls in, events and bytes out.

Rules: no I/O and no clock (``now`` is in seconds of any clock that does not go back); what is to be sent waits in
`take`; a peer that does what it must not gets a GOAWAY, and what it can make us keep is bounded.
Does not belong here: sockets, TLS, tasks (see `session`), what is tunnelled where.

`h2` does the headers (HPACK), settings, pings, resets and the states of streams. Three kinds of frames do not
reach it:

* DATA: `h2` copies each payload several times and holds a frame back until it is whole. Here it passes as views,
  with windows of our own (`windows`); `h2` is told of each stream's end only, by an empty DATA frame.
* WINDOW_UPDATE of open streams and of the connection, because the windows are ours.
* GOAWAY: after one in either direction `h2` lets no stream go on, where RFC 9113 (section 6.8) has them finish.
"""

from h2.events import (
    Event as H2Event,
)
from h2.events import (
    PingAckReceived,
    RemoteSettingsChanged,
    StreamReset,
)
from h2.events import (
    RequestReceived as H2Request,
)
from h2.events import (
    ResponseReceived as H2Response,
)
from h2.events import (
    StreamEnded as H2StreamEnded,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    Headers,
    RequestReceived,
    RequestRejected,
    ResponseReceived,
    StreamEnded,
    StreamWasReset,
    WindowOpened,
)
from netwarren.mesh.hbone.failure import ConnectionLost, Http2Failure, StreamGone
from netwarren.mesh.hbone.frames import DataPiece, Frame, FrameSplitter
from netwarren.mesh.hbone.headers import Role, begin, decoded, encoded, without_pseudo
from netwarren.mesh.hbone.windows import ReceiveWindow, SendWindow

_FIRST_WINDOW = 65535  # of a connection, before any WINDOW_UPDATE (RFC 9113, section 6.9.2)
_MOST_REPLIES = (
    64 << 10
)  # bytes of answers (to pings, settings, ...) that may wait for a peer that does not read
_REFUSAL = 32  # of them for a request that is answered no: HEADERS and RST_STREAM, about
_MOST_OFFENCES = 100  # streams that a client may reset unanswered, or open beyond the most (CVE-2023-44487)
_KEEPALIVE = b"alive..."
_DRAIN = b"drain..."


class _Stream:
    __slots__ = ("answered", "asked", "local_ended", "receiving", "remote_ended", "sending")

    def __init__(self, send_window: int, receive_window: int) -> None:
        self.sending = SendWindow(send_window)
        self.receiving = ReceiveWindow(receive_window)
        self.local_ended = False
        self.remote_ended = False
        self.answered = False
        self.asked = False  # by us, without an answer yet

    @property
    def open(self) -> bool:
        return not (self.local_ended and self.remote_ended)


class Connection:
    """One end of a connection; ``now`` is when pings begin to count.

    ``settings.connection_window`` is 65535 at least, with which HTTP/2 begins.

    ``pending`` bytes wait in `take`. ``going_away``: no new streams may be opened by us (a GOAWAY came).
    ``drained``: the peer has answered that it knows of `drain`; it opens no more streams.
    ``closed``: nothing is read or written any more but what `take` still holds.
    """

    def __init__(self, role: Role, settings: Http2Settings, now: float) -> None:
        self.role = role
        self.settings = settings
        self.pending = 0
        self.going_away = False
        self.draining = False
        self.drained = False
        self.closed = False
        self._out: list[bytes | memoryview] = []
        self._replies = 0
        self._offences = 0
        self._in_header_block = 0
        self._header_block_size = 0
        self._streams: dict[int, _Stream] = {}
        self._sending = SendWindow(_FIRST_WINDOW)
        self._receiving = ReceiveWindow(settings.connection_window)
        self._ping_at = now + settings.ping_interval
        self._pinged_at: float | None = None
        self._most_headers = settings.client_header_list if role == "client" else settings.server_header_list
        self._splitter = FrameSplitter(
            server=role == "server",
            most_data=settings.frame_size,
            most_other=max(self._most_headers, 16384),
        )
        self._h2 = begin(role, settings, self._most_headers)
        self._put_h2()
        if more := settings.connection_window - _FIRST_WINDOW:
            self._put(frames.window_update(0, more))

    # --- what is sent ------------------------------------------------------------------------------

    def take(self) -> bytes:
        """What is to be sent to the peer, in order."""
        out, self._out = self._out, []
        self.pending = self._replies = 0
        return b"".join(out)

    def _put(self, data: bytes | memoryview) -> None:
        if data:
            self._out.append(data)
            self.pending += len(data)

    def _put_h2(self) -> None:
        self._put(self._h2.data_to_send())

    @property
    def stream_count(self) -> int:
        """How many streams are open, in one direction at least."""
        return sum(1 for stream in self._streams.values() if stream.open)

    @property
    def most_streams(self) -> int:
        """How many streams the peer lets us open at a time."""
        return self._h2.remote_settings.max_concurrent_streams

    def open_stream(self, authority: str, headers: Headers) -> int:
        """Asks for a tunnel to ``authority`` (``:method`` and ``:authority`` only, RFC 9113, section 8.5).

        Raises `ConnectionLost` if the connection takes no new streams (any more), which another one may.
        """
        if self.closed or self.going_away or self.stream_count >= self.most_streams:
            raise ConnectionLost("the connection takes no more streams", frames.REFUSED_STREAM)
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(
                stream_id, [(":method", "CONNECT"), (":authority", authority), *encoded(headers)]
            )
        except H2Error as error:
            raise Http2Failure(f"no stream could be opened: {error}") from error
        self._put_h2()
        stream = self._streams[stream_id] = self._new_stream()
        stream.answered = True  # not ours to answer
        stream.asked = True
        return stream_id

    def respond(self, stream_id: int, status: int, headers: Headers = (), *, end: bool = False) -> None:
        """Answers a request; with ``end`` that is all there is, and what still comes from the client is not read.

        Raises `StreamGone` if the client has reset the stream meanwhile.
        """
        stream = self._of(stream_id)
        try:
            self._h2.send_headers(stream_id, [(":status", str(status)), *encoded(headers)], end_stream=end)
        except H2Error as error:
            raise StreamGone(f"the stream cannot be answered: {error}") from error
        self._put_h2()
        stream.answered = True
        self._offences = max(0, self._offences - 1)
        if end:
            self._replies += _REFUSAL
            stream.local_ended = True
            if stream.remote_ended:
                self._forget(stream_id)
            else:
                self.reset(stream_id, frames.NO_ERROR)

    def send(self, stream_id: int, data: bytes | memoryview) -> int:
        """Sends as much of ``data`` as the windows allow and returns how much; ``data`` must not change later."""
        stream = self._of(stream_id)
        if stream.local_ended:
            raise StreamGone("the stream was ended")
        most = min(len(data), stream.sending.available, self._sending.available)
        if most <= 0:
            return 0
        stream.sending.available -= most
        self._sending.available -= most
        size = min(self._h2.max_outbound_frame_size, self.settings.frame_size)
        if most <= size:
            self._put(frames.frame_header(most, frames.DATA, 0, stream_id))
            self._put(data if most == len(data) else memoryview(data)[:most])
            return most
        view = memoryview(data)
        for at in range(0, most, size):
            piece = view[at : min(at + size, most)]
            self._put(frames.frame_header(len(piece), frames.DATA, 0, stream_id))
            self._put(piece)
        return most

    def end(self, stream_id: int) -> None:
        """Half-closes: an empty DATA frame with END_STREAM. The peer may still send."""
        stream = self._of(stream_id)
        if stream.local_ended:
            return
        stream.local_ended = True
        self._h2.end_stream(stream_id)
        self._put_h2()
        self._forget_if_done(stream_id, stream)

    def reset(self, stream_id: int, code: int = frames.CANCEL) -> None:
        """Ends both directions now (RST_STREAM); nothing if the stream is gone already."""
        stream = self._streams.get(stream_id)
        if self.closed or stream is None:
            return
        if stream.open:
            self._h2.reset_stream(stream_id, code)
            self._put_h2()
        self._forget(stream_id)

    def consumed(self, stream_id: int, count: int) -> None:
        """The reader took ``count`` bytes of a stream: the peer may send as many more."""
        stream = self._streams.get(stream_id)
        if self.closed or stream is None:
            return
        if (increment := stream.receiving.consumed(count)) and not stream.remote_ended:
            self._put(frames.window_update(stream_id, increment))
        self._consumed_of_connection(count)
        self._forget_if_done(stream_id, stream)

    def _consumed_of_connection(self, count: int) -> None:
        if increment := self._receiving.consumed(count):
            self._put(frames.window_update(0, increment))

    def drain(self) -> None:
        """Says that no new streams are wanted, and lets those that are open finish (RFC 9113, section 6.8).

        First without a last stream, and a ping; what the client opened before it saw that is still taken. When
        the ping is answered the last stream is named.
        """
        if not (self.closed or self.draining):
            self.draining = True
            self._put(frames.goaway(frames.MOST_WINDOW, frames.NO_ERROR))
            self._h2.ping(_DRAIN)
            self._put_h2()

    def close(self, code: int = frames.NO_ERROR, detail: str = "") -> None:
        """Ends the connection with a GOAWAY; streams are gone."""
        if not self.closed:
            self.closed = True
            self._put(frames.goaway(self._h2.highest_inbound_stream_id, code, detail.encode()))
            self._streams.clear()

    def tick(self, now: float) -> float:
        """Sends the keepalive ping that is due; returns when to be called again.

        Raises `Http2Failure` (and has closed the connection) if one was not answered in time.
        """
        interval = self.settings.ping_interval
        if self._pinged_at is not None:
            deadline = self._pinged_at + self.settings.ping_timeout
            if now >= deadline:
                raise self._fail(
                    Http2Failure(f"a ping was not answered within {self.settings.ping_timeout:g} s", 0)
                )
            # It may be answered, and the next one due, before the deadline.
            return min(deadline, now + interval)
        if now >= self._ping_at and not self.closed:
            self._h2.ping(_KEEPALIVE)
            self._put_h2()
            self._pinged_at = now
            return now + min(interval, self.settings.ping_timeout)
        return self._ping_at

    # --- what is received ---------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What ``data`` means; the views in the events are of it.

        Raises `Http2Failure` after a GOAWAY was put in `take` where the peer breaks the protocol; events of
        the same ``data`` before that are lost, as the streams are.
        """
        events: list[Event] = []
        if self.closed:
            return events
        try:
            for part in self._splitter.feed(data):
                if isinstance(part, DataPiece):
                    self._receive_data(part, events)
                elif not self._receive_ours(part, events):
                    self._pass_to_h2(part.raw, events, now)
        except Http2Failure as error:
            raise self._fail(error) from None
        except H2Error as error:
            code = int(getattr(error, "error_code", None) or frames.PROTOCOL_ERROR)
            raise self._fail(Http2Failure(f"http2 error: {error}", code)) from error
        return events

    def _fail(self, error: Http2Failure) -> Http2Failure:
        self._h2.clear_outbound_data_buffer()  # h2's own GOAWAY, if it wrote one
        self.close(error.code, str(error))
        return error

    def _receive_data(self, piece: DataPiece, events: list[Event]) -> None:
        if self._in_header_block:
            raise Http2Failure("DATA between HEADERS and CONTINUATION", frames.PROTOCOL_ERROR)
        self._receiving.received(piece.counted)
        stream = self._streams.get(piece.stream_id)
        if stream is not None and stream.asked:
            raise Http2Failure("DATA before the answer", frames.PROTOCOL_ERROR)
        if stream is None or stream.remote_ended:
            # h2 knows whether it was reset (then the bytes just were on their way) or never open (an error).
            self._consumed_of_connection(piece.counted)
            self._tell_h2_of_data(piece.stream_id, piece.ends, events)
            return
        stream.receiving.received(piece.counted)
        if piece.payload:
            events.append(DataReceived(piece.stream_id, piece.payload))
        if padding := piece.counted - len(piece.payload):
            self.consumed(piece.stream_id, padding)
        if piece.ends:
            self._tell_h2_of_data(piece.stream_id, True, events)

    def _tell_h2_of_data(self, stream_id: int, ends: bool, events: list[Event]) -> None:
        flags = frames.END_STREAM if ends else 0
        self._pass_to_h2(frames.frame_header(0, frames.DATA, flags, stream_id), events, 0.0)

    def _receive_ours(self, frame: Frame, events: list[Event]) -> bool:
        if self._in_header_block or frame.kind in (frames.HEADERS, frames.CONTINUATION):
            self._bound_header_block(frame)
        elif frame.kind == frames.WINDOW_UPDATE:
            increment = frames.read_window_update(frame)
            if frame.stream_id == 0:
                self._sending.open(increment)
            elif stream := self._streams.get(frame.stream_id):
                stream.sending.open(increment)
            else:
                return False
            events.append(WindowOpened(frame.stream_id))
            return True
        elif frame.kind == frames.GOAWAY:
            last, code, detail = frames.read_goaway(frame)
            self.going_away = True
            for stream_id in [number for number in self._streams if number > last and self._ours(number)]:
                self._forget(stream_id)
                events.append(StreamWasReset(stream_id, frames.REFUSED_STREAM))
            events.append(GoAwayReceived(last, code, detail.decode("latin-1")))
            return True
        return False

    def _bound_header_block(self, frame: Frame) -> None:
        # h2 takes 64 CONTINUATION frames of the largest size before it decodes the first (CVE-2024-27316).
        self._header_block_size = self._header_block_size * bool(self._in_header_block) + len(frame.raw)
        if self._header_block_size > self._most_headers + 1024:
            raise Http2Failure("a header block is too large", frames.ENHANCE_YOUR_CALM)
        self._in_header_block = 0 if frame.flags & frames.END_HEADERS else 1

    def _pass_to_h2(self, raw: bytes, events: list[Event], now: float) -> None:
        for event in self._h2.receive_data(raw):
            self._translate(event, events, now)
        reply = self._h2.data_to_send()
        self._replies += len(reply)
        self._put(reply)
        if self._replies > _MOST_REPLIES:
            raise Http2Failure("the peer asks faster than it reads the answers", frames.ENHANCE_YOUR_CALM)

    def _translate(self, event: H2Event, events: list[Event], now: float) -> None:
        match event:
            case H2Request():
                self._receive_request(event, events)
            case H2Response():
                fields = decoded(event.headers)
                status = next((int(value) for name, value in fields if name == ":status"), 0)
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.asked = False
                    self._ignore_content_length(event.stream_id)
                    ended = event.stream_ended is not None
                    events.append(ResponseReceived(event.stream_id, status, without_pseudo(fields), ended))
            case H2StreamEnded(stream_id=int(stream_id)):
                if stream := self._streams.get(stream_id):
                    stream.remote_ended = True
                    events.append(StreamEnded(stream_id))
                    self._forget_if_done(stream_id, stream)
            case StreamReset(stream_id=int(stream_id)):
                self._receive_reset(stream_id, int(event.error_code or 0), events)
            case PingAckReceived():
                self._receive_pong(event.ping_data or b"", now)
            case RemoteSettingsChanged():
                window = event.changed_settings.get(SettingCodes.INITIAL_WINDOW_SIZE)
                if window is not None:
                    for stream in self._streams.values():
                        stream.sending.open(window.new_value - (window.original_value or 0))
                    events.append(WindowOpened(0))

    def _receive_request(self, event: H2Request, events: list[Event]) -> None:
        assert event.stream_id is not None
        fields = decoded(event.headers)
        pseudo = {name: value for name, value in fields if name.startswith(":")}
        stream = self._new_stream()
        stream.remote_ended = event.stream_ended is not None
        if self.stream_count >= self.settings.server_max_streams:
            self._streams[event.stream_id] = stream
            self.reset(event.stream_id, frames.REFUSED_STREAM)
            self._offend()
            return
        self._streams[event.stream_id] = stream
        method = pseudo.get(":method", "")
        if ":protocol" in pseudo:
            method = f"{method} for {pseudo[':protocol']}"
        if method != "CONNECT" or not pseudo.get(":authority"):
            self.respond(event.stream_id, 400, end=True)
            events.append(RequestRejected(event.stream_id, method))
            return
        self._ignore_content_length(event.stream_id)
        stream.remote_ended = False  # told by the event of its own that follows
        events.append(RequestReceived(event.stream_id, pseudo[":authority"], without_pseudo(fields)))

    def _ignore_content_length(self, stream_id: int) -> None:
        # h2 compares it with DATA that does not reach it. It means nothing to a CONNECT (RFC 9110, 9.3.6), and a
        # refusal's body is not read.
        if (known := self._h2.streams.get(stream_id)) is not None:
            known._expected_content_length = None

    def _receive_reset(self, stream_id: int, code: int, events: list[Event]) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if not stream.answered:
            self._offend()
        # What was read of it before stays readable, and counts until then.
        stream.local_ended = stream.remote_ended = True
        events.append(StreamWasReset(stream_id, code))
        self._forget_if_done(stream_id, stream)

    def _offend(self) -> None:
        self._offences += 1
        if self._offences > _MOST_OFFENCES:
            raise Http2Failure("the peer opens streams only to have them reset", frames.ENHANCE_YOUR_CALM)

    def _receive_pong(self, payload: bytes, now: float) -> None:
        if payload == _KEEPALIVE and self._pinged_at is not None:
            self._ping_at = max(now, self._pinged_at + self.settings.ping_interval)
            self._pinged_at = None
        elif payload == _DRAIN and self.draining:
            self.drained = True
            self._put(frames.goaway(self._h2.highest_inbound_stream_id, frames.NO_ERROR))

    # --- streams ----------------------------------------------------------------------------------

    def _new_stream(self) -> _Stream:
        return _Stream(self._h2.remote_settings.initial_window_size, self.settings.stream_window)

    def _of(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise StreamGone("the stream is gone")
        return stream

    def _ours(self, stream_id: int) -> bool:
        return stream_id % 2 == (1 if self.role == "client" else 0)

    def _forget_if_done(self, stream_id: int, stream: _Stream) -> None:
        if not stream.open and not stream.receiving.unread:
            self._streams.pop(stream_id, None)

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.receiving.unread:
            self._consumed_of_connection(stream.receiving.unread)
