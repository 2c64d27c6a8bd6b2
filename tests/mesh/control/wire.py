"""Protobuf's wire format read by the numbers of its fields, to compare messages with somebody else's schema."""

from typing import TypeAlias

Fields: TypeAlias = dict[int, list[int | bytes]]


def fields(data: bytes) -> Fields:
    """A message's values by number: integers, and bytes for all that has a length."""
    found: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        else:
            assert kind == 2
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        found.setdefault(number, []).append(value)
    return found


def inner(found: Fields, number: int, which: int = 0) -> Fields:
    """The fields of a message in a message."""
    value = found[number][which]
    assert isinstance(value, bytes)
    return fields(value)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
