"""HTTP/2 frames told apart in a stream of bytes (RFC 9113, section 4), and those written that `h2` does not write.

Rules: DATA goes by as it comes, in pieces that are views of what was fed, and is never held back for its frame's
end; every other frame is handed on whole, and none may be larger than it needs to be.
Does not belong here: what frames mean (see `connection`).
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from netwarren.mesh.hbone.failure import Http2Failure

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# RFC 9113, section 6
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
PREFACE_KIND = -1

END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8

# RFC 9113, section 7
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

HEADER = 9
MOST_WINDOW = (1 << 31) - 1
_STREAM = (1 << 31) - 1


class Frame(NamedTuple):
    """Any frame but DATA; ``raw`` is all of it, with its header. The client's preface is one of `PREFACE_KIND`."""

    kind: int
    flags: int
    stream_id: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        return self.raw[HEADER:]


class DataPiece(NamedTuple):
    """Some of a DATA frame; ``counted`` bytes of the window were used for it (padding counts), ``ends`` the stream."""

    stream_id: int
    payload: memoryview
    counted: int
    ends: bool


class FrameSplitter:
    """Tells frames apart; ``most_data`` is the most that a DATA frame may carry, ``most_other`` any other frame."""

    def __init__(self, *, server: bool, most_data: int, most_other: int) -> None:
        self._most_data = most_data
        self._most_other = most_other
        self._partial = bytearray()
        self._awaits_preface = server
        self._need = len(PREFACE) if server else HEADER
        self._data_left = 0
        self._data_stream = 0
        self._data_ends = False

    def feed(self, data: bytes) -> Iterator[Frame | DataPiece]:
        """The frames that ``data`` completes and the DATA in it; raises `Http2Failure` at what is no frame."""
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._data_left:
                taken = min(self._data_left, end - at)
                self._data_left -= taken
                yield DataPiece(
                    self._data_stream, view[at : at + taken], taken, self._data_ends and not self._data_left
                )
                at += taken
                continue
            taken = min(self._need - len(self._partial), end - at)
            self._partial += view[at : at + taken]
            at += taken
            if self._awaits_preface and not PREFACE.startswith(self._partial):
                raise Http2Failure("what came is no HTTP/2 (RFC 9113, section 3.4)", PROTOCOL_ERROR)
            if len(self._partial) < self._need:
                return
            if self._need == HEADER and not self._awaits_preface:
                length, kind, flags, stream_id = _header(self._partial)
                self._refuse_too_long(kind, length)
                if kind == DATA and not flags & PADDED:
                    self._partial.clear()
                    if length:
                        self._data_left, self._data_stream = length, stream_id
                        self._data_ends = bool(flags & END_STREAM)
                    else:
                        yield DataPiece(stream_id, view[:0], 0, bool(flags & END_STREAM))
                    continue
                self._need += length
                if length:
                    continue
            yield self._whole()

    def _refuse_too_long(self, kind: int, length: int) -> None:
        most = self._most_data if kind == DATA else self._most_other
        if length > most:
            raise Http2Failure(
                f"a frame of type {kind} has {length} bytes, more than {most}", FRAME_SIZE_ERROR
            )

    def _whole(self) -> Frame | DataPiece:
        raw = bytes(self._partial)
        self._partial.clear()
        self._need = HEADER
        if self._awaits_preface:
            self._awaits_preface = False
            return Frame(PREFACE_KIND, 0, 0, raw)
        length, kind, flags, stream_id = _header(raw)
        if kind != DATA:
            return Frame(kind, flags, stream_id, raw)
        padding = raw[HEADER] if length else length
        if padding >= length:
            raise Http2Failure("a DATA frame has more padding than bytes", PROTOCOL_ERROR)
        payload = memoryview(raw)[HEADER + 1 : len(raw) - padding]
        return DataPiece(stream_id, payload, length, bool(flags & END_STREAM))


def _header(raw: bytes | bytearray) -> tuple[int, int, int, int]:
    high, low, kind, flags, stream_id = struct.unpack_from("!BHBBL", raw)
    return high << 16 | low, kind, flags, stream_id & _STREAM


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before ``length`` bytes of payload."""
    return struct.pack("!BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream_id)


def window_update(stream_id: int, increment: int) -> bytes:
    """``increment`` more bytes may be sent on a stream, or on the connection (0)."""
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + struct.pack("!L", increment)


def read_window_update(frame: Frame) -> int:
    """The increment; raises `Http2Failure` for one of 0 and for another size than four bytes."""
    if len(frame.payload) != 4:
        raise Http2Failure("a WINDOW_UPDATE has four bytes", FRAME_SIZE_ERROR)
    increment: int = struct.unpack("!L", frame.payload)[0] & MOST_WINDOW
    if not increment:
        raise Http2Failure("a WINDOW_UPDATE of 0", PROTOCOL_ERROR)
    return increment


def goaway(last_stream_id: int, code: int, detail: bytes = b"") -> bytes:
    """No stream above ``last_stream_id`` is or will be looked at; ``detail`` is for the peer's log."""
    return frame_header(8 + len(detail), GOAWAY, 0, 0) + struct.pack("!LL", last_stream_id, code) + detail


def read_goaway(frame: Frame) -> tuple[int, int, bytes]:
    """(last stream id, code, detail); raises `Http2Failure` if it is too short or on a stream."""
    if len(frame.payload) < 8:
        raise Http2Failure("a GOAWAY has eight bytes at least", FRAME_SIZE_ERROR)
    if frame.stream_id:
        raise Http2Failure("a GOAWAY on a stream", PROTOCOL_ERROR)
    last, code = struct.unpack_from("!LL", frame.payload)
    return last & _STREAM, code, frame.payload[8:]
