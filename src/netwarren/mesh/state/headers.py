"""The texts that ride on a CONNECT: its authority, and the headers baggage, forwarded and traceparent.

Rules: as Istio's ztunnel writes them; what a peer sent is read leniently where a mistake costs only a label
(baggage, forwarded), and refused where it would decide where bytes go (authority, traceparent).
Does not belong here: HTTP/2 (see `mesh.hbone`), what is put into them (see `outbound`, `inbound`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import NamedTuple, Self, TypeAlias

from netwarren.errors import MeshError
from netwarren.mesh.model import SocketAddress, Workload

Headers: TypeAlias = Sequence[tuple[str, str]]

BAGGAGE = "baggage"
FORWARDED = "forwarded"
TRACEPARENT = "traceparent"
FORWARDED_NETWORK = "x-forwarded-network"
"""On the inner CONNECT of a double tunnel: the network that the client is in."""

_HOSTNAME = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_.*-]*[A-Za-z0-9_*.])?")
_DIGITS = re.compile(r"[0-9]{1,5}")
_PAIR = re.compile(r"""\s*([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))\s*(?:[;,]|$)""")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.IGNORECASE)


class HostPort(NamedTuple):
    """A hostname and a port; ``str()`` gives ``web.default.svc.cluster.local:80``."""

    hostname: str
    port: int

    def __str__(self) -> str:
        return f"{self.hostname}:{self.port}"


Authority: TypeAlias = SocketAddress | HostPort


def parse_authority(text: str) -> Authority:
    """What a CONNECT asks for: ``ip:port``, ``[v6]:port`` or ``hostname:port`` (RFC 9110, section 9.3.6).

    IPv6 addresses that carry an IPv4 one are given as that. Raises `MeshError` for anything else.
    """
    host, _, digits = text.rpartition(":")
    port = int(digits) if _DIGITS.fullmatch(digits) else 0
    if 0 < port < 65536:
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            address = ip_address(host[1:-1] if bracketed else host)
        except ValueError:
            if not bracketed and len(host) <= 253 and _HOSTNAME.fullmatch(host):
                return HostPort(host, port)
        else:
            if (address.version == 6) == bracketed and "%" not in host:
                mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
                return SocketAddress(mapped or address, port)
    raise MeshError(f"invalid CONNECT address {text}; one is written IP:PORT, [IPv6]:PORT or HOSTNAME:PORT")


@dataclass(frozen=True, slots=True)
class Baggage:
    """What a proxy tells the other side of the workload it speaks for; ``""`` where it does not say."""

    cluster: str = ""
    namespace: str = ""
    workload: str = ""
    service: str = ""
    version: str = ""
    region: str = ""
    zone: str = ""

    @classmethod
    def of(cls, workload: Workload) -> Self:
        return cls(
            workload.cluster_id,
            workload.namespace,
            workload.workload_name,
            workload.canonical_name,
            workload.canonical_revision,
            workload.locality.region,
            workload.locality.zone,
        )


_BAGGAGE = {
    "k8s.cluster.name": "cluster",
    "k8s.namespace.name": "namespace",
    "k8s.deployment.name": "workload",
    "k8s.cronjob.name": "workload",
    "k8s.pod.name": "workload",
    "k8s.job.name": "workload",
    "service.name": "service",
    "service.version": "version",
    "cloud.region": "region",
    "cloud.availability_zone": "zone",
}


def format_baggage(baggage: Baggage, workload_type: str) -> str:
    """The header's value, without what is not known; ``""`` if nothing is."""
    parts = (
        ("k8s.cluster.name", baggage.cluster),
        ("k8s.namespace.name", baggage.namespace),
        (f"k8s.{workload_type}.name", baggage.workload),
        ("service.name", baggage.service),
        ("service.version", baggage.version),
        ("cloud.region", baggage.region),
        ("cloud.availability_zone", baggage.zone),
    )
    return ",".join(f"{key}={value}" for key, value in parts if value)


def parse_baggage(values: Sequence[str]) -> Baggage:
    """What the header says, one value a header line; what it does not know it passes over."""
    found: dict[str, str] = {}
    for part in ",".join(values).split(","):
        key, equals, value = part.strip().partition("=")
        if equals and key in _BAGGAGE:
            found[_BAGGAGE[key]] = value.partition("=")[0]
    return replace(Baggage(), **found)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Whom a CONNECT is sent for, and the hostname of the service that it meant; None where it does not say."""

    client: SocketAddress | None = None
    host: str | None = None

    def __str__(self) -> str:
        parts = [f'for="{self.client}"'] if self.client is not None else []
        return ";".join(parts + ([f"host={self.host}"] if self.host else []))


def parse_forwarded(text: str) -> Forwarded:
    """The first ``for`` and ``host`` of the header (RFC 7239, section 4), as far as it can be read."""
    client: SocketAddress | None = None
    host: str | None = None
    at = 0
    while pair := _PAIR.match(text, at):
        at = pair.end()
        value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
        match pair[1].lower():
            case "host" if host is None:
                host = value or None
            case "for" if client is None:
                try:
                    authority = parse_authority(value)
                except MeshError:
                    continue
                client = authority if isinstance(authority, SocketAddress) else None
    return Forwarded(client, host)


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Which trace a connection belongs to, for log spans only (W3C Trace Context, section 3.2)."""

    trace_id: int
    parent_id: int
    version: int = 0
    flags: int = 0

    @classmethod
    def draw(cls, rng: Random) -> Self:
        """A new one, as each outbound connection gets."""
        return cls(rng.getrandbits(128), rng.getrandbits(64))

    @classmethod
    def parse(cls, text: str) -> Self:
        """What the header's value spells, which has 55 characters; raises `MeshError`."""
        found = _TRACEPARENT.fullmatch(text)
        if found is None:
            raise MeshError(
                f"{text[:80]!r} is no traceparent; one is written 00-{'h' * 32}-{'h' * 16}-00, in hex"
            )
        version, trace, parent, flags = (int(each, 16) for each in found.groups())
        return cls(trace, parent, version, flags)

    def __str__(self) -> str:
        return f"{self.version:02x}-{self.trace_id:032x}-{self.parent_id:016x}-{self.flags:02x}"


def values_of(headers: Headers, name: str) -> list[str]:
    """The values of the header lines called ``name``, which is in lower case."""
    return [value for key, value in headers if key.lower() == name]
