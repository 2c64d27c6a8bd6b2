"""Content codings, decoded by the libraries that clients use."""

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from netwarren.mesh.telemetry.compression import encode, negotiate

BODY = b"istio_tcp_connections_opened_total 1\n" * 100

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
}


@pytest.mark.parametrize("coding", DECODERS)
def test_a_client_that_wants_one_coding_can_decode_it(coding: str) -> None:
    body, used = encode(BODY, coding)
    assert used == coding
    assert len(body) < len(BODY)
    assert DECODERS[coding](body) == BODY


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("compress", "identity"),
        ("compress, gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("deflate, gzip;q=1.0, *;q=0.5", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("br;q=0.001, gzip;q=0", "br"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, identity;q=0.9", "identity"),
        ("gzip;q=0.9, identity;q=0.5", "gzip"),
        ("gzip, identity;q=0", "gzip"),
        ("*", "identity"),
        ("gzip ; q=0.7 , br ; q=0.6", "gzip"),
        ("gzip;q=1.5", "identity"),
        ("gzip;q=", "identity"),
        ("gzip;q=nan", "identity"),
        ("gzip;level=9", "identity"),
        (",,;;,", "identity"),
        ("gzip;q=0.1234, br;q=0.1", "br"),
    ],
)
def test_the_coding_is_the_one_the_client_likes_best(accepted: str, coding: str) -> None:
    assert negotiate(accepted) == coding


def test_a_short_body_goes_as_it_is() -> None:
    assert encode(b"ready\n", "gzip") == (b"ready\n", "identity")
