"""The rules that hand a pod's connections to its proxy, as data: in nft's words, and as the kernel takes them.

Rules: pure; they are Istio's own (`ztunnel-redirect-inpod.sh`, `ztunnel-redirect.sh`), chain by chain and in order,
for each family.
Does not belong here: laying them in a pod, and the policy route that goes with them (see `redirection`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, TypeAlias

from netwarren.kernel import nft_expressions as nft
from netwarren.mesh.config import (
    DNS_PORT,
    INBOUND_HBONE_PORT,
    INBOUND_PLAINTEXT_PORT,
    MARK_MASK,
    OUTBOUND_PORT,
    PACKET_MARK,
    REPLY_MARK,
)
from netwarren.topology.addresses import Family, Network

Mode: TypeAlias = Literal["shared", "dedicated"]
"""A proxy for all pods of a node, which enters them; or one that shares its pod with the application."""

TABLE = "netwarren-mesh"
"""In a redirected pod, one of each family; a pod's own ztunnel or test may have others."""

WORDS: dict[Family, str] = {4: "ip", 6: "ip6"}
"""nft's for a family."""

PROBES = IPv4Network("169.254.7.127/32")
"""Where the kubelet's probes come from in a mesh: they go by the proxy."""

_DNS = 53
_LOOPBACK: dict[Family, Network] = {4: IPv4Network("127.0.0.1/32"), 6: IPv6Network("::1/128")}

# linux/netfilter_ipv4.h: NF_IP_PRI_MANGLE, NF_IP_PRI_NAT_DST
_MANGLE, _DSTNAT = -150, -100


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as nft(8) writes it, and as the kernel takes it."""

    words: str
    expressions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain: where packets come through it, and its rules in order."""

    name: str
    type: Literal["filter", "nat", "route"]
    hook: Literal["prerouting", "output"]
    priority: int
    rules: tuple[Rule, ...]


_Phrase: TypeAlias = tuple[str, Sequence[bytes]]


def _rule(*phrases: _Phrase) -> Rule:
    words = " ".join(words for words, _ in phrases)
    return Rule(words, tuple(each for _, expressions in phrases for each in expressions))


def _tcp() -> _Phrase:
    return "meta l4proto tcp", nft.match_protocol("tcp")


def _port(protocol: str, port: int, negated: bool = False) -> _Phrase:
    expressions = [*nft.match_protocol(protocol), *nft.match_destination_port(port, negated=negated)]
    return f"{protocol} dport {'!= ' if negated else ''}{port}", expressions


def _not_to(network: Network) -> _Phrase:
    word = "ip" if network.version == 4 else "ip6"
    words = f"{word} daddr != {network.network_address}"
    return words, nft.match_destination(network, negated=True)


def _unmarked(mark: int) -> _Phrase:
    words = f"meta mark & {MARK_MASK:#x} != {mark:#x}"
    return words, nft.match_masked_mark(mark, MARK_MASK, negated=True)


def _marked(mark: int) -> _Phrase:
    return f"meta mark & {MARK_MASK:#x} == {mark:#x}", nft.match_masked_mark(mark, MARK_MASK)


def _redirect(port: int) -> _Phrase:
    return f"redirect to :{port}", nft.redirect(port)


_ACCEPT: _Phrase = "accept", nft.accept()


def shared_rules(family: Family, mark: int = PACKET_MARK, *, dns: bool = True) -> tuple[Chain, ...]:
    """The rules in a pod of a node whose proxy enters all its pods (ambient mode), for one family.

    What the pod opens goes to port 15001, what is opened to it to 15006, but for 15008, where the proxy listens
    itself; names asked for by TCP and UDP go to 15053, if ``dns``. What carries ``mark`` is the proxy's own and goes its
    way; so do calls to 127.0.0.1, to the pod's own address, and the kubelet's probes. Replies of the application
    to the proxy, which speaks with the client's address, get `REPLY_MARK` and by it the way back (see `apply`).
    """
    loopback = _not_to(_LOOPBACK[family])
    probes_in: list[Rule] = []
    probes_out: list[Rule] = []
    if family == 4:
        address = PROBES.network_address
        probes_in = [_rule((f"ip saddr {address}", nft.match_source(PROBES)), _tcp(), _ACCEPT)]
        probes_out = [_rule((f"ip daddr {address}", nft.match_destination(PROBES)), _tcp(), _ACCEPT)]
    unmarked = _unmarked(mark)
    remember: _Phrase = (
        f"ct mark set ct mark & {MARK_MASK ^ 0xFFFFFFFF:#x} | {REPLY_MARK:#x}",
        nft.set_connection_mark(REPLY_MARK, MARK_MASK),
    )
    replies: _Phrase = (
        f"ct mark & {MARK_MASK:#x} == {REPLY_MARK:#x}",
        nft.match_connection_mark(REPLY_MARK, MARK_MASK),
    )
    not_lo: _Phrase = 'oifname != "lo"', nft.match_output_link("lo", negated=True)
    lo: _Phrase = 'oifname "lo"', nft.match_output_link("lo")
    names: list[Rule] = []
    if dns:
        names = [
            _rule(not_lo, _port("udp", _DNS), unmarked, _redirect(DNS_PORT)),
            _rule(loopback, _port("tcp", _DNS), unmarked, _redirect(DNS_PORT)),
        ]
    return (
        # Marks survive lo and no other link: these are the proxy's own connections to the application.
        Chain("mangle-prerouting", "filter", "prerouting", _MANGLE, (_rule(_marked(mark), remember),)),
        # Of type route, so that the packet is routed anew.
        Chain(
            "mangle-output",
            "route",
            "output",
            _MANGLE,
            (_rule(replies, ("meta mark set ct mark", nft.restore_mark())),),
        ),
        Chain(
            "nat-prerouting",
            "nat",
            "prerouting",
            _DSTNAT,
            (
                *probes_in,
                _rule(
                    loopback,
                    _port("tcp", INBOUND_HBONE_PORT, negated=True),
                    unmarked,
                    _redirect(INBOUND_PLAINTEXT_PORT),
                ),
            ),
        ),
        Chain(
            "nat-output",
            "nat",
            "output",
            _DSTNAT,
            (
                *probes_out,
                *names,
                _rule(_tcp(), _marked(REPLY_MARK), _ACCEPT),
                _rule(loopback, lo, _ACCEPT),
                _rule(loopback, _tcp(), unmarked, _redirect(OUTBOUND_PORT)),
            ),
        ),
    )


def dedicated_rules(family: Family, mark: int = PACKET_MARK) -> tuple[Chain, ...]:
    """The rule where application and proxy share one namespace: what is opened to others goes to port 15001."""
    not_lo: _Phrase = 'oifname != "lo"', nft.match_output_link("lo", negated=True)
    redirect = _rule(_tcp(), not_lo, _unmarked(mark), _redirect(OUTBOUND_PORT))
    return (Chain("nat-output", "nat", "output", _DSTNAT, (redirect,)),)


def rules_of(mode: Mode, family: Family, mark: int = PACKET_MARK, *, dns: bool = True) -> tuple[Chain, ...]:
    """`shared_rules` or `dedicated_rules`."""
    return shared_rules(family, mark, dns=dns) if mode == "shared" else dedicated_rules(family, mark)


def as_text(mode: Mode, family: Family, mark: int = PACKET_MARK) -> str:
    """The table as ``nft -f`` reads it."""
    lines = [f"table {WORDS[family]} {TABLE} {{"]
    for chain in rules_of(mode, family, mark):
        hook = f"type {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;"
        lines += [
            f"\tchain {chain.name} {{",
            f"\t\t{hook}",
            *(f"\t\t{rule.words}" for rule in chain.rules),
            "\t}",
        ]
    return "\n".join([*lines, "}", ""])
