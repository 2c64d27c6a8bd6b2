"""nftables over nfnetlink: tables, base chains and rules; what ``nft`` does, without ``nft``.

Rules: verbs make a `Request` and change nothing; `commit` carries them out all or none; an expression is
bytes that `add_rule` takes (see `nft_expressions`).
Does not belong here: which packets are redirected where; sets and maps (see `nft_sets`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    nest,
    pack_header,
    parse_attributes,
    text,
)
from netwarren.kernel.nft_wire import (
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_EXPR_NAME,
    be32,
    be_number,
    family_word,
    list_elements,
    request,
    string,
    value_of,
)

# linux/netfilter/nfnetlink.h
_NFNL_MSG_BATCH_BEGIN = 0x10
_NFNL_MSG_BATCH_END = 0x11

NLM_F_APPEND = 0x800  # linux/netlink.h; a rule without it goes to the front

# linux/netfilter/nf_tables.h enum nf_tables_msg_types
_NFT_MSG_NEWTABLE = 0
_NFT_MSG_GETTABLE = 1
_NFT_MSG_DELTABLE = 2
_NFT_MSG_NEWCHAIN = 3
_NFT_MSG_GETCHAIN = 4
_NFT_MSG_DELCHAIN = 5
_NFT_MSG_NEWRULE = 6
_NFT_MSG_GETRULE = 7
_NFT_MSG_DELRULE = 8

# linux/netfilter/nf_tables.h, attributes
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

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
"""NF_INET_* of linux/netfilter.h, by the words of nft(8)."""
_HOOK_NAMES = {value: name for name, value in HOOKS.items()}

_VERDICTS = {"drop": 0, "accept": 1}  # NF_DROP, NF_ACCEPT of linux/netfilter.h
_VERDICT_NAMES = {value: name for name, value in _VERDICTS.items()}


def _frame(type: int, doing: str) -> Request:
    return Request(type, 0, pack_header(NFGENMSG, 0, 0, NFNL_SUBSYS_NFTABLES), doing, "nftables")


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
    return request(
        _NFT_MSG_NEWTABLE, NLM_F_CREATE, family, f"add table {family} {name}", string(_NFTA_TABLE_NAME, name)
    )


def delete_table(family: str, name: str) -> Request:
    """A table with all that is in it; ENOENT where there is none. ``nft delete table FAMILY NAME``."""
    return request(
        _NFT_MSG_DELTABLE, 0, family, f"delete table {family} {name}", string(_NFTA_TABLE_NAME, name)
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
    needs: str = "nftables",
) -> Request:
    """A chain that packets come through at ``hook``.

    ``nft create chain FAMILY TABLE NAME { type TYPE hook HOOK priority PRIORITY; policy POLICY; }``
    """
    return request(
        _NFT_MSG_NEWCHAIN,
        NLM_F_CREATE | NLM_F_EXCL,
        family,
        f"add chain {family} {table} {name}, type {type} hook {hook}",
        string(_NFTA_CHAIN_TABLE, table),
        string(_NFTA_CHAIN_NAME, name),
        nest(
            _NFTA_CHAIN_HOOK,
            be32(_NFTA_HOOK_HOOKNUM, value_of(HOOKS, "hook", hook)),
            be32(_NFTA_HOOK_PRIORITY, priority),
        ),
        be32(_NFTA_CHAIN_POLICY, value_of(_VERDICTS, "policy", policy)),
        string(_NFTA_CHAIN_TYPE, type),
        needs=needs,
    )


def add_chain(family: str, table: str, name: str) -> Request:
    """A chain that others jump or go to. ``nft create chain FAMILY TABLE NAME``."""
    return request(
        _NFT_MSG_NEWCHAIN,
        NLM_F_CREATE | NLM_F_EXCL,
        family,
        f"add chain {family} {table} {name}",
        string(_NFTA_CHAIN_TABLE, table),
        string(_NFTA_CHAIN_NAME, name),
    )


def flush_chain(family: str, table: str, name: str) -> Request:
    """All rules of a chain away. ``nft flush chain FAMILY TABLE NAME``."""
    return request(
        _NFT_MSG_DELRULE,
        0,
        family,
        f"flush chain {family} {table} {name}",
        string(_NFTA_RULE_TABLE, table),
        string(_NFTA_RULE_CHAIN, name),
    )


def delete_chain(family: str, table: str, name: str) -> Request:
    """A chain that is empty and that nothing goes to. ``nft delete chain FAMILY TABLE NAME``."""
    return request(
        _NFT_MSG_DELCHAIN,
        0,
        family,
        f"delete chain {family} {table} {name}",
        string(_NFTA_CHAIN_TABLE, table),
        string(_NFTA_CHAIN_NAME, name),
    )


def add_rule(
    family: str,
    table: str,
    chain: str,
    expressions: Sequence[bytes],
    words: str = "",
    *,
    needs: str = "nftables",
) -> Request:
    """A rule at the end of a chain; ``words`` say it in errors. ``nft add rule FAMILY TABLE CHAIN WORDS``."""
    return request(
        _NFT_MSG_NEWRULE,
        NLM_F_CREATE | NLM_F_APPEND,
        family,
        f"add rule {family} {table} {chain} {words}".rstrip(),
        string(_NFTA_RULE_TABLE, table),
        string(_NFTA_RULE_CHAIN, chain),
        nest(_NFTA_RULE_EXPRESSIONS, *expressions),
        needs=needs,
    )


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


def parse_table(body: bytes) -> Table:
    """A `Table` from the body of an NFT_MSG_NEWTABLE."""
    family = family_word(body)
    return Table(family, text(parse_attributes(body, NFGENMSG.size), _NFTA_TABLE_NAME))


def parse_chain(body: bytes) -> Chain:
    """A `Chain` from the body of an NFT_MSG_NEWCHAIN."""
    family = family_word(body)
    found = parse_attributes(body, NFGENMSG.size)
    hook = parse_attributes(found.get(_NFTA_CHAIN_HOOK, b""))
    base = bool(hook)
    number = be_number(hook, _NFTA_HOOK_HOOKNUM)
    policy = be_number(found, _NFTA_CHAIN_POLICY)
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
    family = family_word(body)
    found = parse_attributes(body, NFGENMSG.size)
    expressions = list_elements(found.get(_NFTA_RULE_EXPRESSIONS, b""))
    return Rule(
        family=family,
        table=text(found, _NFTA_RULE_TABLE),
        chain=text(found, _NFTA_RULE_CHAIN),
        handle=be_number(found, _NFTA_RULE_HANDLE),
        expressions=tuple(text(parse_attributes(each), NFTA_EXPR_NAME) for each in expressions),
    )


# Asked for by family 0, the kernel answers with those of every family.
def _dump(netlink: Netlink, message: int, what: str) -> list[bytes]:
    header = pack_header(NFGENMSG, 0, 0, 0)
    doing = f"list the nftables {what}"
    return netlink.dump(Request(NFNL_SUBSYS_NFTABLES << 8 | message, 0, header, doing, "nftables"))


def tables(netlink: Netlink) -> list[Table]:
    """The tables of every family; ``nft list tables``."""
    return [parse_table(body) for body in _dump(netlink, _NFT_MSG_GETTABLE, "tables")]


def chains(netlink: Netlink) -> list[Chain]:
    """The chains of every table; ``nft list chains``."""
    return [parse_chain(body) for body in _dump(netlink, _NFT_MSG_GETCHAIN, "chains")]


def rules(netlink: Netlink) -> list[Rule]:
    """The rules of every chain, in order; ``nft list ruleset``."""
    return [parse_rule(body) for body in _dump(netlink, _NFT_MSG_GETRULE, "rules")]
