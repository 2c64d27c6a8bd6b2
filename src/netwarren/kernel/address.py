"""IP addresses on links, of both families.

Rules: IPv6 addresses are usable at once (no duplicate address detection, which takes seconds); verbs
make a `Request` and change nothing.
Does not belong here: which address to choose (`netwarren.topology`), routes, neighbours.
"""

import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import NamedTuple, TypeAlias

from netwarren.errors import AddressError
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    NetlinkFormatError,
    Request,
    attribute,
    number,
    pack_header,
    parse_attributes,
    text,
    u32,
    unpack_header,
)

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)

# linux/rtnetlink.h
_RTM_NEWADDR = 20
_RTM_DELADDR = 21
_RTM_GETADDR = 22

# linux/rtnetlink.h enum rt_scope_t, by the words of ip-address(8)
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
_SCOPE_NAMES = {value: name for name, value in SCOPES.items()}

# linux/if_addr.h
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_IFA_FLAGS = 8
_IFA_F_NODAD = 0x02
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
_IFA_F_NOPREFIXROUTE = 0x200

_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index


# --- words both families share --------------------------------------------------------------------


def family_of(thing: IPAddress | IPNetwork) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if thing.version == 4 else AF_INET6


def address_text(family: int, packed: bytes) -> str:
    """An address in words; ten times as fast as ``str`` of an `ipaddress` object for IPv6."""
    return socket.inet_ntop(family, packed)


def unpack_address(value: bytes) -> IPAddress:
    """An address from four or sixteen bytes."""
    if len(value) == 4:
        return IPv4Address(value)
    if len(value) == 16:
        return IPv6Address(value)
    raise NetlinkFormatError(f"an IP address of {len(value)} bytes")


def unpack_network(family: int, value: bytes | None, length: int) -> IPNetwork:
    """A network from its bytes (None: the family's zero address) and prefix length."""
    try:
        if family == AF_INET:
            return IPv4Network((value or bytes(4), length), strict=False)
        if family == AF_INET6:
            return IPv6Network((value or bytes(16), length), strict=False)
    except ValueError as error:
        raise NetlinkFormatError(f"no IP network: {error}") from None
    raise NetlinkFormatError(f"address family {family} is neither IPv4 nor IPv6")


def scope_number(scope: str) -> int:
    """The kernel's number for a scope's name."""
    try:
        return SCOPES[scope]
    except KeyError:
        raise AddressError(f"{scope!r} is no scope; there are: {', '.join(SCOPES)}") from None


def scope_name(value: int) -> str:
    """The name of a scope's number, the number itself where it has none."""
    return _SCOPE_NAMES.get(value) or str(value)


# --- verbs ----------------------------------------------------------------------------------------


def _encode(
    kind: int, flags: int, index: int, interface: IPInterface, scope: int, marks: int, verb: str
) -> Request:
    family = AF_INET if interface.version == 4 else AF_INET6
    length = interface.network.prefixlen
    packed = interface.packed
    body = pack_header(_IFADDR, family, length, marks & 0xFF, scope, index)
    if family == AF_INET:
        body += attribute(_IFA_LOCAL, packed)
    body += attribute(_IFA_ADDRESS, packed)
    if marks:
        body += u32(_IFA_FLAGS, marks)
    doing = f"{verb} address {address_text(family, packed)}/{length} dev {index}"
    return Request(kind, flags, body, doing, "" if family == AF_INET else "IPv6")


def add_address(
    index: int, interface: IPInterface, *, prefix_route: bool = True, scope: str | None = None
) -> Request:
    """Give a link an address.

    ``ip address add ADDRESS/LENGTH dev INDEX scope SCOPE [nodad] [noprefixroute]``; ip-address(8),
    linux/if_addr.h. ``scope`` is ``host`` for loopback addresses, else ``global``. An IPv6 address may be
    bound at once but receives a moment later; see `netwarren.kernel.route.settle_address`.
    """
    reach = scope_number(scope if scope is not None else "host" if interface.is_loopback else "global")
    marks = 0 if interface.version == 4 else _IFA_F_NODAD
    if not prefix_route:
        marks |= _IFA_F_NOPREFIXROUTE
    return _encode(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, interface, reach, marks, "add")


def delete_address(index: int, interface: IPInterface) -> Request:
    """``ip address delete ADDRESS/LENGTH dev INDEX``; EADDRNOTAVAIL where the link has it not."""
    return _encode(_RTM_DELADDR, 0, index, interface, 0, 0, "delete")


# --- reading --------------------------------------------------------------------------------------


class Address(NamedTuple):
    """An address on a link as the kernel describes it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    interface: IPInterface
    scope: str
    """``global``, ``site``, ``link``, ``host``, or a number."""
    flags: int
    """IFA_F_* of linux/if_addr.h."""
    label: str
    """IPv4 only: the link's name, perhaps with ``:1`` after it."""
    peer: IPAddress | None
    """The other end of a point-to-point address."""

    @property
    def tentative(self) -> bool:
        """Is it still being tested for duplicates, and not usable yet?"""
        return bool(self.flags & _IFA_F_TENTATIVE)

    @property
    def duplicate(self) -> bool:
        """Did the test for duplicates find one? Then it stays unusable."""
        return bool(self.flags & _IFA_F_DADFAILED)

    @property
    def prefix_route(self) -> bool:
        """Did it bring a route to its network?"""
        return not self.flags & _IFA_F_NOPREFIXROUTE

    def __str__(self) -> str:
        """Reads like a line of ``ip address``."""
        words = f"{'inet' if self.interface.version == 4 else 'inet6'} {self.interface}"
        words += f" peer {self.peer}" if self.peer is not None else ""
        words += f" scope {self.scope} dev {self.index}"
        return words + (" tentative" if self.tentative else "")


def parse_address(body: bytes) -> Address:
    """An `Address` from the body of an RTM_NEWADDR."""
    family, length, flags, scope, index = unpack_header(_IFADDR, body)
    found = parse_attributes(body, _IFADDR.size)
    remote = found.get(_IFA_ADDRESS, b"")
    local = found.get(_IFA_LOCAL, remote)
    ip = unpack_address(local)
    try:
        interface: IPInterface = (
            IPv4Interface((local, length)) if ip.version == 4 else IPv6Interface((local, length))
        )
    except ValueError as error:
        raise NetlinkFormatError(f"no IP address of family {family}: {error}") from None
    return Address(
        index=index,
        interface=interface,
        scope=scope_name(scope),
        flags=number(found, _IFA_FLAGS, flags),
        label=text(found, _IFA_LABEL),
        peer=unpack_address(remote) if remote not in (b"", local) else None,
    )


def addresses(netlink: Netlink, *, index: int | None = None) -> list[Address]:
    """The addresses of the namespace, or of one link; ``ip address``."""
    request = Request(_RTM_GETADDR, 0, bytes(_IFADDR.size), "list the addresses")
    every = [parse_address(body) for body in netlink.dump(request) if body[:1] in _IP]
    return [address for address in every if index is None or address.index == index]


_IP = (bytes([AF_INET]), bytes([AF_INET6]))
