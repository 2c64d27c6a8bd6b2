"""What a configuration names and does not have."""

from dataclasses import replace

import pytest

from netwarren.errors import MeshConfigError
from netwarren.mesh.model import NamespacedName, Policy, WeightedWaypoint
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.references import check_references, problems
from netwarren.mesh.state.store import State
from tests.mesh.state.builders import gateway, key, pod, service

WAYPOINT = pod("waypoint", "10.0.0.9", services={"waypoint": {}}, hostname="way.example.com")
SERVICE = service("waypoint", "10.1.0.9")
POLICY = Policy("deny-all", "default", "WorkloadSelector", "Deny")


def found(*, workload: object = None, service: object = None) -> list[str]:
    workloads = (WAYPOINT, *([workload] if workload else []))
    services = (SERVICE, *([service] if service else []))
    return list(problems(Config(workloads, (POLICY,), services)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "waypoint",
    ["10.0.0.9", "10.1.0.9", key("waypoint"), NamespacedName("default", "way.example.com")],
)
def test_what_is_there_is_no_problem(waypoint: str | NamespacedName) -> None:
    server = pod(
        "server",
        "10.0.0.2",
        waypoint=gateway(waypoint),
        network_gateway=gateway(waypoint),
        services={"waypoint": {}},
        authorization_policies=(POLICY.key,),
    )
    assert found(workload=server) == []
    check_references(Config((WAYPOINT, server), (POLICY,), (SERVICE,)))


def test_a_waypoint_that_is_not_there_is_named_with_the_nearest_that_is() -> None:
    server = pod("server", waypoint=gateway(key("waypiont")))
    assert found(workload=server) == [
        "workloads[1].waypoint.destination: no service and no workload is called "
        "default/waypiont.default.svc.cluster.local; did you mean default/waypoint.default.svc.cluster.local?"
    ]


def test_an_address_that_nothing_has_is_no_gateway() -> None:
    server = pod("server", network_gateway=gateway("far/10.0.0.9"))
    assert found(workload=server) == [
        "workloads[1].networkGateway.destination: no workload and no service has the address far/10.0.0.9"
    ]


def test_services_and_policies_must_be_there() -> None:
    server = pod("server", services={"x": {}}, authorization_policies=(NamespacedName("default", "deny-al"),))
    assert found(workload=server) == [
        "workloads[1].services: no service is called default/x.default.svc.cluster.local",
        "workloads[1].authorizationPolicies[0]: no policy is called default/deny-al; "
        "did you mean default/deny-all?",
    ]


def test_a_services_waypoints_must_be_there() -> None:
    web = service(
        "web", waypoint=gateway("10.0.0.7"), weighted_waypoints=(WeightedWaypoint(gateway("10.0.0.8"), 1),)
    )
    assert [each.partition(": ")[0] for each in found(service=web)] == [
        "services[1].waypoint.destination",
        "services[1].weightedWaypoints[0].destination.destination",
    ]


def test_a_key_that_is_used_twice_is_a_problem() -> None:
    assert found(workload=replace(WAYPOINT, name="other"), service=SERVICE) == [
        f"workloads[1]: has the uid of workloads[0], {WAYPOINT.uid!r}",
        "services[1]: has the namespace and hostname of services[0], 'default/waypoint.default.svc.cluster.local'",
    ]


def test_all_problems_are_in_one_error_and_the_proxy_takes_it_all_the_same() -> None:
    config = Config((pod("server", "10.0.0.2", waypoint=gateway("10.0.0.7"), services={"web": {}}),))
    with pytest.raises(MeshConfigError) as caught:
        check_references(config)
    assert len(str(caught.value).splitlines()) == 2
    assert State(config).workload(config.workloads[0].uid) is not None
