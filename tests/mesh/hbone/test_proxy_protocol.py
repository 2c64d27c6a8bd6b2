"""PROXY protocol version 2."""

from ipaddress import ip_address

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.hbone.proxy_protocol import ProxyHeader, decode, encode
from netwarren.mesh.model import SocketAddress

IDENTITY = "spiffe://cluster.local/ns/default/sa/client"


def header(source: str, destination: str, identity: str | None = None) -> ProxyHeader:
    return ProxyHeader(
        SocketAddress(ip_address(source), 4000), SocketAddress(ip_address(destination), 80), identity
    )


def test_ipv4_has_the_bytes_of_the_specification() -> None:
    assert encode(header("10.0.0.1", "10.0.0.2", "ab")) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a211100110a0000010a0000020fa00050d000026162"
    )


@pytest.mark.parametrize("identity", [None, IDENTITY])
@pytest.mark.parametrize(("source", "destination"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_a_header_is_read_back_and_what_follows_is_left(
    source: str, destination: str, identity: str | None
) -> None:
    written = header(source, destination, identity)
    data = encode(written)
    assert decode(data + b"GET /") == (written, len(data))


def test_two_families_are_written_as_ipv6() -> None:
    decoded = decode(encode(header("10.0.0.1", "fd00::2")))
    assert decoded is not None
    assert decoded[0].source.address == ip_address("::ffff:10.0.0.1")


def test_part_of_a_header_wants_more() -> None:
    data = encode(header("fd00::1", "fd00::2", IDENTITY))
    assert all(decode(data[:length]) is None for length in range(len(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1",
        encode(header("10.0.0.1", "10.0.0.2"))[:12] + b"\x20\x11\0\0",
        encode(header("10.0.0.1", "10.0.0.2"))[:12] + b"\x21\x11\0\4abcd",
        encode(header("10.0.0.1", "10.0.0.2"))[:12] + b"\x21\x11\0\x0f" + bytes(12) + b"\xd0\0\5",
    ],
    ids=["HTTP", "LOCAL", "too short", "TLV cut off"],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(MeshError):
        decode(data)
