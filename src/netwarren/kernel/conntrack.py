"""Connection tracking over ctnetlink: the connections a namespace knows, and forgetting some of them.

Rules: read anew at each call; forgetting what is gone already is no error; of a connection both directions
are shown, because they differ where an address was translated (linux/netfilter/nfnetlink_conntrack.h).
Does not belong here: which connections are stale (see `netwarren.topology.service_rules`), rules.
"""

import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

from netwarren.errors import KernelError
from netwarren.kernel.address import AF_INET, AF_INET6, IPAddress, unpack_address
from netwarren.kernel.netlink import Netlink, Request, attribute, nest, pack_header, parse_attributes
from netwarren.kernel.nft_wire import NFGENMSG, be_number

_NFNL_SUBSYS_CTNETLINK = 1  # linux/netfilter/nfnetlink.h

# linux/netfilter/nfnetlink_conntrack.h
_IPCTNL_MSG_CT_GET = 1
_IPCTNL_MSG_CT_DELETE = 2
_IPCTNL_MSG_CT_GET_STATS = 5
_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_REPLY = 2
_CTA_ID = 12
_CTA_STATS_GLOBAL_ENTRIES = 1
_CTA_TUPLE_IP = 1
_CTA_TUPLE_PROTO = 2
_CTA_IP = {AF_INET: (1, 2), AF_INET6: (3, 4)}  # CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST
_CTA_PROTO_NUM = 1
_CTA_PROTO_SRC_PORT = 2
_CTA_PROTO_DST_PORT = 3

_PROTOCOLS = {6: "tcp", 17: "udp"}  # linux/in.h

_NEEDS = "connection tracking"
_ID = struct.Struct(">I")

# Where one direction comes from and goes to; the ports are 0 where the protocol has none.
Point = tuple[IPAddress, int]


class Connection(NamedTuple):
    """A connection as the kernel describes it."""

    protocol: str
    """``tcp``, ``udp``, or a number."""
    source: Point
    """Who began it."""
    destination: Point
    """What was asked for."""
    answering: Point
    """Who answers: `destination`, or what that was translated to."""
    answered: Point
    """Who is answered: `source`, or what that was translated to."""
    tuple: bytes
    """The kernel's own description of the direction it began in: CTA_TUPLE_ORIG."""
    id: int

    def __str__(self) -> str:
        texts = (f"{address} {port}" for address, port in self[1:5])
        return "{} {} -> {}, answered by {} to {}".format(self.protocol, *texts)


def _direction(family: int, data: bytes) -> tuple[str, Point, Point]:
    found = parse_attributes(data)
    ends = parse_attributes(found.get(_CTA_TUPLE_IP, b""))
    protocol = parse_attributes(found.get(_CTA_TUPLE_PROTO, b""))
    number = be_number(protocol, _CTA_PROTO_NUM)
    source, destination = (unpack_address(ends.get(type, b"")) for type in _CTA_IP[family])
    return (
        _PROTOCOLS.get(number) or str(number),
        (source, be_number(protocol, _CTA_PROTO_SRC_PORT)),
        (destination, be_number(protocol, _CTA_PROTO_DST_PORT)),
    )


def parse_connection(body: bytes) -> Connection:
    """A `Connection` from the body of an IPCTNL_MSG_CT_NEW."""
    family = body[0]
    found = parse_attributes(body, NFGENMSG.size)
    original = found.get(_CTA_TUPLE_ORIG, b"")
    protocol, source, destination = _direction(family, original)
    _, answering, answered = _direction(family, found.get(_CTA_TUPLE_REPLY, b""))
    return Connection(protocol, source, destination, answering, answered, original, be_number(found, _CTA_ID))


def connections(netlink: Netlink) -> list[Connection]:
    """The connections of both families; ``conntrack -L``. ``netlink`` is one for `NETLINK_NETFILTER`."""
    # The kernel goes through a table that all namespaces share, 6 ms for one of 262,144 buckets, even if
    # there is nothing of this one in it.
    if not count(netlink):
        return []
    header = pack_header(NFGENMSG, 0, 0, 0)
    message = _NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_GET
    bodies = netlink.dump(Request(message, 0, header, "list the tracked connections", _NEEDS))
    return [parse_connection(body) for body in bodies if body[0] in _CTA_IP]


def count(netlink: Netlink) -> int:
    """How many connections there are; ``conntrack -C``."""
    header = pack_header(NFGENMSG, 0, 0, 0)
    message = _NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_GET_STATS
    answer = netlink.get(Request(message, 0, header, "count the tracked connections", _NEEDS))
    return be_number(parse_attributes(answer, NFGENMSG.size), _CTA_STATS_GLOBAL_ENTRIES)


def forget(netlink: Netlink, connections: Iterable[Connection]) -> None:
    """Have the next packet of each be the first of a new one; ``conntrack -D``.

    Those that are gone are no error. Tries them all, and raises the first refusal.
    """
    failure: KernelError | None = None
    for connection in connections:
        family = AF_INET if connection.source[0].version == 4 else AF_INET6
        body = pack_header(NFGENMSG, family, 0, 0)
        # With the id: another connection may have begun between the same two ends since.
        body += nest(_CTA_TUPLE_ORIG, connection.tuple) + attribute(_CTA_ID, _ID.pack(connection.id))
        message = _NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_DELETE
        try:
            netlink.commit([Request(message, 0, body, f"forget {connection}", _NEEDS)])
        except KernelError as error:
            if error.errno != errno.ENOENT:
                failure = failure or error
    if failure is not None:
        raise failure
