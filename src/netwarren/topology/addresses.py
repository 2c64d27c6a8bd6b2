"""Addresses of both families: their types, the ``families=`` option, and reading what a user wrote.

Rules: a family is the int 4 or 6; a tuple of families is in order of preference; what cannot be read is
refused with a sentence that says what would do.
Does not belong here: which addresses are free (see `pools`), which ranges make sense (see `ranges`).
"""

from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal, TypeAlias, TypeVar

from netwarren.errors import AddressError, ConfigurationError

Family: TypeAlias = Literal[4, 6]
Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Interface: TypeAlias = IPv4Interface | IPv6Interface

# What users may write.
FamilyArgument: TypeAlias = str | int
FamiliesArgument: TypeAlias = FamilyArgument | Sequence[FamilyArgument]
AddressArgument: TypeAlias = str | Address
AddressesArgument: TypeAlias = AddressArgument | Sequence[AddressArgument] | None
NetworkArgument: TypeAlias = str | Network
NetworksArgument: TypeAlias = NetworkArgument | Sequence[NetworkArgument] | None

# 2 and 10 are socket.AF_INET and AF_INET6 of Linux; importing socket for them is not worth its time.
_FAMILIES: dict[FamilyArgument, Family] = {"ipv4": 4, "ipv6": 6, 4: 4, 6: 6, 2: 4, 10: 6}
_REMEDY = "a family is 'ipv4' or 4 or socket.AF_INET, 'ipv6' or 6 or socket.AF_INET6"

_Argument = TypeVar("_Argument", AddressArgument, NetworkArgument)
_Result = TypeVar("_Result", Address, Network)


def family_of(thing: Address | Network | Interface) -> Family:
    """The family of an address, network or interface."""
    return 4 if thing.version == 4 else 6


def parse_family(value: FamilyArgument) -> Family:
    """One family, as users may write it; raises `ConfigurationError`."""
    try:
        return _FAMILIES[value]
    except (KeyError, TypeError):  # TypeError: a list in a list
        raise ConfigurationError(f"{value!r} is not an address family; {_REMEDY}") from None


def parse_families(value: FamiliesArgument) -> tuple[Family, ...]:
    """``families=`` as a tuple of 4 and 6 in order of preference; raises `ConfigurationError`.

    One family, a tuple or list of them (the first is preferred), or ``"dual"``, which is ``(4, 6)``.
    """
    if value == "dual":
        return (4, 6)
    if isinstance(value, (tuple, list)):
        families = tuple(map(parse_family, value))
    elif isinstance(value, (str, int)):
        families = (parse_family(value),)
    else:  # a set has no order, and the order means something
        raise ConfigurationError(
            f"families={value!r} is neither a family, nor a tuple of them, nor 'dual'; {_REMEDY}"
        )
    if not families:
        raise ConfigurationError(f"families={value!r} names no address family; {_REMEDY}")
    if len(set(families)) < len(families):
        raise ConfigurationError(f"families={value!r} names a family twice; once each is enough")
    return families


def parse_address(value: AddressArgument) -> Address:
    """An address; raises `AddressError`."""
    try:
        return ip_address(value)
    except ValueError:
        raise AddressError(
            f"{value!r} is not an address; write it like '10.0.1.5' or 'fd00:10:0:1::5'"
        ) from None


def parse_network(value: NetworkArgument) -> Network:
    """A network; raises `AddressError`, also if bits of the host part are set."""
    try:
        return ip_network(value)
    except ValueError:
        try:
            meant = ip_network(value, strict=False)
        except ValueError:
            raise AddressError(
                f"{value!r} is not a range; write it like '10.0.1.0/24' or 'fd00:10:0:1::/64'"
            ) from None
        raise AddressError(f"{value} is inside a range, not one; the range is {meant}") from None


def address_at(network: Network, number: int) -> Address:
    """The ``number``-th address of a network, of whatever size; no check."""
    if isinstance(network, IPv4Network):
        return IPv4Address(int(network.network_address) + number)
    return IPv6Address(int(network.network_address) + number)


def network_at(network: Network, number: int, prefix: int) -> Network:
    """The network of length ``prefix`` whose own address is the ``number``-th of ``network``; no check."""
    first = int(network.network_address) + number
    return IPv4Network((first, prefix)) if network.version == 4 else IPv6Network((first, prefix))


def interface_of(address: Address, prefix: int) -> Interface:
    """``address`` as an interface has it: with the length of the prefix it is in."""
    if isinstance(address, IPv4Address):
        return IPv4Interface((int(address), prefix))
    return IPv6Interface((int(address), prefix))


def host_network(address: Address) -> Network:
    """The range that is one address: /32 or /128."""
    # From a pair of ints: ipaddress reads anything else by way of its text, at four times the cost.
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), 32))
    return IPv6Network((int(address), 128))


def default_network(family: Family) -> Network:
    """The range that is every address: the destination of a default route."""
    return _EVERYTHING[family]


_EVERYTHING: dict[Family, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def addresses_by_family(value: AddressesArgument, families: Sequence[Family]) -> dict[Family, Address]:
    """The addresses a user asked for: none, one, or a tuple of at most one per family of the cluster."""
    if value is None:
        return {}
    return _by_family(
        [value] if isinstance(value, (str, IPv4Address, IPv6Address)) else value, parse_address, families
    )


def networks_by_family(value: NetworksArgument, families: Sequence[Family]) -> dict[Family, Network]:
    """The ranges a user asked for: none, one, or a tuple of at most one per family of the cluster."""
    if value is None:
        return {}
    return _by_family(
        [value] if isinstance(value, (str, IPv4Network, IPv6Network)) else value, parse_network, families
    )


def _by_family(
    values: Sequence[_Argument], parse: Callable[[_Argument], _Result], families: Sequence[Family]
) -> dict[Family, _Result]:
    found: dict[Family, _Result] = {}
    for value in values:
        result = parse(value)
        family = family_of(result)
        if family not in families:
            raise AddressError(
                f"{result} is IPv{family}, which this cluster does not have; "
                f"make the cluster with families that include 'ipv{family}'"
            )
        if family in found:
            raise AddressError(f"{found[family]} and {result} are both IPv{family}; ask for one per family")
        found[family] = result
    return found
