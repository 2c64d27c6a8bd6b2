"""Egress: what of the outside a cluster's pods may reach, as data, and where a connection of theirs goes.

Rules: nothing is open that is not named; what is within the cluster is never outside; what a user wrote is
kept, for messages and reports.
Does not belong here: looking names up, rules of the kernel, connections.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from netwarren.errors import AddressError, ConfigurationError
from netwarren.topology.addresses import (
    Address,
    Family,
    Network,
    default_network,
    family_of,
    host_network,
    parse_address,
    parse_network,
)

EgressArgument: TypeAlias = str | Iterable[str] | None

_LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_REMEDY = (
    "write a port of the host's loopback ('localhost:5432', '127.0.0.1:5432'), an address or range outside with "
    "or without a port ('10.1.2.3:443', '10.1.2.0/24', '[2001:db8::1]:443'), a host name with a port "
    "('example.com:443'), or '*' for everything outside"
)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host's own loopback, which pods dial at the root's bridge address.

    ``addresses`` are the loopback addresses to try in turn; ``localhost`` is 127.0.0.1, then ::1.
    """

    text: str
    addresses: tuple[Address, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses outside, dialled as they are; ``port`` is None where all are open."""

    text: str
    network: Network
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A host name, which opens the addresses that it resolves to on the host."""

    text: str
    name: str
    port: int


Opening: TypeAlias = HostPort | Range | Name


class Way(NamedTuple):
    """Where a connection goes on the host: to the first of ``addresses`` that takes it, at ``port``."""

    opening: Opening
    addresses: tuple[Address, ...]
    port: int


# --- reading what a user wrote --------------------------------------------------------------------


def parse_egress(value: EgressArgument) -> tuple[Opening, ...]:
    """``egress=`` as openings, in the order given and each once; raises `ConfigurationError`."""
    if value is None:
        return ()
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"egress={value!r} is no text; {_REMEDY}")
    texts = [value] if isinstance(value, str) else list(value)
    found: dict[Opening, None] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ConfigurationError(f"egress={value!r} has {text!r}, which is no text; {_REMEDY}")
        found.update(dict.fromkeys(_parse(text)))
    ports: dict[int, HostPort] = {}
    for opening in found:
        if isinstance(opening, HostPort):
            other = ports.setdefault(opening.port, opening)
            if other.addresses != opening.addresses:
                raise ConfigurationError(
                    f"egress names two of the host's ports {opening.port}, {other.text} and {opening.text}, and "
                    "pods have one address to dial for both; name one of them"
                )
    return tuple(found)


def _parse(text: str) -> list[Opening]:
    host, port = _split(text)
    if host == "*":
        return [Range(text, default_network(4), port), Range(text, default_network(6), port)]
    if host == "localhost":
        if port is None:
            raise _wrong(text, "names no port, and of the host's loopback only single ports are opened")
        return [HostPort(text, _LOOPBACK, port)]
    if _is_numeric(host):
        return [_parse_range(text, host, port)]
    name = host.lower().removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise _wrong(text, "is neither an address nor a host name (RFC 1123)")
    if port is None:
        raise _wrong(text, "names no port")
    return [Name(text, name, port)]


def _parse_range(text: str, host: str, port: int | None) -> Opening:
    try:
        network = parse_network(host) if "/" in host else host_network(parse_address(host))
    except AddressError as error:
        raise ConfigurationError(f"egress={text!r}: {error}") from None
    if network.prefixlen and network.is_loopback:
        if port is None or network.prefixlen < network.max_prefixlen:
            raise _wrong(
                text, "is more than one port of the host's loopback, of which only single ports are opened"
            )
        return HostPort(text, (network.network_address,), port)
    if network.prefixlen and network.is_multicast:
        raise _wrong(text, "is multicast, which is not forwarded")
    if network.prefixlen == network.max_prefixlen and network.network_address.is_unspecified:
        raise _wrong(text, "is nobody's address")
    return Range(text, network, port)


def _split(text: str) -> tuple[str, int | None]:
    """Host and port: ``a:1``, ``[a]:1``, ``[a]``, ``a``; an IPv6 address without brackets has no port."""
    found = re.fullmatch(r"\[([^\[\]]+)\](/\d+)?(?::(.*))?", text)
    if found:
        host, port = found[1] + (found[2] or ""), found[3]
        if ":" not in host:
            raise _wrong(text, "has brackets around something else than an IPv6 address")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, None
    if not host or host != host.strip():
        raise _wrong(text, "names no host")
    if port is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise _wrong(text, f"has {port!r} for a port, which is a number from 1 to 65535")
    return host, int(port)


def _is_numeric(host: str) -> bool:
    """Whether this is meant as an address: no name of a host ends with a label of digits (RFC 3696, 2)."""
    return ":" in host or "/" in host or host.rstrip(".").rpartition(".")[2].isdigit()


def _wrong(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"egress={text!r} {why}; {_REMEDY}")


# --- what is open in one cluster ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Egress:
    """The openings of one cluster: ``bridge`` is what the root has, ``inside`` what is never outside."""

    openings: tuple[Opening, ...]
    bridge: tuple[Address, ...]
    inside: tuple[Network, ...]

    @classmethod
    def choose(
        cls, openings: Sequence[Opening], bridge: Iterable[Address], inside: Iterable[Network]
    ) -> "Egress":
        """For a cluster with these addresses; raises `ConfigurationError` for what it could never open.

        Of ``"*"``, a family that the cluster does not have is left out.
        """
        bridge, inside = tuple(bridge), tuple(inside)
        families = {family_of(address) for address in bridge}
        kept: list[Opening] = []
        for opening in openings:
            if isinstance(opening, Range):
                family = family_of(opening.network)
                if family not in families:
                    if not opening.network.prefixlen:
                        continue
                    raise ConfigurationError(
                        f"egress={opening.text!r} is IPv{family}, which this cluster does not have; make the "
                        f"cluster with families that include 'ipv{family}'"
                    )
                for network in inside:
                    if _within(opening.network, network):
                        raise ConfigurationError(
                            f"egress={opening.text!r} is in {network}, which is the cluster's own; make the "
                            "cluster with other ranges (pod_range, node_range)"
                        )
            kept.append(opening)
        return cls(tuple(kept), bridge, inside)

    def catches(self) -> list[tuple[Network, int | None]]:
        """What the kernel hands to us: networks and ports, None for all; the host's ports first."""
        own = [host_network(address) for address in self.bridge]
        ports = [opening.port for opening in self.openings if isinstance(opening, HostPort)]
        found: list[tuple[Network, int | None]] = [(network, port) for port in ports for network in own]
        found += [(each.network, each.port) for each in self.openings if isinstance(each, Range)]
        return list(dict.fromkeys(found))

    def way(self, address: Address, port: int) -> Way | None:
        """Where a connection to ``address`` and ``port`` goes on the host, or None where it goes nowhere."""
        at_host = address in self.bridge
        if not at_host and self._has(address):
            return None
        for opening in self.openings:
            match opening:
                case HostPort() if at_host and opening.port == port:
                    return Way(opening, opening.addresses, port)
                case Range(network=network) if not at_host and opening.port in (None, port):
                    if address in network:
                        return Way(opening, (address,), port)
        return None

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self.inside)

    def ports_of(self, name: str) -> tuple[Name, ...] | None:
        """The openings of a host name; empty where ``"*"`` covers it; None where nothing of it is open."""
        wanted = name.lower().removesuffix(".")
        named = tuple(each for each in self.openings if isinstance(each, Name) and each.name == wanted)
        everything = any(isinstance(each, Range) and not each.network.prefixlen for each in self.openings)
        return named if named or everything else None

    def resolved(self, named: Iterable[Name], addresses: Iterable[Address]) -> "Egress":
        """With the addresses opened that a name turned out to have; loopback ones as ports of the host."""
        more: dict[Opening, None] = {}
        families = {family_of(address) for address in self.bridge}
        taken = {each.port for each in self.openings if isinstance(each, HostPort)}
        for opening in named:
            for address in addresses:
                if address.is_loopback and opening.port not in taken:
                    taken.add(opening.port)
                    more[HostPort(opening.text, (address,), opening.port)] = None
                elif not address.is_loopback and family_of(address) in families and not self._has(address):
                    more[Range(opening.text, host_network(address), opening.port)] = None
        new = tuple(each for each in more if each not in self.openings)
        return Egress((*self.openings, *new), self.bridge, self.inside) if new else self

    def answers(self, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """What pods are told of a name's addresses: in place of the host's loopback, where they reach it."""
        families: set[Family] = {family_of(address) for address in self.bridge}
        found: dict[Address, None] = {}
        for address in addresses:
            if address.is_loopback:
                found.update(dict.fromkeys(self.bridge))
            elif family_of(address) in families:
                found[address] = None
        return tuple(found)


def _within(network: Network, other: Network) -> bool:
    return (
        network.version == other.version
        and network.prefixlen >= other.prefixlen
        and network.network_address in other
    )
