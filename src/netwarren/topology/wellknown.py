"""What every cluster has under the same name or address: its domain, and where its names are asked for.

Rules: constants alone; nothing here can be taken by a pod, a node or a service.
Does not belong here: ranges that a user may choose (see `ranges`).
"""

from ipaddress import IPv4Address, IPv6Address

from netwarren.topology.addresses import Address, Family

CLUSTER_DOMAIN = "cluster.local"

# In the root, reached from everywhere by default routes. The IPv4 one is where Kubernetes' NodeLocal DNSCache
# listens by convention; link-local addresses are in nobody's ranges.
NAME_SERVER: dict[Family, Address] = {
    4: IPv4Address("169.254.20.10"),
    6: IPv6Address("fd00:169:254:20::10"),
}
"""Asked by programs, whose resolv.conf has the search list of a pod."""

NAME_SERVER_IN_PROCESS: dict[Family, Address] = {
    4: IPv4Address("169.254.20.11"),
    6: IPv6Address("fd00:169:254:20::11"),
}
"""Asked by code in this process, whose resolv.conf is not a pod's: the server walks the search list itself."""

NAME_SERVERS = (NAME_SERVER, NAME_SERVER_IN_PROCESS)
