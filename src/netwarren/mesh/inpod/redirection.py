"""Redirection of a pod: its rules and its policy route laid, taken back and read, in the pod's network namespace.

Rules: applying is all or nothing, twice is once; removing leaves nothing, and may be repeated; tables, rules and
routes of others stay as they are.
Does not belong here: which rules these are (see `rules`), the proxy's sockets (see `sockets`).
"""

import errno
import functools
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from netwarren.errors import KernelError
from netwarren.kernel import nftables, route, rule, sysctl
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, Request, parse_attributes, text
from netwarren.kernel.nft_wire import NFTA_EXPR_NAME, list_elements
from netwarren.mesh.config import MARK_MASK, PACKET_MARK, REPLY_MARK
from netwarren.mesh.inpod.rules import TABLE, WORDS, Mode, rules_of
from netwarren.mesh.inpod.stepping import call_in, hold
from netwarren.topology.addresses import Family, default_network
from netwarren.topology.links import LOOPBACK_INDEX

ROUTES = 100
"""The routing table of replies that go back to the proxy."""
PRIORITY = 32764
"""Of the policy rule that leads there."""

_AF: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_NEEDS = "NAT in nftables"


def apply(
    netns: int,
    where: str = "the pod",
    *,
    mode: Mode = "shared",
    families: Sequence[Family] | None = None,
    mark: int = PACKET_MARK,
    dns: bool = True,
) -> None:
    """Redirect the pod behind the descriptor ``netns`` of its network namespace, which ``where`` calls by name.

    Where that was done already, the rules are as new. ``families`` are by default those that lo has there. With
    ``mode="shared"`` the replies get their way back, too: ``ip rule add fwmark 0x111/0xfff pref 32764 lookup
    100`` and ``ip route add local default dev lo table 100``. ``dns`` False: questions for names go their way,
    for a proxy that answers none. Raises `KernelError`; the pod is as before then.
    """
    namespace = hold(netns, where)
    try:
        call_in(namespace, lambda: _apply(where, mode, families, mark, dns))
    finally:
        namespace.close()


def remove(netns: int, where: str = "the pod") -> None:
    """Take back what `apply` did there, if anything. Connections that were redirected go on. Raises `KernelError`."""
    namespace = hold(netns, where)
    try:
        call_in(namespace, lambda: _remove(where))
    finally:
        namespace.close()


class Redirection(NamedTuple):
    """What of ours is in a pod, as the kernel describes it; all empty where it is not redirected."""

    chains: tuple[nftables.Chain, ...]
    rules: tuple[nftables.Rule, ...]
    policies: tuple[rule.Rule, ...]
    routes: tuple[route.Route, ...]

    def is_that_of(self, mode: Mode, families: Sequence[Family]) -> bool:
        """Whether these are the chains, rules (by the kinds of their expressions) and routes of ``mode``."""
        chains: list[tuple[str | int, ...]] = []
        rules: list[_Placed] = []
        for family in families:
            for chain in rules_of(mode, family):
                place = (WORDS[family], TABLE, chain.name)
                chains.append((*place, chain.type, chain.hook, chain.priority, "accept"))
                rules += [(*place, _names(each.expressions)) for each in chain.rules]
        routed = [_AF[family] for family in families] if mode == "shared" else []
        return (
            sorted(chains) == sorted(map(tuple, self.chains))
            and _by_chain(rules)
            == _by_chain((each.family, each.table, each.chain, each.expressions) for each in self.rules)
            and sorted(each.family for each in self.policies) == sorted(routed)
            and sorted(_AF[_version(each)] for each in self.routes) == sorted(routed)
        )


def read(netns: int, where: str = "the pod") -> Redirection:
    """What of ours is in the pod. Raises `KernelError`."""
    namespace = hold(netns, where)
    try:
        return call_in(namespace, lambda: _read(where))
    finally:
        namespace.close()


_Placed: TypeAlias = tuple[str, str, str, tuple[str, ...]]
"""A rule's family, table, chain, and the kinds of its expressions."""


def _by_chain(rules: Iterable[_Placed]) -> dict[tuple[str, str], list[tuple[str, ...]]]:
    found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for family, _, chain, expressions in rules:
        found.setdefault((family, chain), []).append(expressions)
    return found


def _names(expressions: Sequence[bytes]) -> tuple[str, ...]:
    elements = list_elements(b"".join(expressions))
    return tuple(text(parse_attributes(each), NFTA_EXPR_NAME) for each in elements)


def _version(found: route.Route) -> Family:
    return 4 if found.destination.version == 4 else 6


# --- inside ---------------------------------------------------------------------------------------


@functools.cache
def _requests(mode: Mode, family: Family, mark: int, dns: bool) -> tuple[Request, ...]:
    return tuple(_table(mode, family, mark, dns))


def _table(mode: Mode, family: Family, mark: int, dns: bool) -> Iterator[Request]:
    word = WORDS[family]
    yield nftables.add_table(word, TABLE)
    for chain in rules_of(mode, family, mark, dns=dns):
        yield nftables.add_base_chain(
            word, TABLE, chain.name, type=chain.type, hook=chain.hook, priority=chain.priority, needs=_NEEDS
        )
        for each in chain.rules:
            yield nftables.add_rule(word, TABLE, chain.name, each.expressions, each.words, needs=_NEEDS)


@functools.cache
def _policy(family: Family) -> tuple[tuple[Request, Request], ...]:
    """The route and the rule to it, each with its undoing."""
    everything, af = default_network(family), _AF[family]
    return (
        (
            route.add_route(everything, index=LOOPBACK_INDEX, kind="local", table=ROUTES),
            route.delete_route(everything, index=LOOPBACK_INDEX, kind="local", table=ROUTES),
        ),
        (
            rule.add_rule(family=af, priority=PRIORITY, fwmark=REPLY_MARK, fwmask=MARK_MASK, table=ROUTES),
            rule.delete_rule(family=af, priority=PRIORITY, fwmark=REPLY_MARK, fwmask=MARK_MASK, table=ROUTES),
        ),
    )


def _present_families() -> tuple[Family, ...]:
    try:
        return (4, 6) if sysctl.read("net.ipv6.conf.lo.disable_ipv6") == "0" else (4,)
    except KernelError:
        return (4,)  # a kernel without IPv6


def _apply(where: str, mode: Mode, families: Sequence[Family] | None, mark: int, dns: bool) -> None:
    wanted = _present_families() if families is None else families
    done: list[Request] = []
    with Netlink(where) as routes, Netlink(where, NETLINK_NETFILTER) as netfilter:
        try:
            for add, undo in (each for family in wanted if mode == "shared" for each in _policy(family)):
                if _tried(routes, add, errno.EEXIST):
                    done.append(undo)
            requests = [each for family in wanted for each in _requests(mode, family, mark, dns)]
            nftables.commit(netfilter, [*_no_tables(netfilter), *requests])
        except BaseException:
            for undo in reversed(done):
                _tried(routes, undo, *_GONE)
            raise
        for family in WORDS:
            if family not in wanted or mode == "dedicated":
                _remove_policy(routes, family)


def _no_tables(netfilter: Netlink) -> list[Request]:
    """Delete what tables of ours there are; asked for first, because a deletion takes the kernel 10 ms."""
    found = [
        each for each in nftables.tables(netfilter) if each.name == TABLE and each.family in WORDS.values()
    ]
    return [nftables.delete_table(each.family, TABLE) for each in found]


# What a kernel answers of something that is not there, or of a family that it has not.
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


def _tried(netlink: Netlink, request: Request, *tolerated: int) -> bool:
    """Whether it was carried out; False where the answer is one of those ``tolerated``."""
    try:
        netlink.commit([request])
    except KernelError as error:
        if error.errno not in tolerated:
            raise
        return False
    return True


def _remove(where: str) -> None:
    with Netlink(where, NETLINK_NETFILTER) as netfilter:
        nftables.commit(netfilter, _no_tables(netfilter))
    with Netlink(where) as routes:
        for family in WORDS:
            _remove_policy(routes, family)


def _remove_policy(routes: Netlink, family: Family) -> None:
    for _, undo in reversed(_policy(family)):
        _tried(routes, undo, *_GONE)


def _read(where: str) -> Redirection:
    with Netlink(where, NETLINK_NETFILTER) as netfilter:
        chains = [each for each in nftables.chains(netfilter) if each.table == TABLE]
        rules = [each for each in nftables.rules(netfilter) if each.table == TABLE]
    with Netlink(where) as netlink:
        policies = [each for each in rule.rules(netlink) if _is_ours(each)]
        routes = [
            each
            for each in route.routes(netlink, table=ROUTES)
            if each.kind == "local" and each.destination.prefixlen == 0 and each.index == LOOPBACK_INDEX
        ]
    return Redirection(tuple(chains), tuple(rules), tuple(policies), tuple(routes))


def _is_ours(found: rule.Rule) -> bool:
    return (found.priority, found.fwmark, found.fwmask, found.table) == (
        PRIORITY,
        REPLY_MARK,
        MARK_MASK,
        ROUTES,
    )
