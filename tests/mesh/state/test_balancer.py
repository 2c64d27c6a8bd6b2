"""Which endpoint of a service a connection goes to."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.mesh.model import ApplicationTunnel, LoadBalancer, Locality, Service, Workload
from netwarren.mesh.state.balancer import Choice, choose, rank
from tests.mesh.state.builders import gateway, mesh, pod, rng, service
from tests.mesh.state.drawn import examples

WEB = service("web", "10.1.0.1")


def server(name: str, address: str, **more: Any) -> Workload:
    return pod(name, address, services={"web": {}}, **more)


SOURCE = pod("client", "10.0.0.1", locality=Locality("r1", "z1", "s1"), node="node-a", network="n1")
NEAR = server("near", "10.0.0.2", locality=Locality("r1", "z1", "s1"), node="node-b", network="n1")
ZONE = server("zone", "10.0.0.3", locality=Locality("r1", "z1", "s2"), node="node-b", network="n1")
REGION = server("region", "10.0.0.4", locality=Locality("r1", "z2", "s1"), node="node-a", network="n1")
FAR = server("far", "10.0.0.5", locality=Locality("r2", "z1", "s1"), node="node-a", network="n2")
SAME_BUT_NETWORK = server("foreign", "10.0.0.6", locality=SOURCE.locality, node="node-a", network="n2")
ALL = (NEAR, ZONE, REGION, FAR)


def chosen(web: Service, *endpoints: Workload, times: int = 60, source: Workload = SOURCE) -> Counter[str]:
    state = mesh(source, web, *endpoints)
    found = [choose(state, web, 80, source, "destination", rng(seed)) for seed in range(times)]
    return Counter(each.workload.name for each in found if each is not None)


def balanced(mode: str, *preferences: str, health: str = "OnlyHealthy") -> Service:
    return replace(WEB, load_balancer=LoadBalancer(preferences, mode, health))  # type: ignore[arg-type]


def test_endpoints_are_drawn_by_capacity() -> None:
    heavy, light, none = replace(NEAR, capacity=3), replace(ZONE, capacity=1), replace(REGION, capacity=0)
    drawn = chosen(WEB, heavy, light, none, times=1000)
    assert set(drawn) == {"near", "zone"}
    assert 700 < drawn["near"] < 800


def test_no_capacity_at_all_is_no_endpoint() -> None:
    assert chosen(WEB, replace(NEAR, capacity=0)) == {}


@pytest.mark.parametrize("mode", ["Standard"])
def test_standard_mode_prefers_nobody(mode: str) -> None:
    assert set(chosen(balanced(mode, "Region", "Zone"), *ALL)) == {"near", "zone", "region", "far"}


@pytest.mark.parametrize(
    ("preferences", "names"),
    [
        (("Region", "Zone", "Subzone"), {"near"}),
        (("Region", "Zone"), {"near", "zone"}),
        (("Region",), {"near", "zone", "region"}),
        (("Node",), {"region", "far"}),
        (("Node", "Region"), {"region"}),
        (("Cluster",), {"near", "zone", "region", "far"}),
        (("Network",), {"near", "zone", "region"}),
        ((), {"near", "zone", "region", "far"}),
    ],
)
@pytest.mark.parametrize("mode", ["Failover", "Strict"])
def test_the_most_leading_preferences_win(mode: str, preferences: tuple[str, ...], names: set[str]) -> None:
    assert set(chosen(balanced(mode, *preferences), *ALL)) == names


def test_failover_takes_the_next_best_and_strict_takes_nobody() -> None:
    assert set(chosen(balanced("Failover", "Region", "Zone"), REGION, FAR)) == {"region"}
    assert set(chosen(balanced("Failover", "Region", "Zone"), FAR)) == {"far"}
    assert chosen(balanced("Strict", "Region", "Zone"), REGION, FAR) == {}


def test_a_preference_counts_only_if_all_before_it_match() -> None:
    assert rank(FAR, SOURCE, ("Region", "Zone", "Subzone")) == 0
    assert rank(REGION, SOURCE, ("Region", "Zone", "Subzone")) == 1
    assert rank(NEAR, SOURCE, ("Region", "Zone", "Subzone")) == 3


def test_where_network_comes_first_and_differs_the_others_still_count() -> None:
    preferences = ("Network", "Region", "Zone")
    assert rank(SAME_BUT_NETWORK, SOURCE, preferences) == 2  # type: ignore[arg-type]
    assert set(chosen(balanced("Failover", *preferences), SAME_BUT_NETWORK, FAR)) == {"foreign"}


def test_where_network_comes_first_it_weighs_more_than_all_others() -> None:
    stranger = replace(REGION, locality=Locality("r9", "z9", "s9"))
    preferences = ("Network", "Region", "Zone", "Subzone", "Node")
    assert set(chosen(balanced("Failover", *preferences), SAME_BUT_NETWORK, stranger)) == {"region"}


def test_where_network_comes_later_it_is_like_any_other() -> None:
    assert rank(SAME_BUT_NETWORK, SOURCE, ("Region", "Network", "Zone")) == 1


def test_strict_wants_the_network_too() -> None:
    preferences = ("Network", "Region")
    assert set(chosen(balanced("Strict", *preferences), SAME_BUT_NETWORK, NEAR)) == {"near"}
    assert chosen(balanced("Strict", *preferences), SAME_BUT_NETWORK) == {}


@examples()
@given(st.permutations(["Network", "Region", "Zone", "Subzone", "Node", "Cluster"]), st.integers(0, 6))
def test_nobody_ranks_higher_than_the_source_itself(order: list[Any], most: int) -> None:
    preferences = tuple(order[:most])
    best = rank(SOURCE, SOURCE, preferences)
    assert all(0 <= rank(each, SOURCE, preferences) <= best for each in (*ALL, SAME_BUT_NETWORK))


def test_unhealthy_endpoints_are_used_only_where_all_are_allowed() -> None:
    ill = replace(NEAR, status="Unhealthy")
    assert set(chosen(WEB, ill, ZONE)) == {"zone"}
    assert set(chosen(balanced("Standard", health="AllowAll"), ill, ZONE)) == {"near", "zone"}


def test_an_endpoint_that_lacks_a_named_port_is_passed_over() -> None:
    web = replace(WEB, ports={80: 0})
    has = pod("has", "10.0.0.7", services={"web": {80: 9090}})
    state = mesh(SOURCE, web, NEAR, has)
    for seed in range(20):
        assert choose(state, web, 80, SOURCE, "destination", rng(seed)) == Choice(has, 9090)


def test_a_waypoints_port_need_not_be_its_services_if_it_has_a_tunnel_with_a_port() -> None:
    web = replace(WEB, ports={})
    able = replace(NEAR, application_tunnel=ApplicationTunnel("PROXY", 15088))
    state = mesh(SOURCE, web, able)
    assert choose(state, web, 15008, SOURCE, "waypoint", rng()) == Choice(able, 15008)
    assert choose(state, web, 15008, SOURCE, "destination", rng()) is None
    portless = replace(NEAR, application_tunnel=ApplicationTunnel("PROXY"))
    assert choose(mesh(SOURCE, web, portless), web, 15008, SOURCE, "waypoint", rng()) is None


def test_an_endpoint_without_an_address_is_one_only_across_networks_with_a_gateway() -> None:
    bare = pod("bare", services={"web": {}}, network="n2", network_gateway=gateway("10.0.0.8"))
    assert set(chosen(WEB, bare)) == {"bare"}
    assert chosen(WEB, replace(bare, network_gateway=None)) == {}
    assert chosen(WEB, replace(bare, network="n1")) == {}
    assert set(chosen(WEB, replace(bare, network="n1", hostname="bare.example.com"))) == {"bare"}


def test_what_was_worked_out_is_forgotten_when_the_service_or_an_endpoint_changes() -> None:
    state = mesh(SOURCE, WEB, NEAR)

    def found() -> str | None:
        current = state.service(WEB.key)
        assert current is not None
        choice = choose(state, current, 80, SOURCE, "destination", rng())
        return f"{choice.workload.name}:{choice.port}" if choice else None

    assert found() == "near:8080"
    state.remove_workload(NEAR.uid)
    assert found() is None
    state.add_workload(ZONE)
    assert found() == "zone:8080"
    state.add_service(replace(WEB, ports={80: 9090}))
    assert found() == "zone:9090"
    state.add_workload(replace(ZONE, status="Unhealthy"))
    assert found() is None


def test_each_source_has_what_was_worked_out_for_its_own_place() -> None:
    web = balanced("Failover", "Node")
    state = mesh(SOURCE, web, NEAR, REGION)
    elsewhere = replace(SOURCE, node="node-b")
    for source, name in ((SOURCE, "region"), (elsewhere, "near"), (SOURCE, "region")):
        choice = choose(state, web, 80, source, "destination", rng())
        assert choice is not None
        assert choice.workload.name == name
