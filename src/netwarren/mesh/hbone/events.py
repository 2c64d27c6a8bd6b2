"""What happens on an HTTP/2 connection of tunnels, as data.

Rules: frozen; header names and values are str (one character a byte, ISO 8859-1), without pseudo-headers.
Does not belong here: doing something about it (see `session`).
"""

from typing import NamedTuple, TypeAlias

Headers: TypeAlias = tuple[tuple[str, str], ...]


class RequestReceived(NamedTuple):
    """The peer asks for a tunnel to ``authority``, which is as it wrote it."""

    stream_id: int
    authority: str
    headers: Headers


class RequestRejected(NamedTuple):
    """A request that is no CONNECT, or one to nothing, was answered with 400.

    ``method`` tells them apart: that of a CONNECT for a protocol (RFC 8441) names it.
    """

    stream_id: int
    method: str


class ResponseReceived(NamedTuple):
    """The peer's answer; ``ended`` if nothing follows it."""

    stream_id: int
    status: int
    headers: Headers
    ended: bool


class DataReceived(NamedTuple):
    """Bytes of a tunnel: a view of what `Connection.receive` was given."""

    stream_id: int
    data: memoryview


class StreamEnded(NamedTuple):
    """The peer sends no more on this stream; it may still read."""

    stream_id: int


class StreamWasReset(NamedTuple):
    """Neither side sends any more on this stream; NO_ERROR and CANCEL are an end, other codes an error."""

    stream_id: int
    code: int


class WindowOpened(NamedTuple):
    """More may be sent: on this stream, or on all of them (0)."""

    stream_id: int


class GoAwayReceived(NamedTuple):
    """The peer takes no new streams, and none above ``last_stream_id``, which were reset."""

    last_stream_id: int
    code: int
    detail: str


Event: TypeAlias = (
    RequestReceived
    | RequestRejected
    | ResponseReceived
    | DataReceived
    | StreamEnded
    | StreamWasReset
    | WindowOpened
    | GoAwayReceived
)
