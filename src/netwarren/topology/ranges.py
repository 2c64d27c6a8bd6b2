"""The ranges of a cluster in one family: where pods get their addresses, where nodes get theirs.

Rules: ranges that cannot work are refused when they are written down, with what would do instead.
Does not belong here: handing anything out (see `pools`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from netwarren.errors import AddressError, ConfigurationError
from netwarren.topology.addresses import (
    Address,
    Family,
    Interface,
    Network,
    NetworkArgument,
    address_at,
    family_of,
    interface_of,
    network_at,
    parse_network,
)

# The network address, a gateway, one pod or node, and IPv4's broadcast address.
LONGEST_PREFIX: dict[Family, int] = {4: 30, 6: 126}

_FORBIDDEN: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified addresses"),
        ("127.0.0.0/8", "loopback addresses"),
        ("169.254.0.0/16", "link-local addresses"),
        ("224.0.0.0/4", "multicast addresses"),
        ("255.255.255.255/32", "the broadcast address"),
        ("::/128", "the unspecified address"),
        ("::1/128", "the loopback address"),
        ("::ffff:0:0/96", "IPv4 addresses in IPv6 form"),
        ("fe80::/10", "link-local addresses"),
        ("ff00::/8", "multicast addresses"),
    )
)


def gateway_of(network: Network) -> Address:
    """The first host address of a network, which its router has: a node for its pods, the root for nodes."""
    return address_at(network, 1)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of a cluster in one family.

    ``pods`` is cut into one range of length ``prefix`` per node, ``nodes`` is the network on the bridge.
    Raises `AddressError` if they cannot work.
    """

    pods: Network
    prefix: int
    nodes: Network

    def __post_init__(self) -> None:
        if self.pods.version != self.nodes.version:
            raise AddressError(
                f"the pod range {self.pods} and the node range {self.nodes} are of two families; "
                "give each family a pod range and a node range of its own"
            )
        check_use("pod range", self.pods, DEFAULT_PODS[self.family])
        check_use("node range", self.nodes, DEFAULT_NODES[self.family])
        _check_prefix(self.pods, self.prefix)
        longest = LONGEST_PREFIX[self.family]
        if self.nodes.prefixlen > longest:
            raise AddressError(
                f"the node range {self.nodes} has no room for a node beside the root; "
                f"/{longest} or wider would do"
            )
        if self.pods.overlaps(self.nodes):
            raise AddressError(
                f"the pod range {self.pods} and the node range {self.nodes} overlap; choose two apart, "
                f"such as {DEFAULT_PODS[self.family]} and {DEFAULT_NODES[self.family]}"
            )

    @classmethod
    def parse(cls, pods: NetworkArgument, prefix: int, nodes: NetworkArgument) -> "Ranges":
        """Ranges as users write them: ``Ranges.parse("10.0.0.0/14", 24, "172.18.0.0/16")``."""
        return cls(parse_network(pods), prefix, parse_network(nodes))

    @property
    def family(self) -> Family:
        return family_of(self.pods)

    @property
    def root(self) -> Interface:
        """What the root has on the bridge: 172.18.0.1/16."""
        return interface_of(gateway_of(self.nodes), self.nodes.prefixlen)

    def spares(self, address: Address) -> bool:
        """Whether ``address``, of this family, never is a node's or a pod's; the first pod range is nobody's."""
        if address.version != self.family or address in self.nodes:
            return False
        return address not in self.pods or address in network_at(self.pods, 0, self.prefix)


def check_use(what: str, network: Network, example: str) -> None:
    """Refuse a network that holds addresses nobody in a cluster can have; raises `AddressError`."""
    for forbidden, kind in _FORBIDDEN:
        if network.version == forbidden.version and network.overlaps(forbidden):
            raise AddressError(
                f"the {what} {network} contains {kind} ({forbidden}); "
                f"choose a private range, such as {example}"
            )


def _check_prefix(pods: Network, prefix: int) -> None:
    shortest, longest = pods.prefixlen + 1, LONGEST_PREFIX[family_of(pods)]
    if shortest <= prefix <= longest:
        return
    if shortest > longest:
        would_do = f"a pod range of /{longest - 1} or wider would do"
    else:
        would_do = f"from /{shortest} to /{longest} would do"
    if prefix > longest:
        why = "leaves pods no address beside the gateway"
    else:
        why = f"cuts no two ranges out of {pods}, and the first of them stays unused"
    raise AddressError(f"a per-node pod range of /{prefix} {why}; {would_do}")


# 1,024 ranges of 254 addresses, as GKE cuts them, and about as many as a bridge has ports.
DEFAULT_PODS: dict[Family, str] = {4: "10.0.0.0/14", 6: "fd00:10::/48"}
DEFAULT_NODES: dict[Family, str] = {4: "172.18.0.0/16", 6: "fd00:172:18::/64"}
DEFAULT_PREFIX: dict[Family, int] = {4: 24, 6: 64}

DEFAULT_RANGES: dict[Family, Ranges] = {
    family: Ranges.parse(DEFAULT_PODS[family], DEFAULT_PREFIX[family], DEFAULT_NODES[family])
    for family in DEFAULT_PODS
}


def choose_ranges(families: Sequence[Family], given: Iterable[Ranges]) -> tuple[Ranges, ...]:
    """One `Ranges` per family, in order of preference: the one given, or else the default."""
    chosen: dict[Family, Ranges] = {}
    for ranges in given:
        family = ranges.family
        if family not in families:
            raise ConfigurationError(
                f"ranges were given for IPv{family} ({ranges.pods}), which this cluster does not have; "
                f"add 'ipv{family}' to its families, or leave the ranges out"
            )
        if family in chosen:
            raise ConfigurationError(
                f"IPv{family} was given two pod ranges, {chosen[family].pods} and {ranges.pods}; give it one"
            )
        chosen[family] = ranges
    return tuple(chosen.get(family, DEFAULT_RANGES[family]) for family in families)
