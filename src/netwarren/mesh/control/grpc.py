"""gRPC over HTTP/2 (grpc/grpc, ``doc/PROTOCOL-HTTP2.md``): what both ends of a call know of it.

Rules: messages are not compressed; how long they may be is said here.
Does not belong here: the ends (see `grpc_server`, `grpc_client`), what is said.
"""

import struct
from collections.abc import Iterable

from netwarren.errors import MeshError

MOST_BYTES = 60_000
"""Of a unary call's message and of its answer; it fits an HTTP/2 window as it is at first (65535)."""

MOST_STREAMED_BYTES = 200 << 20
"""Of a message on a stream, as for ztunnel: one that comes again names all that it knows."""

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 2, 3, 4
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14
"""Of grpc/grpc, ``doc/statuscodes.md``."""

_PREFIX = struct.Struct("!?I")  # compressed or not, length


def text(headers: Iterable[tuple[bytes, bytes]] | None) -> dict[str, str]:
    """Headers of HTTP/2 as text."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers or ()}


def framed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _PREFIX.pack(False, len(message)) + message


def announced(said: bytes | bytearray) -> int:
    """How long the first message of ``said`` says that it is; 0 while that has not come."""
    return int(_PREFIX.unpack_from(said)[1]) if len(said) >= _PREFIX.size else 0


def taken(said: bytearray) -> bytes | None:
    """The first message of a stream's, which is taken off; None while it is not whole."""
    if len(said) < _PREFIX.size:
        return None
    compressed, length = _PREFIX.unpack_from(said)
    if compressed:
        raise MeshError("the message is compressed, which was not offered")
    end = _PREFIX.size + length
    if len(said) < end:
        return None
    message = bytes(said[_PREFIX.size : end])
    del said[:end]
    return message


def unframed(data: bytes) -> bytes:
    """The one message that ``data`` is. Raises `MeshError`."""
    if len(data) < _PREFIX.size:
        raise MeshError(f"a message of gRPC has {_PREFIX.size} bytes before it; these are {len(data)}")
    compressed, length = _PREFIX.unpack_from(data)
    if compressed:
        raise MeshError("the message is compressed, which was not offered")
    if len(data) != _PREFIX.size + length:
        raise MeshError(f"one message of {length} bytes was announced, and {len(data) - _PREFIX.size} came")
    return data[_PREFIX.size :]
