"""Routes of both families: adding, deleting, listing, and asking which one a packet would take.

Rules: verbs make a `Request` and change nothing; a `Route` reads like a line of `ip route`.
Does not belong here: which routes a node or a pod needs; policy rules (`rule`).
"""

import errno
import struct
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

from netwarren.errors import AddressError, KernelError
from netwarren.kernel.address import (
    AF_INET,
    AF_INET6,
    SCOPES,
    IPAddress,
    IPNetwork,
    address_text,
    family_of,
    scope_name,
    scope_number,
    unpack_address,
    unpack_network,
)
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    NetlinkFormatError,
    Request,
    attribute,
    number,
    pack_header,
    parse_attributes,
    u32,
    unpack_header,
)

# linux/rtnetlink.h
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_RTM_GETROUTE = 26
_RTA_DST = 1
_RTA_SRC = 2
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTA_MARK = 16
_RTA_VIA = 18
_RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200
_RTM_F_LOOKUP_TABLE = 0x1000
_RTPROT_BOOT = 3

TABLE_DEFAULT = 253
TABLE_MAIN = 254
TABLE_LOCAL = 255
TABLE_NAMES = {TABLE_DEFAULT: "default", TABLE_MAIN: "main", TABLE_LOCAL: "local"}

KINDS = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
}
_KIND_NAMES = {value: name for name, value in KINDS.items()}
_PROTOCOL_NAMES = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    9: "ra",
    11: "zebra",
    12: "bird",
    16: "dhcp",
    18: "keepalived",
    42: "babel",
    186: "bgp",
    188: "ospf",
}

# struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, weight - 1, index
_RTVIA = struct.Struct("=H")  # struct rtvia: family, then the address


def short_table(table: int) -> int:
    """What the 8 bit table field of a header holds for a table, whose attribute then holds the rest."""
    return table if table < 256 else 0


def _gateway(family: int, via: IPAddress) -> bytes:
    if family_of(via) == family:
        return attribute(_RTA_GATEWAY, via.packed)
    # An IPv4 network behind an IPv6 router is fine, the other way round is not.
    if family == AF_INET6:
        raise AddressError(f"an IPv6 route cannot go via {via}, an IPv4 address; give an IPv6 one")
    return attribute(_RTA_VIA, _RTVIA.pack(AF_INET6) + via.packed)


def _destination_text(family: int, packed: bytes, length: int) -> str:
    return f"{address_text(family, packed)}/{length}" if length else "default"


def _kind(kind: str) -> int:
    try:
        return KINDS[kind]
    except KeyError:
        raise AddressError(f"{kind!r} is no kind of route; there are: {', '.join(KINDS)}") from None


# --- verbs ----------------------------------------------------------------------------------------


def add_route(
    destination: IPNetwork,
    *,
    via: IPAddress | None = None,
    index: int | None = None,
    source: IPAddress | None = None,
    scope: str | None = None,
    kind: str = "unicast",
    table: int = TABLE_MAIN,
    metric: int | None = None,
    onlink: bool = False,
    replace: bool = False,
) -> Request:
    """Send ``destination`` via a router, out of a link, or nowhere (``kind="unreachable"``).

    ``ip route add|replace [KIND] DESTINATION via VIA dev INDEX src SOURCE scope SCOPE table TABLE metric
    METRIC [onlink]``; ip-route(8), rtnetlink(7). ``scope`` is by default as there: ``link`` for unicast
    without ``via``, ``host`` for ``kind="local"``, else ``global``. Unlike there, ``kind="local"`` goes
    to the main table, too, unless ``table`` says otherwise.
    """
    family = AF_INET if destination.version == 4 else AF_INET6
    packed = destination.network_address.packed
    length = destination.prefixlen
    if scope is not None:
        reach = scope_number(scope)
    elif family == AF_INET6:  # has no scopes of routes
        reach = 0
    elif kind == "local":
        reach = SCOPES["host"]
    else:
        reach = SCOPES["link"] if via is None and kind == "unicast" else 0
    doing = "replace route " if replace else "add route "
    if kind != "unicast":
        doing += kind + " "
    doing += _destination_text(family, packed, length)
    body = pack_header(
        _RTMSG,
        family,
        length,
        0,
        0,
        short_table(table),
        _RTPROT_BOOT,
        reach,
        _kind(kind),
        _RTNH_F_ONLINK if onlink else 0,
    )
    if length:
        body += attribute(_RTA_DST, packed)
    if via is not None:
        body += _gateway(family, via)
        doing += f" via {address_text(family_of(via), via.packed)}"
    if index is not None:
        body += u32(_RTA_OIF, index)
        if via is None:
            doing += f" dev {index}"
    if source is not None:
        if family_of(source) != family:
            raise AddressError(f"a route to {destination} cannot have the source {source}: another family")
        body += attribute(_RTA_PREFSRC, source.packed)
    if metric is not None:
        body += u32(_RTA_PRIORITY, metric)
    if table > 255:
        body += u32(_RTA_TABLE, table)
    if table != TABLE_MAIN:
        doing += f" table {table}"
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Request(_RTM_NEWROUTE, flags, body, doing, "" if family == AF_INET else "IPv6")


def delete_route(
    destination: IPNetwork,
    *,
    via: IPAddress | None = None,
    index: int | None = None,
    kind: str | None = None,
    table: int = TABLE_MAIN,
    metric: int | None = None,
) -> Request:
    """Delete the first route to ``destination`` that matches what is given; ESRCH where none does.

    ``ip route delete [KIND] DESTINATION via VIA dev INDEX table TABLE metric METRIC``; ip-route(8).
    """
    family = family_of(destination)
    packed = destination.network_address.packed
    length = destination.prefixlen
    type = 0 if kind is None else _kind(kind)
    doing = f"delete route {_destination_text(family, packed, length)}"
    body = pack_header(_RTMSG, family, length, 0, 0, short_table(table), 0, SCOPES["nowhere"], type, 0)
    if length:
        body += attribute(_RTA_DST, packed)
    if via is not None:
        body += _gateway(family, via)
        doing += f" via {via}"
    if index is not None:
        body += u32(_RTA_OIF, index)
        doing += f" dev {index}"
    if metric is not None:
        body += u32(_RTA_PRIORITY, metric)
    if table > 255:
        body += u32(_RTA_TABLE, table)
    if table != TABLE_MAIN:
        doing += f" table {table}"
    return Request(_RTM_DELROUTE, 0, body, doing)


def settle_address(index: int, address: IPv6Address) -> Request:
    """Make an IPv6 address that was just added receive packets now, as a part of the same batch.

    The kernel adds the address's local route from a work queue, also without duplicate address
    detection: addrconf_dad_work() of net/ipv6/addrconf.c. A SYN that comes before is lost, which costs a
    second. This adds such a route itself; it stays beside the kernel's own, which is preferred. Its metric is
    the link's, so that where several links have one address, each has its route, and they go with their links.
    ``ip -6 route replace local ADDRESS dev INDEX table local metric INDEX``.
    """
    return add_route(
        IPv6Network(address), index=index, kind="local", table=TABLE_LOCAL, metric=index, replace=True
    )


# --- reading --------------------------------------------------------------------------------------


class NextHop(NamedTuple):
    """One of the ways a multipath route goes."""

    via: IPAddress | None
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    weight: int


class Route(NamedTuple):
    """A route as the kernel describes it; ``str`` of it reads like ``ip route``."""

    destination: IPNetwork
    via: IPAddress | None
    index: int | None  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    source: IPAddress | None
    """The address this machine speaks from on this route."""
    scope: str
    kind: str
    """``unicast``, ``unreachable``, ``local``, ..."""
    table: int
    protocol: str
    """Who made it: ``boot`` (we), ``kernel``, ``static``, ``bgp``, ..., or a number."""
    metric: int | None
    onlink: bool
    nexthops: tuple[NextHop, ...] = ()
    cloned: bool = False
    """The answer of a lookup, not an entry of a table."""

    def __str__(self) -> str:
        words = [] if self.kind == "unicast" else [self.kind]
        length, most = self.destination.prefixlen, self.destination.max_prefixlen
        if length == 0 and not self.cloned:
            words.append("default")
        else:
            words.append(str(self.destination.network_address if length == most else self.destination))
        if self.via is not None:
            family = "inet6 " if self.via.version != self.destination.version else ""
            words.append(f"via {family}{self.via}")
        if self.index is not None:
            words.append(f"dev {self.index}")
        if self.table != TABLE_MAIN:
            words.append(f"table {TABLE_NAMES.get(self.table, self.table)}")
        if not self.cloned and self.protocol != "boot":
            words.append(f"proto {self.protocol}")
        if not self.cloned and self.scope != "global":
            words.append(f"scope {self.scope}")
        if self.source is not None:
            words.append(f"src {self.source}")
        if self.metric is not None:
            words.append(f"metric {self.metric}")
        for hop in self.nexthops:
            words.append("nexthop" + (f" via {hop.via}" if hop.via is not None else ""))
            words.append(f"dev {hop.index} weight {hop.weight}")
        if self.onlink:
            words.append("onlink")
        return " ".join(words)


def _unpack_gateway(found: dict[int, bytes]) -> IPAddress | None:
    if _RTA_GATEWAY in found:
        return unpack_address(found[_RTA_GATEWAY])
    if _RTA_VIA in found:
        return unpack_address(found[_RTA_VIA][2:])
    return None


def _unpack_nexthops(data: bytes) -> tuple[NextHop, ...]:
    hops = []
    while data:
        length, _, hop, index = unpack_header(_NEXTHOP, data)
        if not _NEXTHOP.size <= length <= len(data):
            raise NetlinkFormatError(f"a next hop claims {length} bytes where {len(data)} are left")
        found = parse_attributes(data[:length], _NEXTHOP.size)
        hops.append(NextHop(_unpack_gateway(found), index, hop + 1))
        data = data[(length + 3) & ~3 :]
    return tuple(hops)


def parse_route(body: bytes) -> Route:
    """A `Route` from the body of an RTM_NEWROUTE."""
    family, length, _, _, table, protocol, scope, kind, flags = unpack_header(_RTMSG, body)
    found = parse_attributes(body, _RTMSG.size)
    return Route(
        destination=unpack_network(family, found.get(_RTA_DST), length),
        via=_unpack_gateway(found),
        index=number(found, _RTA_OIF) or None,
        source=unpack_address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
        scope=scope_name(scope),
        kind=_KIND_NAMES.get(kind) or str(kind),
        table=number(found, _RTA_TABLE, table),
        protocol=_PROTOCOL_NAMES.get(protocol) or str(protocol),
        metric=number(found, _RTA_PRIORITY) if _RTA_PRIORITY in found else None,
        onlink=bool(flags & _RTNH_F_ONLINK),
        nexthops=_unpack_nexthops(found.get(_RTA_MULTIPATH, b"")),
        cloned=bool(flags & _RTM_F_CLONED),
    )


def routes(netlink: Netlink, *, table: int | None = TABLE_MAIN) -> list[Route]:
    """The routes of one table, or of all (None), IPv4 first; ``ip route show table TABLE``."""
    found = []
    for family in (AF_INET, AF_INET6):
        short = 0 if table is None else short_table(table)
        body = pack_header(_RTMSG, family, 0, 0, 0, short, 0, 0, 0, 0)
        if table is not None and table > 255:
            body += u32(_RTA_TABLE, table)
        try:
            answer = netlink.dump(Request(_RTM_GETROUTE, 0, body, "list the routes"))
        except KernelError as error:
            if table is not None and error.errno == errno.ENOENT:
                continue  # nobody has put a route into this table yet
            raise
        # A kernel without IPv6 answers with what it has, an old one with all tables.
        found += [parse_route(body) for body in answer if body[0] == family]
    return [route for route in found if table is None or route.table == table]


def lookup(
    netlink: Netlink, destination: IPAddress, source: IPAddress | None = None, mark: int | None = None
) -> Route:
    """The route a packet from this machine would take; ``ip route get DESTINATION from SOURCE mark MARK``.

    Raises `KernelError` where there is none: ENETUNREACH, or what the route says (EHOSTUNREACH, EACCES).
    """
    family = family_of(destination)
    most = destination.max_prefixlen
    # IPv6 names the table unasked, and refuses to be asked.
    flags = _RTM_F_LOOKUP_TABLE if family == AF_INET else 0
    body = pack_header(_RTMSG, family, most, 0 if source is None else most, 0, 0, 0, 0, 0, flags)
    body += attribute(_RTA_DST, destination.packed)
    doing = f"look up the route to {destination}"
    if source is not None:
        if family_of(source) != family:
            raise AddressError(f"a packet to {destination} cannot come from {source}: another family")
        body += attribute(_RTA_SRC, source.packed)
        doing += f" from {source}"
    if mark is not None:
        body += u32(_RTA_MARK, mark)
        doing += f" with mark {mark:#x}"
    return parse_route(netlink.get(Request(_RTM_GETROUTE, 0, body, doing)))
