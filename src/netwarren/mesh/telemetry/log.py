"""The log of one proxy: keeps its latest records, writes them out where asked to, wakes who waits for one.

Rules: usable from any thread; what is below the level of its target is neither kept nor written; a stream that
cannot be written to does not disturb the proxy.
Does not belong here: a record's line (see `records`), waiting in a test (see `expect`).
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO, get_args

from netwarren.errors import MeshError
from netwarren.mesh.telemetry.changes import Changes
from netwarren.mesh.telemetry.records import FORMATS, FieldValue, Format, Level, Record

MOST_RECORDS = 10_000
"""Kept in memory; the oldest go."""

ACCESS = "access"
"""The target of the access log, which ztunnel calls so inside, too."""

_RANKS = {name: rank for rank, name in enumerate([*get_args(Level), "off"])}


def _inner_length(target: str) -> int:
    return len(target.removeprefix("ztunnel").removeprefix("::"))


class Levels:
    """From which level on each target's records count: ``info``, or ``info,access:debug,dns:off``.

    ``=`` stands for ``:`` as well, as in Rust's ``RUST_LOG``. A target means all within it (``xds``: ``xds::client``), and
    may be written as ztunnel calls it inside (``ztunnel::xds``); the longest that fits counts. Raises `MeshError` for a
    level that is none.
    """

    def __init__(self, text: str) -> None:
        self.everywhere = "info"
        self.targets: dict[str, str] = {}
        self.apply(text)

    def apply(self, text: str) -> None:
        """Change what ``text`` names, or nothing at all; a level without a target is that of all not named with it."""
        named: dict[str, str] = {}
        for part in text.split(","):
            target, _, level = part.strip().lower().replace("=", ":").rpartition(":")
            if level not in _RANKS:
                raise MeshError(f"{part!r} is no level of the log; levels are: {', '.join(_RANKS)}")
            named[target] = level
        before = {} if "" in named else self.targets
        self.everywhere = named.pop("", self.everywhere)
        self.targets = {**before, **named}

    def enabled(self, level: Level, target: str) -> bool:
        return _RANKS[level] >= _RANKS[self._wanted(target) if self.targets else self.everywhere]

    def _wanted(self, target: str) -> str:
        inside = target if target == ACCESS else f"ztunnel::{target}"
        fitting = [
            each
            for each in self.targets
            if any(f"{name}::".startswith(f"{each}::") for name in (target, inside))
        ]
        return self.targets[max(fitting, key=_inner_length)] if fitting else self.everywhere

    def __str__(self) -> str:
        return ",".join(
            [self.everywhere, *(f"{target}:{level}" for target, level in sorted(self.targets.items()))]
        )


class Log:
    """Where the proxy writes what happens; ``stream`` gets a line for each record."""

    def __init__(
        self,
        levels: str = "info",
        *,
        line_format: Format = "plain",
        stream: TextIO | None = None,
        most: int = MOST_RECORDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.changes = Changes()
        self.levels = Levels(levels)
        self.count = 0
        """Of all records there have been, the forgotten ones as well."""
        self._first_levels = levels
        self._line = FORMATS[line_format]
        self._stream = stream
        self._records: deque[Record] = deque(maxlen=most)
        self._now = now

    def __repr__(self) -> str:
        return f"<Log {self.levels}: {self.count} records>"

    def enabled(self, level: Level, target: str) -> bool:
        return self.levels.enabled(level, target)

    def write(
        self,
        level: Level,
        target: str,
        message: str,
        fields: Mapping[str, FieldValue] | None = None,
        *,
        span: str = "",
    ) -> None:
        """Record that something happened; fields that are None are left out."""
        if not self.levels.enabled(level, target):
            return
        present = {name: value for name, value in (fields or {}).items() if value is not None}
        record = Record(self._now(), level, target, message, present, span)
        with self.changes.lock:
            self._records.append(record)
            self.count += 1
        if (stream := self._stream) is not None:
            try:
                stream.write(self._line(record) + "\n")
            except (OSError, ValueError):
                self._stream = None  # closed, full or gone: the records in memory are still there
        if self.changes.wakers:
            self.changes.notify()

    def records(self, since: int = 0) -> list[Record]:
        """The records from the ``since``-th on (see `count`), of which the oldest may have been forgotten."""
        with self.changes.lock:
            forgotten = self.count - len(self._records)
            return list(self._records)[max(0, since - forgotten) :]

    def lines(self) -> list[str]:
        """The records as they are, or would be, written."""
        return [self._line(record) for record in self.records()]

    def set_levels(self, text: str | None, *, reset: bool = False) -> None:
        """Change levels as `Levels.apply` does; ``reset`` goes back to those at the start before.

        Raises `MeshError` for a level that is none, and has then changed nothing.
        """
        levels = Levels(self._first_levels if reset else str(self.levels))
        if text:
            levels.apply(text)
        self.levels = levels
