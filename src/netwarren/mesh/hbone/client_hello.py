"""What a client's first message of TLS offers by ALPN, which `ssl` does not tell a server.

Rules: pure; nothing is judged but that the message is whole, and what cannot be read is left to OpenSSL to refuse.
Does not belong here: the handshake (see `tls`).

OpenSSL, as `ssl` has it, goes on without ALPN where it knows none of the protocols that are offered. A server is to
end the handshake there, with the alert no_application_protocol (RFC 7301, section 3.2), and rustls, which is
ztunnel's, does. Whoever offers nothing is served by both.
"""

_RECORD = 5  # bytes of a record's header (RFC 8446, section 5.1)
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_ALPN = 16
_MOST = 1 << 16  # bytes; OpenSSL takes less

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""The alert, fatal, as a record in plain text, before there are keys."""


class ClientHello:
    """A client's first message, as it comes. Bytes are looked at once, however small the pieces are."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> tuple[str, ...] | None:
        """The protocols that it offers, none if ALPN is not used; None while more of it is to come."""
        self._unread += data
        while self._unread:
            if self._unread[0] != _HANDSHAKE:
                return ()
            end = _RECORD + int.from_bytes(self._unread[3:_RECORD])
            if len(self._unread) < max(_RECORD, end):
                break
            self._message += self._unread[_RECORD:end]
            del self._unread[:end]
        message = self._message
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])) or len(message) + len(self._unread) > _MOST:
            return ()
        size = 4 + int.from_bytes(message[1:4])
        if len(message) < max(4, size):
            return None
        try:
            return _protocols(_Reader(bytes(message[4:size])))
        except (IndexError, UnicodeDecodeError):
            return ()


class _Reader:
    """Takes a message apart; raises `IndexError` where it is shorter than it says."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if size > len(self.data):
            raise IndexError("the message ends within a field")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Reader":
        """A field that begins with its length, in ``size`` bytes."""
        return _Reader(self.take(self.number(size)))


def _protocols(hello: _Reader) -> tuple[str, ...]:
    hello.take(2 + 32)  # version, random (RFC 8446, section 4.1.2)
    for size in (1, 2, 1):  # session, cipher suites, compression
        hello.vector(size)
    extensions = hello.vector(2)
    while extensions.data:
        kind = extensions.number(2)
        extension = extensions.vector(2)
        if kind == _ALPN:
            names, found = extension.vector(2), []
            while names.data:
                found.append(names.vector(1).data.decode("ascii"))
            return tuple(found)
    return ()
