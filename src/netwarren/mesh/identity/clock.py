"""The time that certificates are judged and renewed by, as a parameter.

Rules: seconds; what waits for a time does so by `call_later`, so that a test's clock needs no sleeping.
Does not belong here: what is done when the time has come.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

_OF_THE_LAST_TICK = 5  # CLOCK_REALTIME_COARSE of linux/time.h, which Python has no name for


def now() -> float:
    """What time it is, for certificates: seconds since 1970, some milliseconds behind `time.time`.

    It is the clock of time(2), by which OpenSSL and others verify: to them, what begins by a clock that is ahead
    of it is not valid yet, for a moment after each full second.
    """
    return time.clock_gettime(_OF_THE_LAST_TICK)


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What time it is (seconds since 1970, as certificates count), and calls at a later time."""

    def now(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class WallClock:
    """The machine's time, and the timers of the loop that runs."""

    def now(self) -> float:
        return now()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)
