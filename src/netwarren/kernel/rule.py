"""Policy rules: which routing table a packet is looked up in.

Rules: verbs make a `Request` and change nothing; a `Rule` reads like a line of `ip rule`.
Does not belong here: the routes in the tables (`route`), marking packets (nftables).
"""

import struct
from typing import NamedTuple

from netwarren.errors import AddressError
from netwarren.kernel.address import AF_INET, AF_INET6, IPNetwork, family_of, unpack_network
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attribute,
    number,
    pack_header,
    parse_attributes,
    text,
    u32,
    unpack_header,
)
from netwarren.kernel.route import TABLE_NAMES, short_table

# linux/rtnetlink.h
_RTM_NEWRULE = 32
_RTM_DELRULE = 33
_RTM_GETRULE = 34

# linux/fib_rules.h
_FRA_DST = 1
_FRA_SRC = 2
_FRA_IIFNAME = 3
_FRA_PRIORITY = 6
_FRA_FWMARK = 10
_FRA_TABLE = 15
_FRA_FWMASK = 16
_FRA_OIFNAME = 17
_FR_ACT_TO_TBL = 1
_FIB_RULE_INVERT = 2
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}

# struct fib_rule_hdr: family, destination and source length, tos, table, -, -, action, flags
_RULE = struct.Struct("=BBBBBBBBI")


def _encode(
    type: int,
    flags: int,
    verb: str,
    needs: str,
    family: int,
    priority: int,
    fwmark: int | None,
    fwmask: int | None,
    source: IPNetwork | None,
    destination: IPNetwork | None,
    iif: str | None,
    table: int,
) -> Request:
    for network in (source, destination):
        if network is not None and family_of(network) != family:
            raise AddressError(f"{network} is not of the rule's address family {family}")
    doing = f"{verb} rule {priority}:"
    body = pack_header(
        _RULE,
        family,
        0 if destination is None else destination.prefixlen,
        0 if source is None else source.prefixlen,
        0,
        short_table(table),
        0,
        0,
        _FR_ACT_TO_TBL,
        0,
    )
    body += u32(_FRA_PRIORITY, priority) + u32(_FRA_TABLE, table)
    if source is not None:
        body += attribute(_FRA_SRC, source.network_address.packed)
        doing += f" from {source}"
    if destination is not None:
        body += attribute(_FRA_DST, destination.network_address.packed)
        doing += f" to {destination}"
    if fwmark is not None:
        body += u32(_FRA_FWMARK, fwmark)
        doing += f" fwmark {fwmark:#x}"
    if fwmask is not None:
        body += u32(_FRA_FWMASK, fwmask)
        doing += f"/{fwmask:#x}"
    if iif is not None:
        body += attribute(_FRA_IIFNAME, iif.encode() + b"\0")
        doing += f" iif {iif}"
    return Request(type, flags, body, f"{doing} lookup {TABLE_NAMES.get(table, table)}", needs)


def add_rule(
    *,
    family: int,
    priority: int,
    fwmark: int | None = None,
    fwmask: int | None = None,
    source: IPNetwork | None = None,
    destination: IPNetwork | None = None,
    iif: str | None = None,
    table: int,
) -> Request:
    """Have packets that match all that is given looked up in ``table``; ``family`` is AF_INET or AF_INET6.

    ``ip [-6] rule add priority PRIORITY from SOURCE to DESTINATION fwmark MARK/MASK iif NAME lookup
    TABLE``; ip-rule(8), linux/fib_rules.h.
    """
    return _encode(
        _RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, "add", "policy routing",
        family, priority, fwmark, fwmask, source, destination, iif, table,
    )  # fmt: skip


def delete_rule(
    *,
    family: int,
    priority: int,
    fwmark: int | None = None,
    fwmask: int | None = None,
    source: IPNetwork | None = None,
    destination: IPNetwork | None = None,
    iif: str | None = None,
    table: int,
) -> Request:
    """Delete the rule that `add_rule` made of the same; ENOENT where there is none. ``ip rule delete``."""
    return _encode(
        _RTM_DELRULE, 0, "delete", "",
        family, priority, fwmark, fwmask, source, destination, iif, table,
    )  # fmt: skip


class Rule(NamedTuple):
    """A policy rule as the kernel describes it; ``str`` of it reads like ``ip rule``."""

    family: int
    priority: int
    source: IPNetwork | None
    destination: IPNetwork | None
    fwmark: int | None
    fwmask: int | None
    iif: str
    oif: str
    table: int
    action: str
    """``lookup``, ``blackhole``, ``unreachable``, ``prohibit``, ..., or a number."""
    inverted: bool

    def __str__(self) -> str:
        words = [f"{self.priority}:"] + (["not"] if self.inverted else [])
        words.append(f"from {'all' if self.source is None else self.source}")
        if self.destination is not None:
            words.append(f"to {self.destination}")
        if self.fwmark is not None:
            whole = self.fwmask in (None, 0xFFFFFFFF)
            words.append(f"fwmark {self.fwmark:#x}" + ("" if whole else f"/{self.fwmask:#x}"))
        if self.iif:
            words.append(f"iif {self.iif}")
        if self.oif:
            words.append(f"oif {self.oif}")
        words.append(self.action)
        if self.action == "lookup":
            words.append(str(TABLE_NAMES.get(self.table, self.table)))
        return " ".join(words)


def parse_rule(body: bytes) -> Rule:
    """A `Rule` from the body of an RTM_NEWRULE."""
    family, to_length, from_length, _, table, _, _, action, flags = unpack_header(_RULE, body)
    found = parse_attributes(body, _RULE.size)
    source, destination = found.get(_FRA_SRC), found.get(_FRA_DST)
    # A mask without a mark is "fwmark 0/MASK"; neither is no condition at all.
    fwmask = number(found, _FRA_FWMASK) if _FRA_FWMASK in found else None
    marked = _FRA_FWMARK in found or bool(fwmask)
    return Rule(
        family=family,
        priority=number(found, _FRA_PRIORITY),
        source=None if source is None else unpack_network(family, source, from_length),
        destination=None if destination is None else unpack_network(family, destination, to_length),
        fwmark=number(found, _FRA_FWMARK) if marked else None,
        fwmask=fwmask if marked else None,
        iif=text(found, _FRA_IIFNAME),
        oif=text(found, _FRA_OIFNAME),
        table=number(found, _FRA_TABLE, table),
        action=_ACTIONS.get(action) or str(action),
        inverted=bool(flags & _FIB_RULE_INVERT),
    )


def rules(netlink: Netlink) -> list[Rule]:
    """The rules of both families, IPv4 first, in the order they are tried; ``ip rule``, ``ip -6 rule``."""
    found: list[Rule] = []
    for family in (AF_INET, AF_INET6):
        body = pack_header(_RULE, family, 0, 0, 0, 0, 0, 0, 0, 0)
        answer = netlink.dump(Request(_RTM_GETRULE, 0, body, "list the rules", "policy routing"))
        # A kernel without IPv6 answers with what it has.
        found += [parse_rule(body) for body in answer if body[0] == family]
    return found
