"""One record of the log, and its line: plain, with tabs between its parts, or as a JSON object.

Rules: what is None is not in the line; addresses (`Bare`) stand without quotes in the plain format, text with them;
the order of the fields is theirs.
Does not belong here: which records there are and where they go (see `log`, `connection`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["trace", "debug", "info", "warn", "error"]
Format: TypeAlias = Literal["plain", "json"]
FieldValue: TypeAlias = "str | int | None"


class Bare(str):
    """Text that the plain format writes without quotes: an address."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Record:
    """Something that happened; ``time`` is in seconds since 1970, ``fields`` have no None, ``span`` is what it is a part of."""

    time: float
    level: Level
    target: str
    message: str
    fields: Mapping[str, str | int] = field(default_factory=dict)
    span: str = ""

    def matches(self, message: str, fields: Mapping[str, FieldValue]) -> bool:
        """Whether it is such a record; a field wanted as None, or as ``""``, must not be there."""
        return self.message == message and all(
            self.fields.get(name) == value if value not in (None, "") else name not in self.fields
            for name, value in fields.items()
        )


def plain(record: Record) -> str:
    """``time\\tlevel\\ttarget[:span]\\tmessage\\tk=v k="text"``, without the end of the line."""
    where = f"{record.target}:{record.span}" if record.span else record.target
    parts = [timestamp(record.time), record.level, where, _unbroken(record.message)]
    if record.fields:
        parts.append(" ".join([f"{name}={_plain_value(value)}" for name, value in record.fields.items()]))
    return "\t".join(parts)


def as_json(record: Record) -> str:
    """``{"level": ..., "time": ..., "scope": ..., fields..., "message": ...}`` without spaces between."""
    return json.dumps(
        {
            "level": record.level,
            "time": timestamp(record.time),
            "scope": record.target,
            **record.fields,
            "message": record.message,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


FORMATS: Mapping[Format, Callable[[Record], str]] = {"plain": plain, "json": as_json}


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the microsecond: ``2026-01-02T03:04:05.000600Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain_value(value: str | int) -> str:
    if isinstance(value, Bare):
        return _unbroken(value)
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _unbroken(text: str) -> str:
    # What a peer wrote must not look like two records, or like two parts of one.
    return text if text.isprintable() else _quoted(text)[1:-1]
