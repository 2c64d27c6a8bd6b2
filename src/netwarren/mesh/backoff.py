"""How long to wait before another attempt: longer after each failure, up to a most.

Rules: pure; chance is the caller's.
Does not belong here: what is attempted.
"""

import random


class Backoff:
    """Waits of ``first`` seconds, doubling to ``most``; each varied by the part ``jitter`` of it, up or down."""

    def __init__(
        self, first: float, most: float, *, jitter: float = 0.0, rng: random.Random | None = None
    ) -> None:
        self._first = self._next = first
        self._most = most
        self._jitter = jitter
        self._rng = rng if rng is not None else random.Random()

    def wait(self) -> float:
        """Seconds until the next attempt, after one that failed."""
        seconds, self._next = self._next, min(self._next * 2, self._most)
        return seconds * (1 + self._jitter * self._rng.uniform(-1, 1)) if self._jitter else seconds

    def reset(self) -> None:
        """After a success."""
        self._next = self._first
