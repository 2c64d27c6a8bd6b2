"""Which endpoint of a service a connection goes to.

Rules: Istio's: an endpoint must have the port and be reachable; routing preferences rank, capacity weighs; the random
number generator is the caller's.
Does not belong here: which endpoints are healthy (see `store`), which address of an endpoint is taken (see `outbound`).
"""

from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Literal, TypeAlias

from netwarren.mesh.model import LoadBalancer, RoutingPreference, Service, Workload
from netwarren.mesh.state.store import Endpoint, State

Purpose: TypeAlias = Literal["destination", "waypoint"]
"""What a service is looked at for. A waypoint need not have the port if its endpoint has an application tunnel."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An endpoint's workload and the port to reach it at."""

    workload: Workload
    port: int


def choose(
    state: State, service: Service, port: int, source: Workload, purpose: Purpose, rng: Random
) -> Choice | None:
    """The endpoint that a connection from ``source`` to ``port`` of ``service`` goes to; None if there is none."""
    target = service.ports.get(port)
    if purpose == "destination" and target is None:
        return None
    # What decides about the source: all pods of a node have the same, and share what is worked out here.
    asked = (port, purpose, source.network, source.node, source.cluster_id, source.locality)
    memory = state.remembered(service)
    found: tuple[list[Endpoint], list[int]] | None = memory.get(asked)
    if found is None:
        able = [
            each
            for each in state.endpoints(service)
            if _reachable(each.workload, source) and _has_port(each, port, target, purpose)
        ]
        preferred = _preferred(able, source, service.load_balancer)
        found = preferred, list(accumulate(each.workload.capacity for each in preferred))
        memory[asked] = found
    preferred, weights = found
    if not weights or weights[-1] == 0:
        return None
    [chosen] = rng.choices(preferred, cum_weights=weights)
    reached = _port_of(chosen, port, target or 0)
    return None if reached is None else Choice(chosen.workload, reached)


def _reachable(workload: Workload, source: Workload) -> bool:
    """Whether it has an address or a name, or is in another network, behind a gateway."""
    if workload.addresses or workload.hostname:
        return True
    return workload.network != source.network and workload.network_gateway is not None


def _has_port(endpoint: Endpoint, port: int, target: int | None, purpose: Purpose) -> bool:
    if purpose == "waypoint":
        return target is not None or endpoint.workload.application_tunnel is not None
    return bool(target) or port in endpoint.ports


def _port_of(endpoint: Endpoint, port: int, target: int) -> int | None:
    """What the endpoint says of ``port``, else what the service says, else ``port`` into an application tunnel.

    A target of 0 is a named port, of which only the endpoint knows the number.
    """
    if port in endpoint.ports:
        return endpoint.ports[port]
    if target > 0:
        return target
    tunnel = endpoint.workload.application_tunnel
    return port if tunnel is not None and tunnel.port is not None else None


def _preferred(able: list[Endpoint], source: Workload, balancer: LoadBalancer | None) -> list[Endpoint]:
    if balancer is None or balancer.mode == "Standard" or not able:
        return able
    preferences = balancer.routing_preferences
    ranks = [rank(each.workload, source, preferences) for each in able]
    if balancer.mode == "Strict":
        full = rank(source, source, preferences)
        return [each for each, reached in zip(able, ranks, strict=True) if reached == full]
    most = max(ranks)
    return [each for each, reached in zip(able, ranks, strict=True) if reached == most]


def rank(workload: Workload, source: Workload, preferences: tuple[RoutingPreference, ...]) -> int:
    """How many of the leading ``preferences`` a workload shares with ``source``; more is better.

    Network, if it comes first, weighs more than all others together, and where it differs the others still count.
    """
    found = 0
    for place, preference in enumerate(preferences):
        leading_network = place == 0 and preference == "Network"
        if _shares(workload, source, preference):
            found += len(preferences) if leading_network else 1
        elif not leading_network:
            break
    return found


def _shares(workload: Workload, source: Workload, preference: RoutingPreference) -> bool:
    match preference:
        case "Region":
            return workload.locality.region == source.locality.region
        case "Zone":
            return workload.locality.zone == source.locality.zone
        case "Subzone":
            return workload.locality.subzone == source.locality.subzone
        case "Node":
            return workload.node == source.node
        case "Cluster":
            return workload.cluster_id == source.cluster_id
    return workload.network == source.network
