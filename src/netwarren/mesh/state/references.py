"""What a configuration names and does not have: waypoints, gateways, services, policies.

Rules: the proxy itself takes such a configuration, as ztunnel does; whoever writes one asks here first, and gets
every problem in one error, at its place, with the nearest name that is there.
Does not belong here: the schema (see `local_config`).
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from netwarren.errors import MeshConfigError
from netwarren.mesh.model import GatewayAddress, NetworkAddress, Service, Workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State


def check_references(config: Config) -> None:
    """Raises `MeshConfigError` that lists whatever `problems` finds."""
    found = list(problems(config))
    if found:
        raise MeshConfigError("\n".join(found))


def check_workload(config: Config, workload: Workload) -> None:
    """As `check_references`, of ``workload`` alone: what others name may be gone by now, which is not its fault."""
    found = list(_of_workload(State(config), config, workload, f"workload {workload.name!r}"))
    if found:
        raise MeshConfigError("\n".join(found))


def check_service(config: Config, service: Service) -> None:
    """As `check_references`, of ``service`` alone."""
    found = list(_of_service(State(config), config, service, f"service {service.name!r}"))
    if found:
        raise MeshConfigError("\n".join(found))


def problems(config: Config) -> Iterator[str]:
    """A sentence for each name in ``config`` that names nothing, and for each key that is used twice."""
    state = State(config)
    for place, workload in enumerate(config.workloads):
        yield from _of_workload(state, config, workload, f"workloads[{place}]")
    for place, service in enumerate(config.services):
        yield from _of_service(state, config, service, f"services[{place}]")
    yield from _twice("workloads", "uid", (each.uid for each in config.workloads))
    yield from _twice("services", "namespace and hostname", (str(each.key) for each in config.services))
    yield from _twice("policies", "namespace and name", (str(each.key) for each in config.policies))


def _of_workload(state: State, config: Config, workload: Workload, at: str) -> Iterator[str]:
    hostnames = _hostnames(config)
    yield from _gateway(state, workload.waypoint, f"{at}.waypoint.destination", hostnames)
    yield from _gateway(state, workload.network_gateway, f"{at}.networkGateway.destination", hostnames)
    for key in workload.services:
        if state.service(key) is None:
            yield f"{at}.services: no service is called {key}{_near(str(key), hostnames)}"
    for number, key in enumerate(workload.authorization_policies):
        if state.policy(key) is None:
            known = [str(each.key) for each in config.policies]
            yield f"{at}.authorizationPolicies[{number}]: no policy is called {key}{_near(str(key), known)}"


def _of_service(state: State, config: Config, service: Service, at: str) -> Iterator[str]:
    hostnames = _hostnames(config)
    yield from _gateway(state, service.waypoint, f"{at}.waypoint.destination", hostnames)
    for number, each in enumerate(service.weighted_waypoints):
        where = f"{at}.weightedWaypoints[{number}].destination.destination"
        yield from _gateway(state, each.waypoint, where, hostnames)


def _hostnames(config: Config) -> list[str]:
    return [str(each.key) for each in config.services] + [
        f"{each.namespace}/{each.hostname}" for each in config.workloads if each.hostname
    ]


def _gateway(state: State, gateway: GatewayAddress | None, path: str, hostnames: list[str]) -> Iterator[str]:
    if gateway is None:
        return
    destination = gateway.destination
    namespaces = {each.namespace for each in state.services} or {""}
    if any(state.find(destination, namespace) is not None for namespace in namespaces):
        return
    if isinstance(destination, NetworkAddress):
        yield f"{path}: no workload and no service has the address {destination}"
    else:
        yield (
            f"{path}: no service and no workload is called {destination}{_near(str(destination), hostnames)}"
        )


def _near(name: str, known: list[str]) -> str:
    # Hostnames of one domain are near each other whatever they are called: their first labels are compared.
    labels = {_label(each): each for each in known}
    close = get_close_matches(_label(name), labels, 1, 0.6)
    return f"; did you mean {labels[close[0]]}?" if close else ""


def _label(name: str) -> str:
    return name.partition("/")[2].partition(".")[0]


def _twice(what: str, key: str, values: Iterable[str]) -> Iterator[str]:
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        if value in first:
            yield f"{what}[{place}]: has the {key} of {what}[{first[value]}], {value!r}"
        else:
            first[value] = place
