"""The wiring of services: their rules in the nodes' nftables, and a change as one batch for each node.

Rules: what a node has is known, so that a change touches what differs; a refused change is taken back, on
every node; the table is made with the first service and then stays, so that connections go on. Called on a
thread that may roam (`ferry.roam`), under the cluster's lock.
Does not belong here: what the rules are (see `netwarren.topology.service_rules`).
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from netwarren.cluster.members import Node
from netwarren.errors import KernelError, UnsupportedByKernel
from netwarren.kernel import conntrack, nft_sets, nftables, sysctl
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, Request
from netwarren.topology.addresses import Address, Family, Network, family_of, host_network
from netwarren.topology.service_model import ServiceKey
from netwarren.topology.service_rules import (
    MASQUERADE_MARK,
    Destination,
    Point,
    Rule,
    ServiceRules,
    service_rules,
    stale_answers,
)
from netwarren.topology.services import Endpoint, ServiceSpec

TABLE = "netwarren-services"
"""In every node, one of each family; not kube-proxy's name, which a test may want for a real one."""

Wanted = tuple[ServiceSpec, Sequence[Endpoint]]
Group = list[Request]
"""Requests that belong into one batch."""

_NodeRules = dict[ServiceKey, tuple[ServiceRules, ...]]

_WORDS: dict[Family, str] = {4: "ip", 6: "ip6"}
_MAP = "services"
_NEEDS = "NAT in nftables"

# What one datagram carries, with a margin: net.core.wmem_default is 208 KiB.
_MOST_BYTES = 128 * 1024

# A refusal is one ICMP message for each datagram. By default, the kernel sends six at once to an address, and
# then one a second; a client that asks again would wait for an answer that does not come. (ip-sysctl.rst)
_UNLIMITED = {"net.ipv4.icmp_ratemask": "0", "net.ipv6.icmp.ratemask": "255"}
_LIMITED = {"net.ipv4.icmp_ratemask": "6168", "net.ipv6.icmp.ratemask": "0-1,3-127"}

# linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC
_DSTNAT, _FILTER, _SRCNAT = -100, 0, 100


class ServiceWiring:
    """The service rules of one cluster's nodes.

    ``ranges`` are those that cluster IPs are from, ``others`` addresses in them that somebody else has.
    """

    def __init__(self, ranges: Mapping[Family, Network], others: Sequence[Address] = ()) -> None:
        self._ranges = ranges
        self._others = others
        self._nodes: dict[str, _NodeRules] = {}
        # Kept, because closing one waits for the kernel to free what the last change replaced (10 ms).
        self._netlinks: dict[str, Netlink] = {}

    def update(self, nodes: Iterable[Node], wanted: Mapping[ServiceKey, Wanted | None]) -> None:
        """Have ``nodes`` carry the services as ``wanted``; None: not at all. Others stay as they are.

        Datagrams that flow to an endpoint which is gone go elsewhere from then on. Raises `KernelError`;
        every node is as before then, except that clients' endpoints are not remembered.
        """
        touched: list[tuple[Node, _NodeRules | None]] = []
        try:
            for node in nodes:
                before = self._nodes.get(node.name)
                changed = {
                    key: service_rules(*now, node.spec) if now is not None else ()
                    for key, now in wanted.items()
                }
                if before is not None and all(before.get(key, ()) == now for key, now in changed.items()):
                    continue
                touched.append((node, before))
                after = {**(before or {}), **changed}
                self._nodes[node.name] = {key: rules for key, rules in after.items() if rules}
                netlink = self._netlink(node)
                if before is None:
                    _set(node, _UNLIMITED)
                self._change(netlink, before, changed, self._nodes[node.name])
                _forget_stale(netlink, before or {}, changed)
        except BaseException:
            for node, before in touched:
                self._restore(node, before)
            raise

    def discard(self, name: str) -> None:
        """Forget a node that is gone, or going."""
        self._nodes.pop(name, None)
        netlink = self._netlinks.pop(name, None)
        if netlink is not None:
            netlink.close()

    def close(self) -> None:
        """Let go of all nodes, whose namespaces would go on with our sockets in them."""
        for name in list(self._netlinks):
            self.discard(name)

    def _netlink(self, node: Node) -> Netlink:
        netlink = self._netlinks.get(node.name)
        if netlink is None:
            with node._stepped():
                netlink = self._netlinks[node.name] = Netlink(node.label, NETLINK_NETFILTER)
        return netlink

    def _change(
        self, netlink: Netlink, before: _NodeRules | None, changed: _NodeRules, after: _NodeRules
    ) -> None:
        if before is None:
            _commit(netlink, self._whole(after))
            return
        try:
            _commit(
                netlink,
                (group for key, now in changed.items() for group in change_groups(before.get(key, ()), now)),
            )
        except UnsupportedByKernel:
            raise
        except KernelError:
            # A program in the node has changed our table, with `nft flush ruleset` perhaps.
            _commit(netlink, self._whole(after))

    def _restore(self, node: Node, before: _NodeRules | None) -> None:
        """Whatever state the rules are in, make them what they were."""
        if before is None:
            self._nodes.pop(node.name, None)
            groups = [_no_table(family) for family in self._ranges]
        else:
            self._nodes[node.name] = before
            groups = self._whole(before)
        try:
            _commit(self._netlink(node), groups)
            if before is None:
                _set(node, _LIMITED)
        except KernelError:
            return  # what was refused tells more than this does

    def _whole(self, rules: _NodeRules) -> list[Group]:
        """The tables anew, in place of those there may be."""
        groups = [
            [*_no_table(family), *_frame(family, network, self._others)]
            for family, network in self._ranges.items()
        ]
        for each in rules.values():
            groups += change_groups((), each)
        return groups


def _commit(netlink: Netlink, groups: Iterable[Group]) -> None:
    """Have the groups carried out in order, all or none; in several batches if they are hundreds of endpoints."""
    batch: Group = []
    size = 0
    for group in groups:
        more = sum(map(_size, group))
        if batch and size + more > _MOST_BYTES:
            nftables.commit(netlink, batch)
            batch, size = [], 0
        batch += group
        size += more
    nftables.commit(netlink, batch)


def _size(request: Request) -> int:
    return len(request.body) + 16


def _set(node: Node, settings: Mapping[str, str]) -> None:
    with node._stepped():
        for name, value in settings.items():
            with contextlib.suppress(KernelError):  # a kernel without IPv6, say, or one that has no limit
                sysctl.write(name, value, where=node.label)


# --- the table, without services --------------------------------------------------------------------


def _no_table(family: Family) -> list[Request]:
    """No table of ours, whether there was one or not."""
    word = _WORDS[family]
    return [nftables.add_table(word, TABLE), nftables.delete_table(word, TABLE)]


def _frame(family: Family, services: Network, others: Sequence[Address]) -> Iterator[Request]:
    """The table, its hooks, and the map of destinations, still empty::

    chain prerouting { type nat hook prerouting priority dstnat;    # pods' packets; output: the node's own
        ip daddr . meta l4proto . th dport vmap @services; }
    chain forward { type filter hook forward priority filter;       # no service, or no endpoint
        ip daddr 10.96.0.10/32 accept;                              # one of the others, if there are
        ip daddr 10.96.0.0/12 meta l4proto tcp reject with tcp reset;
        ip daddr 10.96.0.0/12 reject; }
    chain postrouting { type nat hook postrouting priority srcnat;
        meta mark & 0x4000 != 0 meta mark set meta mark & 0xffffbfff masquerade; }
    """
    word = _WORDS[family]
    refusals = [*_exceptions(others, services), *_refusals(family, services)]
    yield nftables.add_table(word, TABLE)
    yield nft_sets.add_destination_map(word, TABLE, _MAP)
    for name, type, hook, priority, rules in (
        ("prerouting", "nat", "prerouting", _DSTNAT, [_to_endpoints(family)]),
        ("output", "nat", "output", _DSTNAT, [_to_endpoints(family)]),
        ("forward", "filter", "forward", _FILTER, refusals),
        ("filter-output", "filter", "output", _FILTER, refusals),
        ("postrouting", "nat", "postrouting", _SRCNAT, [_masquerade()]),
    ):
        yield nftables.add_base_chain(
            word, TABLE, name, type=type, hook=hook, priority=priority, needs=_NEEDS
        )
        for expressions, words in rules:
            yield nftables.add_rule(word, TABLE, name, expressions, words, needs=_NEEDS)


def _to_endpoints(family: Family) -> tuple[list[bytes], str]:
    saddr = f"{_WORDS[family]} daddr"
    return nft.verdict_by_destination(family, _MAP), f"{saddr} . meta l4proto . th dport vmap @{_MAP}"


def _exceptions(others: Sequence[Address], services: Network) -> list[tuple[list[bytes], str]]:
    networks = [host_network(each) for each in others if each in services]
    return [
        ([*nft.match_destination(each), *nft.accept()], f"{_WORDS[family_of(each)]} daddr {each} accept")
        for each in networks
    ]


def _refusals(family: Family, services: Network) -> list[tuple[list[bytes], str]]:
    to_services = nft.match_destination(services)
    words = f"{_WORDS[family]} daddr {services}"
    return [
        (
            [*to_services, *nft.match_protocol("tcp"), *nft.reject_tcp()],
            f"{words} meta l4proto tcp reject with tcp reset",
        ),
        ([*to_services, *nft.reject(family)], f"{words} reject"),
    ]


def _masquerade() -> tuple[list[bytes], str]:
    expressions = [*nft.match_mark(MASQUERADE_MARK), *nft.clear_mark(MASQUERADE_MARK), *nft.masquerade()]
    return expressions, f"meta mark & {MASQUERADE_MARK:#x} != 0 masquerade"


# --- services in the table --------------------------------------------------------------------------


def change_groups(before: Sequence[ServiceRules], after: Sequence[ServiceRules]) -> Iterator[Group]:
    """The requests that make a service what it is ``after`` of what it was ``before``.

    What is the same stays untouched: connections, and the clients that a set remembers. Between any two groups,
    packets find their way: by the old rules, or by the new ones.
    """
    old = {rules.family: rules for rules in before}
    new = {rules.family: rules for rules in after}
    for family in {**old, **new}:
        nothing = ServiceRules(family)
        yield from _changes(_WORDS[family], old.get(family, nothing), new.get(family, nothing))


def _changes(word: str, old: ServiceRules, new: ServiceRules) -> Iterator[Group]:
    # First what nobody goes to yet; last what nobody goes to any more, from the other end.
    for name, seconds in new.sets.items():
        if name not in old.sets:
            yield [nft_sets.add_address_set(word, TABLE, name, seconds)]
    added = [name for name in new.chains if name not in old.chains]
    for name in added:
        yield [nftables.add_chain(word, TABLE, name)]
    for name in added:
        for rule in new.chains[name]:
            yield [_add_rule(word, name, rule)]
    for name, rules in new.chains.items():
        if name in old.chains and rules != old.chains[name]:
            yield [nftables.flush_chain(word, TABLE, name), *(_add_rule(word, name, rule) for rule in rules)]
    for destination in {**old.verdicts, **new.verdicts}:
        had, has = old.verdicts.get(destination), new.verdicts.get(destination)
        if had != has:
            yield [*_replace_verdict(word, _key(destination), had, has)]
    gone = [name for name in old.chains if name not in new.chains]
    for name in gone:
        yield [nftables.flush_chain(word, TABLE, name)]
    for name in gone:
        yield [nftables.delete_chain(word, TABLE, name)]
    for name in old.sets:
        if name not in new.sets:
            yield [nft_sets.delete_set(word, TABLE, name)]


def _add_rule(word: str, chain: str, rule: Rule) -> Request:
    return nftables.add_rule(word, TABLE, chain, _expressions(rule), str(rule), needs=_NEEDS)


def _replace_verdict(word: str, key: bytes, had: str | None, has: str | None) -> Iterator[Request]:
    if had is not None:
        yield nft_sets.delete_element(word, TABLE, _MAP, key)
    if has is not None:
        yield nft_sets.add_verdict(word, TABLE, _MAP, key, has)


def _key(destination: Destination) -> bytes:
    address, protocol, port = destination
    return nft_sets.destination_key(address, protocol, port)


def _expressions(rule: Rule) -> list[bytes]:
    found: list[bytes] = []
    if rule.source is not None:
        found += nft.match_source(rule.source)
    if rule.remembered_in:
        found += nft.match_source_in(rule.family, rule.remembered_in)
    if rule.one_in > 1:
        found += nft.match_random(rule.one_in)
    if rule.masquerade:
        found += nft.set_mark(MASQUERADE_MARK)
    if rule.remember_in is not None:
        found += nft.update_source(rule.family, *rule.remember_in)
    if rule.dnat is not None:
        found += nft.dnat(*rule.dnat)
    if rule.goto is not None:
        found += nft.goto(rule.goto) if rule.goto else nft.drop()
    return found


# --- datagrams that flow already --------------------------------------------------------------------


def _forget_stale(netlink: Netlink, before: _NodeRules, changed: _NodeRules) -> None:
    """Have datagrams choose anew that went to who is no endpoint any more: they know no end by themselves."""
    stale: dict[Destination, frozenset[Point]] = {}
    for key, now in changed.items():
        stale |= stale_answers(before.get(key, ()), now)
    if not stale:
        return
    forgotten = []
    for each in conntrack.connections(netlink):
        if each.protocol == "udp":
            allowed = stale.get((each.destination[0], "udp", each.destination[1]))
            if allowed is not None and each.answering not in allowed:
                forgotten.append(each)
    conntrack.forget(netlink, forgotten)
