"""The header of a DNS message, for answers that are nothing else; RFC 1035, section 4.1.1.

Rules: standard library alone, so that there is an answer also where dnspython is not installed.
Does not belong here: everything behind the header (see `wire`).
"""

import struct

FORMERR, SERVFAIL, NOTIMP, REFUSED = 1, 2, 4, 5

_HEADER = struct.Struct("!HHHHHH")
_QR = 0x8000
_KEPT = 0x7900  # the operation, and that recursion is wanted


def bare(data: bytes, rcode: int) -> bytes:
    """The answer ``rcode`` to the query ``data``, of at least 12 bytes, with all sections empty."""
    number, flags, *_counts = _HEADER.unpack_from(data)
    return _HEADER.pack(number, _QR | flags & _KEPT | rcode, 0, 0, 0, 0)


def is_query(data: bytes) -> bool:
    """Whether ``data`` has a header, and that of a question."""
    return len(data) >= _HEADER.size and not data[2] & 0x80
