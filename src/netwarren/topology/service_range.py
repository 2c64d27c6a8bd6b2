"""The range that services get their addresses from, beside the other ranges of a cluster.

Rules: a range that cannot work is refused, with one that would do.
Does not belong here: handing addresses out (see `service_model`), pods' and nodes' ranges (see `ranges`).
"""

from ipaddress import ip_network

from netwarren.errors import AddressError
from netwarren.topology.addresses import Family, Network, host_network
from netwarren.topology.ranges import LONGEST_PREFIX, Ranges, check_use
from netwarren.topology.wellknown import NAME_SERVER, NAME_SERVER_IN_PROCESS

# What kubeadm takes for services, and its like.
DEFAULT_SERVICES: dict[Family, str] = {4: "10.96.0.0/12", 6: "fd00:10:96::/112"}

_OTHER_SERVICES: dict[Family, tuple[str, ...]] = {
    4: ("192.168.0.0/16", "172.30.0.0/16", "100.64.0.0/16"),
    6: ("fd96::/112", "fc96::/112"),
}


def check_service_range(services: Network, ranges: Ranges) -> None:
    """Refuse a range of cluster IPs that cannot work beside ``ranges``; raises `AddressError`."""
    family = ranges.family
    example = DEFAULT_SERVICES[family]
    check_use("service range", services, example)
    longest = LONGEST_PREFIX[family]
    if services.prefixlen > longest:
        raise AddressError(
            f"the service range {services} has no room for services; /{longest} or wider would do"
        )
    others: list[tuple[str, Network]] = [("pod range", ranges.pods), ("node range", ranges.nodes)]
    for servers in (NAME_SERVER, NAME_SERVER_IN_PROCESS):
        others.append(("name server's address", host_network(servers[family])))
    for what, other in others:
        if services.overlaps(other):
            raise AddressError(
                f"the service range {services} and the {what} {other} overlap; make the cluster with "
                f"service_range=, one apart from its other ranges, such as {_apart(ranges)}"
            )


def _apart(ranges: Ranges) -> Network:
    """A range for services that overlaps neither of ``ranges``."""
    family = ranges.family
    for text in (DEFAULT_SERVICES[family], *_OTHER_SERVICES[family]):
        network = ip_network(text)
        if not network.overlaps(ranges.pods) and not network.overlaps(ranges.nodes):
            return network
    return ip_network(_OTHER_SERVICES[family][-1])
