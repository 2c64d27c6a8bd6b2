"""nftables over nfnetlink: tables, base chains and rules; what ``nft`` does, without ``nft``.

Rules: verbs make a `Request` and change nothing; `commit` carries them out all or none; nftables'
numbers are big-endian on the wire, and only here; an expression is bytes that `add_rule` takes.
Does not belong here: which packets are redirected where; sets and maps, until somebody needs them.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from netwarren.errors import NetwarrenError
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    NetlinkFormatError,
    Request,
    attribute,
    nest,
    pack_header,
    parse_attributes,
    text,
    unpack_header,
)

# linux/netfilter/nfnetlink.h
_NFNL_SUBSYS_NFTABLES = 10
_NFNL_MSG_BATCH_BEGIN = 0x10
_NFNL_MSG_BATCH_END = 0x11

_NLM_F_APPEND = 0x800  # linux/netlink.h; a rule without it goes to the front

# linux/netfilter/nf_tables.h enum nf_tables_msg_types
_NFT_MSG_NEWTABLE = 0
_NFT_MSG_GETTABLE = 1
_NFT_MSG_DELTABLE = 2
_NFT_MSG_NEWCHAIN = 3
_NFT_MSG_GETCHAIN = 4
_NFT_MSG_NEWRULE = 6
_NFT_MSG_GETRULE = 7

# linux/netfilter/nf_tables.h, attributes
_NFTA_LIST_ELEM = 1
_NFTA_TABLE_NAME = 1
_NFTA_CHAIN_TABLE = 1
_NFTA_CHAIN_NAME = 3
_NFTA_CHAIN_HOOK = 4
_NFTA_CHAIN_POLICY = 5
_NFTA_CHAIN_TYPE = 7
_NFTA_HOOK_HOOKNUM = 1
_NFTA_HOOK_PRIORITY = 2
_NFTA_RULE_TABLE = 1
_NFTA_RULE_CHAIN = 2
_NFTA_RULE_HANDLE = 3
_NFTA_RULE_EXPRESSIONS = 4
_NFTA_EXPR_NAME = 1
_NFTA_EXPR_DATA = 2
_NFTA_DATA_VALUE = 1
_NFTA_META_DREG = 1
_NFTA_META_KEY = 2
_NFTA_CMP_SREG = 1
_NFTA_CMP_OP = 2
_NFTA_CMP_DATA = 3
_NFTA_PAYLOAD_DREG = 1
_NFTA_PAYLOAD_BASE = 2
_NFTA_PAYLOAD_OFFSET = 3
_NFTA_PAYLOAD_LEN = 4
_NFTA_IMMEDIATE_DREG = 1
_NFTA_IMMEDIATE_DATA = 2
_NFTA_REDIR_REG_PROTO_MIN = 1

# linux/netfilter/nf_tables.h, values
_NFT_REG_1 = 1
_NFT_META_L4PROTO = 16
_NFT_CMP_EQ = 0
_NFT_PAYLOAD_TRANSPORT_HEADER = 2

_IPPROTO_TCP = 6  # linux/in.h

FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
"""NFPROTO_* of linux/netfilter.h, by the words of nft(8)."""
_FAMILY_NAMES = {value: name for name, value in FAMILIES.items()}

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
"""NF_INET_* of linux/netfilter.h, by the words of nft(8)."""
_HOOK_NAMES = {value: name for name, value in HOOKS.items()}

_VERDICTS = {"drop": 0, "accept": 1}  # NF_DROP, NF_ACCEPT of linux/netfilter.h
_VERDICT_NAMES = {value: name for name, value in _VERDICTS.items()}

_NFGENMSG = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource
_U32 = struct.Struct(">I")
_I32 = struct.Struct(">i")


class UnknownWord(NetwarrenError, ValueError):
    """A family, hook or policy that nftables has not."""

    def __init__(self, kind: str, word: str, known: Sequence[str]) -> None:
        self.word = word
        super().__init__(f"{word!r} is no {kind} of nftables; there are: {', '.join(known)}")


# --- the wire -------------------------------------------------------------------------------------


def _value(words: dict[str, int], kind: str, word: str) -> int:
    try:
        return words[word]
    except KeyError:
        raise UnknownWord(kind, word, list(words)) from None


def _be32(type: int, value: int) -> bytes:
    try:
        return attribute(type, (_I32 if value < 0 else _U32).pack(value))
    except struct.error:
        raise NetlinkFormatError(f"{value!r} does not fit attribute {type}, 32 bits wide") from None


def _be16(value: int) -> bytes:
    try:
        return value.to_bytes(2, "big")
    except OverflowError:
        raise NetlinkFormatError(f"{value!r} is no port") from None


def _string(type: int, value: str) -> bytes:
    return attribute(type, value.encode() + b"\0")


def _request(
    message: int, flags: int, family: str, doing: str, *attributes: bytes, needs: str = "nftables"
) -> Request:
    header = pack_header(_NFGENMSG, _value(FAMILIES, "family", family), 0, 0)
    body = header + b"".join(attributes)
    return Request(_NFNL_SUBSYS_NFTABLES << 8 | message, flags, body, doing, needs)


def _frame(type: int, doing: str) -> Request:
    return Request(type, 0, pack_header(_NFGENMSG, 0, 0, _NFNL_SUBSYS_NFTABLES), doing, "nftables")


_BEGIN = _frame(_NFNL_MSG_BATCH_BEGIN, "change the nftables rules")
_END = _frame(_NFNL_MSG_BATCH_END, "change the nftables rules")


def commit(netlink: Netlink, requests: Sequence[Request]) -> None:
    """Have all requests carried out or, where one is refused, none; ``nft -f``.

    ``netlink`` is one opened with `NETLINK_NETFILTER`.
    """
    netlink.commit_whole(_BEGIN, requests, _END)


# --- verbs ----------------------------------------------------------------------------------------


def add_table(family: str, name: str) -> Request:
    """A table; one that is there already stays. ``nft add table FAMILY NAME``."""
    return _request(
        _NFT_MSG_NEWTABLE, NLM_F_CREATE, family, f"add table {family} {name}", _string(_NFTA_TABLE_NAME, name)
    )


def delete_table(family: str, name: str) -> Request:
    """A table with all that is in it; ENOENT where there is none. ``nft delete table FAMILY NAME``."""
    return _request(
        _NFT_MSG_DELTABLE, 0, family, f"delete table {family} {name}", _string(_NFTA_TABLE_NAME, name)
    )


def add_base_chain(
    family: str,
    table: str,
    name: str,
    *,
    type: str = "filter",
    hook: str,
    priority: int = 0,
    policy: str = "accept",
) -> Request:
    """A chain that packets come through at ``hook``.

    ``nft create chain FAMILY TABLE NAME { type TYPE hook HOOK priority PRIORITY; policy POLICY; }``
    """
    return _request(
        _NFT_MSG_NEWCHAIN,
        NLM_F_CREATE | NLM_F_EXCL,
        family,
        f"add chain {family} {table} {name}, type {type} hook {hook}",
        _string(_NFTA_CHAIN_TABLE, table),
        _string(_NFTA_CHAIN_NAME, name),
        nest(
            _NFTA_CHAIN_HOOK,
            _be32(_NFTA_HOOK_HOOKNUM, _value(HOOKS, "hook", hook)),
            _be32(_NFTA_HOOK_PRIORITY, priority),
        ),
        _be32(_NFTA_CHAIN_POLICY, _value(_VERDICTS, "policy", policy)),
        _string(_NFTA_CHAIN_TYPE, type),
    )


def add_rule(family: str, table: str, chain: str, expressions: Sequence[bytes], words: str = "") -> Request:
    """A rule at the end of a chain; ``words`` say it in errors. ``nft add rule FAMILY TABLE CHAIN WORDS``."""
    return _request(
        _NFT_MSG_NEWRULE,
        NLM_F_CREATE | _NLM_F_APPEND,
        family,
        f"add rule {family} {table} {chain} {words}".rstrip(),
        _string(_NFTA_RULE_TABLE, table),
        _string(_NFTA_RULE_CHAIN, chain),
        nest(_NFTA_RULE_EXPRESSIONS, *expressions),
    )


# --- expressions ----------------------------------------------------------------------------------


def _expression(name: str, *attributes: bytes) -> bytes:
    return nest(_NFTA_LIST_ELEM, _string(_NFTA_EXPR_NAME, name), nest(_NFTA_EXPR_DATA, *attributes))


def _data(type: int, value: bytes) -> bytes:
    return nest(type, attribute(_NFTA_DATA_VALUE, value))


def _equals(value: bytes) -> bytes:
    return _expression(
        "cmp",
        _be32(_NFTA_CMP_SREG, _NFT_REG_1),
        _be32(_NFTA_CMP_OP, _NFT_CMP_EQ),
        _data(_NFTA_CMP_DATA, value),
    )


def match_tcp() -> list[bytes]:
    """``meta l4proto tcp``."""
    load = _expression("meta", _be32(_NFTA_META_DREG, _NFT_REG_1), _be32(_NFTA_META_KEY, _NFT_META_L4PROTO))
    return [load, _equals(bytes([_IPPROTO_TCP]))]


def match_destination_port(port: int) -> list[bytes]:
    """``th dport PORT``, after a match of the protocol: TCP and UDP have it in the same place."""
    load = _expression(
        "payload",
        _be32(_NFTA_PAYLOAD_DREG, _NFT_REG_1),
        _be32(_NFTA_PAYLOAD_BASE, _NFT_PAYLOAD_TRANSPORT_HEADER),
        _be32(_NFTA_PAYLOAD_OFFSET, 2),
        _be32(_NFTA_PAYLOAD_LEN, 2),
    )
    return [load, _equals(_be16(port))]


def redirect(port: int) -> list[bytes]:
    """``redirect to :PORT``, in a chain of type nat at prerouting or output."""
    load = _expression(
        "immediate", _be32(_NFTA_IMMEDIATE_DREG, _NFT_REG_1), _data(_NFTA_IMMEDIATE_DATA, _be16(port))
    )
    return [load, _expression("redir", _be32(_NFTA_REDIR_REG_PROTO_MIN, _NFT_REG_1))]


# --- reading --------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table as the kernel describes it."""

    family: str
    name: str


class Chain(NamedTuple):
    """A chain as the kernel describes it; of one that is no base chain the last four are empty."""

    family: str
    table: str
    name: str
    type: str
    hook: str
    priority: int
    policy: str


class Rule(NamedTuple):
    """A rule as the kernel describes it."""

    family: str
    table: str
    chain: str
    handle: int
    expressions: tuple[str, ...]
    """Their names: ``("meta", "cmp", "immediate", "redir")``."""


def _family(body: bytes) -> str:
    family: int = unpack_header(_NFGENMSG, body)[0]
    return _FAMILY_NAMES.get(family) or str(family)


def _number(attributes: dict[int, bytes], type: int) -> int:
    return int.from_bytes(attributes.get(type, b""), "big")


def _elements(data: bytes) -> list[bytes]:
    """The elements of a list, which `parse_attributes` would take for one another."""
    found, offset = [], 0
    while offset < len(data):
        if len(data) - offset < 4:
            raise NetlinkFormatError(f"{len(data) - offset} stray bytes after the last element")
        length = struct.unpack_from("=H", data, offset)[0]
        element = parse_attributes(data[offset : offset + length])
        found += [element.get(_NFTA_LIST_ELEM, b"")]
        offset += max(4, (length + 3) & ~3)
    return found


def parse_table(body: bytes) -> Table:
    """A `Table` from the body of an NFT_MSG_NEWTABLE."""
    family = _family(body)
    return Table(family, text(parse_attributes(body, _NFGENMSG.size), _NFTA_TABLE_NAME))


def parse_chain(body: bytes) -> Chain:
    """A `Chain` from the body of an NFT_MSG_NEWCHAIN."""
    family = _family(body)
    found = parse_attributes(body, _NFGENMSG.size)
    hook = parse_attributes(found.get(_NFTA_CHAIN_HOOK, b""))
    base = bool(hook)
    number = _number(hook, _NFTA_HOOK_HOOKNUM)
    policy = _number(found, _NFTA_CHAIN_POLICY)
    return Chain(
        family=family,
        table=text(found, _NFTA_CHAIN_TABLE),
        name=text(found, _NFTA_CHAIN_NAME),
        type=text(found, _NFTA_CHAIN_TYPE),
        hook=_HOOK_NAMES.get(number, str(number)) if base else "",
        priority=int.from_bytes(hook.get(_NFTA_HOOK_PRIORITY, b""), "big", signed=True),
        policy=_VERDICT_NAMES.get(policy, str(policy)) if base else "",
    )


def parse_rule(body: bytes) -> Rule:
    """A `Rule` from the body of an NFT_MSG_NEWRULE."""
    family = _family(body)
    found = parse_attributes(body, _NFGENMSG.size)
    expressions = _elements(found.get(_NFTA_RULE_EXPRESSIONS, b""))
    return Rule(
        family=family,
        table=text(found, _NFTA_RULE_TABLE),
        chain=text(found, _NFTA_RULE_CHAIN),
        handle=_number(found, _NFTA_RULE_HANDLE),
        expressions=tuple(text(parse_attributes(each), _NFTA_EXPR_NAME) for each in expressions),
    )


# Asked for by family 0, the kernel answers with those of every family.
def _dump(netlink: Netlink, message: int, what: str) -> list[bytes]:
    header = pack_header(_NFGENMSG, 0, 0, 0)
    request = Request(
        _NFNL_SUBSYS_NFTABLES << 8 | message, 0, header, f"list the nftables {what}", "nftables"
    )
    return netlink.dump(request)


def tables(netlink: Netlink) -> list[Table]:
    """The tables of every family; ``nft list tables``."""
    return [parse_table(body) for body in _dump(netlink, _NFT_MSG_GETTABLE, "tables")]


def chains(netlink: Netlink) -> list[Chain]:
    """The chains of every table; ``nft list chains``."""
    return [parse_chain(body) for body in _dump(netlink, _NFT_MSG_GETCHAIN, "chains")]


def rules(netlink: Netlink) -> list[Rule]:
    """The rules of every chain, in order; ``nft list ruleset``."""
    return [parse_rule(body) for body in _dump(netlink, _NFT_MSG_GETRULE, "rules")]
