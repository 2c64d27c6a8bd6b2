"""Neighbours: which MAC address an IP address on a link has (ARP and neighbour discovery tables).

Rules: verbs make a `Request` and change nothing.
Does not belong here: a bridge's forwarding table, which is keyed by MAC address; routes.
"""

import struct
from typing import NamedTuple

from netwarren.kernel.address import AF_INET, AF_INET6, IPAddress, address_text, family_of, unpack_address
from netwarren.kernel.link import mac_bytes, mac_text
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    Request,
    attribute,
    pack_header,
    parse_attributes,
    unpack_header,
)

# linux/rtnetlink.h
_RTM_NEWNEIGH = 28
_RTM_DELNEIGH = 29
_RTM_GETNEIGH = 30

# linux/neighbour.h
_NDA_DST = 1
_NDA_LLADDR = 2
_NUD_REACHABLE = 0x02
_NUD_PERMANENT = 0x80
_STATES = {
    0x00: "none",
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}
_NOT_NEIGHBOURS = ("none", "noarp")

_NDMSG = struct.Struct("=BBHiHBB")  # struct ndmsg: family, -, -, index, state, flags, type


def add_neighbour(
    index: int, address: IPAddress, mac: str, *, permanent: bool = True, replace: bool = False
) -> Request:
    """Tell a link the MAC address of a neighbour, so that nobody has to ask for it.

    ``ip neighbour add|replace ADDRESS lladdr MAC dev INDEX nud permanent|reachable``; ip-neighbour(8),
    linux/neighbour.h.
    """
    family = family_of(address)
    packed = address.packed
    state = _NUD_PERMANENT if permanent else _NUD_REACHABLE
    body = (
        pack_header(_NDMSG, family, 0, 0, index, state, 0, 0)
        + attribute(_NDA_DST, packed)
        + attribute(_NDA_LLADDR, mac_bytes(mac))
    )
    verb = "replace" if replace else "add"
    doing = f"{verb} neighbour {address_text(family, packed)} lladdr {mac} dev {index}"
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Request(_RTM_NEWNEIGH, flags, body, doing, "" if family == AF_INET else "IPv6")


def delete_neighbour(index: int, address: IPAddress) -> Request:
    """``ip neighbour delete ADDRESS dev INDEX``; ENOENT where the link does not know it."""
    family = family_of(address)
    body = pack_header(_NDMSG, family, 0, 0, index, 0, 0, 0) + attribute(_NDA_DST, address.packed)
    return Request(_RTM_DELNEIGH, 0, body, f"delete neighbour {address} dev {index}")


class Neighbour(NamedTuple):
    """A neighbour as the kernel describes it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    address: IPAddress
    mac: str
    """``""`` while it is not known."""
    state: str
    """``permanent``, ``reachable``, ``stale``, ``failed``, ..., or a number."""

    def __str__(self) -> str:
        """Reads like a line of ``ip neighbour``."""
        mac = f" lladdr {self.mac}" if self.mac else ""
        return f"{self.address} dev {self.index}{mac} {self.state}"


def parse_neighbour(body: bytes) -> Neighbour:
    """A `Neighbour` from the body of an RTM_NEWNEIGH."""
    _, _, _, index, state, _, _ = unpack_header(_NDMSG, body)
    found = parse_attributes(body, _NDMSG.size)
    return Neighbour(
        index=index,
        address=unpack_address(found.get(_NDA_DST, b"")),
        mac=mac_text(found.get(_NDA_LLADDR, b"")),
        state=_STATES.get(state) or str(state),
    )


def neighbours(netlink: Netlink) -> list[Neighbour]:
    """The neighbours of all links, IPv4 first; ``ip neighbour``, which leaves out the same pseudo-entries."""
    found: list[Neighbour] = []
    for family in (AF_INET, AF_INET6):
        body = pack_header(_NDMSG, family, 0, 0, 0, 0, 0, 0)
        answer = netlink.dump(Request(_RTM_GETNEIGH, 0, body, "list the neighbours"))
        found += [parse_neighbour(body) for body in answer if body[0] == family]
    return [neighbour for neighbour in found if neighbour.state not in _NOT_NEIGHBOURS]
