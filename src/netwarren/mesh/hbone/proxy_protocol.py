"""PROXY protocol version 2: who a connection is from, before its first byte (haproxy's doc/proxy-protocol.txt).

Rules: TCP over IPv4 or IPv6 and the command PROXY only; the source's SPIFFE identity goes in a TLV of type 0xD0,
as ztunnel writes it.
Does not belong here: when a header is written.
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from netwarren.errors import MeshError
from netwarren.mesh.model import SocketAddress

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
IDENTITY_TLV = 0xD0

_PROXY = 0x21  # version 2, command PROXY
_STREAM = {4: 0x11, 6: 0x21}  # address family and SOCK_STREAM
_FAMILY_OF = {0x11: (IPv4Address, 4), 0x21: (IPv6Address, 16)}
_FIXED = 16


class ProxyHeader(NamedTuple):
    """Who connects, to where, and as whom: ``identity`` is a SPIFFE URI, None if there is none."""

    source: SocketAddress
    destination: SocketAddress
    identity: str | None = None


def encode(header: ProxyHeader) -> bytes:
    """The header's bytes. IPv4 is written as a mapped address where only one side is IPv6 (RFC 4291, 2.5.5.2)."""
    source, destination = header.source.address, header.destination.address
    if source.version != destination.version:
        source, destination = _as_ipv6(source), _as_ipv6(destination)
    body = source.packed + destination.packed
    body += struct.pack("!HH", header.source.port, header.destination.port)
    if header.identity is not None:
        value = header.identity.encode()
        body += struct.pack("!BH", IDENTITY_TLV, len(value)) + value
    return SIGNATURE + struct.pack("!BBH", _PROXY, _STREAM[source.version], len(body)) + body


def decode(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header that ``data`` begins with and its length in bytes; None if more is needed to tell.

    TLVs of other types are skipped. Raises `MeshError` for what is no such header.
    """
    if not data.startswith(SIGNATURE[: len(data)]):
        raise MeshError(f"no PROXY protocol version 2: it begins with {data[:12]!r}")
    if len(data) < _FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command != _PROXY or family not in _FAMILY_OF:
        raise MeshError(f"a PROXY header of command {command:#x} and family {family:#x}, not of TCP")
    if len(data) < _FIXED + length:
        return None
    _, size = _FAMILY_OF[family]
    body = data[_FIXED : _FIXED + length]
    if length < 2 * size + 4:
        raise MeshError(f"a PROXY header of {length} bytes, too few for its addresses")
    ports = struct.unpack_from("!HH", body, 2 * size)
    header = ProxyHeader(
        SocketAddress(ip_address(body[:size]), ports[0]),
        SocketAddress(ip_address(body[size : 2 * size]), ports[1]),
        _identity(body[2 * size + 4 :]),
    )
    return header, _FIXED + length


def _identity(tlvs: bytes) -> str | None:
    at = 0
    found = None
    while at < len(tlvs):
        if len(tlvs) - at < 3:
            raise MeshError("a PROXY header ends within a TLV")
        kind, length = struct.unpack_from("!BH", tlvs, at)
        value = tlvs[at + 3 : at + 3 + length]
        if len(value) < length:
            raise MeshError("a PROXY header ends within a TLV")
        if kind == IDENTITY_TLV:
            found = value.decode("utf-8", "replace")
        at += 3 + length
    return found


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if address.version == 6 else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
