"""The time that certificates are judged and renewed by, as a parameter.

Rules: seconds; what waits for a time does so by `call_later`, so that a test's clock needs no sleeping.
Does not belong here: what is done when the time has come.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


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
        return time.time()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)
