"""A cluster's ranges as users write them: options in, one `Ranges` per family out.

Rules: what is left out is the default; a pod range too small for the default per-node range is cut finer.
Does not belong here: whether ranges can work (see `ranges`).
"""

from collections.abc import Sequence

from netwarren.errors import ConfigurationError
from netwarren.topology.addresses import Family, NetworksArgument, networks_by_family
from netwarren.topology.ranges import DEFAULT_PREFIX, DEFAULT_RANGES, LONGEST_PREFIX, Ranges

# A pod range that the default prefix would not cut into several is cut into so many.
_FEW_NODES_BITS = 4


def read_ranges(
    families: Sequence[Family],
    pods: NetworksArgument = None,
    nodes: NetworksArgument = None,
    prefix: int | None = None,
) -> tuple[Ranges, ...]:
    """One `Ranges` per family, in order.

    ``pods`` and ``nodes`` are one network or one per family; ``prefix`` is the length of each node's
    part of ``pods``, which only a cluster of one family can be given. Raises `AddressError`,
    `ConfigurationError`.
    """
    if prefix is not None and len(families) > 1:
        raise ConfigurationError(
            f"pod_prefix={prefix} cannot fit both IPv4 and IPv6; leave it out, or make the cluster of one family"
        )
    by_pods = networks_by_family(pods, families)
    by_nodes = networks_by_family(nodes, families)
    chosen = []
    for family in families:
        default = DEFAULT_RANGES[family]
        pod_range = by_pods.get(family, default.pods)
        per_node = prefix
        if per_node is None:
            per_node = DEFAULT_PREFIX[family]
            if pod_range.prefixlen >= per_node:
                per_node = min(pod_range.prefixlen + _FEW_NODES_BITS, LONGEST_PREFIX[family])
        chosen.append(Ranges(pod_range, per_node, by_nodes.get(family, default.nodes)))
    return tuple(chosen)
