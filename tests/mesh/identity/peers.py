"""Both ends of real TLS handshakes, in memory; and a clock that a test moves."""

import heapq
import itertools
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from netwarren.mesh.model import Identity

CLIENT = Identity("cluster.local", "default", "client")
SERVER = Identity("cluster.local", "default", "server")


@dataclass
class Pair:
    client: ssl.SSLObject
    server: ssl.SSLObject

    def send(self, data: bytes) -> bytes:
        """What the client wrote, as the server reads it."""
        self.client.write(data)
        return self.server.read(len(data))


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Pair:
    """Shake hands to the end on both sides; raises what the side raises that refuses first."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    pair = Pair(client.wrap_bio(down, up, session=session), server.wrap_bio(up, down, server_side=True))
    waiting = [pair.client, pair.server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return pair
    raise AssertionError("the handshake does not end")


@dataclass(order=True)
class ManualTimer:
    due: float
    order: int
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that stands still until `advance`; timers run in their order, each at its time."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._timers: list[ManualTimer] = []

    def now(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> ManualTimer:
        timer = ManualTimer(self._now + delay, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def pending(self) -> list[float]:
        """In how many seconds what is due, soonest first."""
        return [timer.due - self._now for timer in sorted(self._timers) if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._timers and self._timers[0].due <= end:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._now = max(self._now, timer.due)
                timer.callback()
        self._now = end
