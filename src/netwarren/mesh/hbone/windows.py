"""HTTP/2 flow control (RFC 9113, section 5.2): what may be sent, and what the other side may send.

Rules: counts only; a window for sending may become negative by the peer's settings; bytes are given back to the
peer when they were consumed, in quarters of the window, so that one WINDOW_UPDATE serves many frames.
Does not belong here: frames.
"""

from netwarren.mesh.hbone.failure import Http2Failure
from netwarren.mesh.hbone.frames import FLOW_CONTROL_ERROR, MOST_WINDOW


class SendWindow:
    """``available`` bytes may be sent."""

    __slots__ = ("available",)

    def __init__(self, available: int) -> None:
        self.available = available

    def open(self, increment: int) -> None:
        """Raises `Http2Failure` where the window would pass 2^31 - 1."""
        self.available += increment
        if self.available > MOST_WINDOW:
            raise Http2Failure("the peer opened a window beyond 2^31 - 1", FLOW_CONTROL_ERROR)


class ReceiveWindow:
    """The peer may send ``available`` bytes; ``unread`` of those it sent are not consumed yet."""

    __slots__ = ("_size", "_unacknowledged", "available", "unread")

    def __init__(self, size: int) -> None:
        self._size = size
        self.available = size
        self.unread = 0
        self._unacknowledged = 0

    def received(self, count: int) -> None:
        """Raises `Http2Failure` where the peer sent more than it may."""
        if count > self.available:
            raise Http2Failure("the peer sent more than its window", FLOW_CONTROL_ERROR)
        self.available -= count
        self.unread += count

    def consumed(self, count: int) -> int:
        """By how much the peer's window is to be opened now, 0 for not yet."""
        self.unread -= count
        self._unacknowledged += count
        if self._unacknowledged * 4 < self._size:
            return 0
        increment, self._unacknowledged = self._unacknowledged, 0
        self.available += increment
        return increment
