"""Content codings of HTTP (RFC 9110, section 8.4.1): which one a client wants, and coding with it.

Rules: pure; the client's greatest quality wins, among equals the one that packs best; without a coding that both
know a body goes as it is.
Does not belong here: serving (see `http`).
"""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping

import brotli  # type: ignore[import-untyped]
import zstandard

WORTHWHILE = 33
"""Bytes; of a shorter body no coding makes a shorter one."""

CODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: zstandard.ZstdCompressor(level=3).compress(body),  # RFC 8878
    "br": lambda body: bytes(brotli.compress(body, quality=4)),  # RFC 7932
    "gzip": lambda body: gzip.compress(body, compresslevel=6, mtime=0),  # RFC 1952
    "deflate": lambda body: zlib.compress(body, level=6),  # RFC 1950: zlib's wrapping, despite its name
}
"""By their names in HTTP, in the order of preference."""

_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def negotiate(accept_encoding: str) -> str:
    """The coding for a client that sent this ``Accept-Encoding``: a key of `CODERS`, or ``identity``.

    ``*`` names none that we would have to guess at; a part that is no part of that header counts for nothing.
    """
    qualities: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = [piece.strip() for piece in part.split(";")]
        quality = 1.0
        if parameters:
            match = _QUALITY.fullmatch(parameters[0])
            quality = float(match[1]) if match and len(parameters) == 1 else 0.0
        qualities["gzip" if name == "x-gzip" else name] = quality
    least = qualities.get("identity", 0.0)
    wanted = [name for name in CODERS if qualities.get(name, 0.0) > 0 and qualities[name] >= least]
    return max(wanted, key=lambda name: qualities[name], default="identity")


def encode(body: bytes, accept_encoding: str) -> tuple[bytes, str]:
    """``body`` for that client, and its coding."""
    coding = negotiate(accept_encoding) if len(body) >= WORTHWHILE else "identity"
    return (CODERS[coding](body) if coding != "identity" else body), coding
