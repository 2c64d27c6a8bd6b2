"""The mesh as the proxy looks things up in it."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.mesh.model import (
    CidrAddress,
    LoadBalancer,
    NamespacedName,
    Policy,
    Service,
    Workload,
)
from netwarren.mesh.state.dump import plain_service, plain_workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.rbac import ConnectionFacts, Verdict
from netwarren.mesh.state.store import State, best
from tests.mesh.state.builders import at, hostname, key, mesh, pod, service, to
from tests.mesh.state.drawn import configs, examples

SERVER = pod("server", "10.0.0.2", "fd00::2", services={"web": {80: 8080}})
WEB = service("web", "10.1.0.1")


def names(found: Any) -> list[str]:
    return [each.workload.name for each in found]


# --- workloads ------------------------------------------------------------------------------------


def test_a_workload_is_found_by_uid_by_each_address_by_hostname_and_by_what_an_agent_says() -> None:
    named = replace(SERVER, hostname="server.example.com")
    state = mesh(named)
    assert state.workload(SERVER.uid) is named
    assert state.workload_at(at("10.0.0.2")) is named
    assert state.workload_at(at("fd00::2")) is named
    assert state.workload_named("server.example.com", "default") is named
    assert state.workload_of("server", "default", "server") is named


def test_what_is_not_there_is_not_found() -> None:
    state = mesh(SERVER)
    assert state.workload("x") is None
    assert state.workload_at(at("10.0.0.3")) is None
    assert state.workload_at(at("far/10.0.0.2")) is None
    assert state.workload_named("server.example.com", "default") is None
    assert state.workload_of("server", "default", "other") is None


def test_workloads_in_their_nodes_network_are_found_by_everything_but_address() -> None:
    state = mesh(replace(SERVER, network_mode="HostNetwork"), WEB)
    assert state.workload_at(at("10.0.0.2")) is None
    assert state.workload(SERVER.uid) is not None
    assert names(state.endpoints(WEB)) == ["server"]


POD = pod("pod", "10.0.0.2", uid="Kubernetes//Pod/default/pod", protocol="TCP")
HBONE = pod("hbone", "10.0.0.2", uid="cluster1/networking/WorkloadEntry/default/hbone")
PLAIN = pod("plain", "10.0.0.2", uid="cluster1/networking/WorkloadEntry/default/plain", protocol="TCP")


@pytest.mark.parametrize("order", [(POD, HBONE, PLAIN), (PLAIN, HBONE, POD), (HBONE, POD, PLAIN)])
def test_of_those_that_share_an_address_a_pod_comes_before_hbone_before_others(
    order: tuple[Workload, ...],
) -> None:
    state = mesh(*order)
    for expected in (POD, HBONE, PLAIN):
        assert state.workload_at(at("10.0.0.2")) is expected
        state.remove_workload(expected.uid)
    assert state.workload_at(at("10.0.0.2")) is None


def test_of_equals_that_share_an_address_the_latest_is_found() -> None:
    other = pod("other", "10.0.0.2")
    state = mesh(SERVER, other)
    assert state.workload_at(at("10.0.0.2")) is other
    state.add_workload(SERVER)
    assert state.workload_at(at("10.0.0.2")) is SERVER


def test_a_workload_that_is_added_again_leaves_its_old_addresses_and_services() -> None:
    state = mesh(SERVER, WEB)
    state.add_workload(replace(SERVER, addresses=(at("10.0.0.3").address,), services={}))
    assert state.workload_at(at("10.0.0.2")) is None
    assert state.workload_at(at("10.0.0.3")) is not None
    assert state.endpoints(WEB) == ()


# --- services -------------------------------------------------------------------------------------


def shared(name: str, namespace: str, **more: Any) -> Service:
    return replace(service(name, "10.1.0.1", namespace=namespace), hostname="shared.example.com", **more)


FIRST, SECOND = shared("first", "ns1"), shared("second", "ns2")
CANONICAL = shared("canonical", "ns3", canonical=True)
HIDDEN = shared("hidden", "ns4", visibility="Namespace", canonical=True)


@pytest.mark.parametrize(
    ("namespace", "preferred", "among", "expected"),
    [
        ("ns2", None, (FIRST, SECOND, CANONICAL), SECOND),
        ("ns2", "ns1", (FIRST, SECOND, CANONICAL), SECOND),
        ("x", None, (FIRST, SECOND, CANONICAL), CANONICAL),
        ("x", "ns2", (FIRST, SECOND, CANONICAL), CANONICAL),
        ("x", "ns2", (FIRST, SECOND), SECOND),
        ("x", "y", (FIRST, SECOND), FIRST),
        ("x", None, (SECOND, FIRST), SECOND),
        ("x", None, (HIDDEN, FIRST), FIRST),
        ("x", "ns4", (HIDDEN, FIRST), FIRST),
        ("x", None, (HIDDEN,), None),
        ("ns4", None, (FIRST, HIDDEN, CANONICAL), HIDDEN),
        ("x", None, (), None),
    ],
)
def test_of_those_that_share_a_name_the_clients_namespace_then_canonical_then_preferred_then_first(
    namespace: str, preferred: str | None, among: tuple[Service, ...], expected: Service | None
) -> None:
    assert best(among, namespace, preferred) is expected
    state = mesh(*among)
    assert state.service_named("shared.example.com", namespace, preferred) is expected
    if preferred is None:
        assert state.service_at(at("10.1.0.1"), namespace) is expected


def test_a_service_is_found_by_namespace_and_hostname() -> None:
    state = mesh(WEB)
    assert state.service(key("web")) is WEB
    assert state.service(NamespacedName("other", hostname("web"))) is None


def ranged(name: str, *cidrs: str, namespace: str = "default", **more: Any) -> Service:
    ranges = tuple(CidrAddress("", ip_network(each)) for each in cidrs)
    return service(name, namespace=namespace, cidr_vips=ranges, **more)


def test_a_virtual_address_comes_before_a_range() -> None:
    state = mesh(ranged("range", "10.1.0.0/16"), WEB)
    assert state.service_at(at("10.1.0.1"), "default") is WEB
    found = state.service_at(at("10.1.0.2"), "default")
    assert found is not None
    assert found.name == "range"
    assert state.service_at(at("10.2.0.1"), "default") is None
    assert state.service_at(at("far/10.1.0.2"), "default") is None


def test_of_ranges_the_clients_namespace_then_the_longest_then_canonical_is_found() -> None:
    wide = ranged("wide", "10.0.0.0/8", namespace="mine")
    narrow = ranged("narrow", "10.1.0.0/16", namespace="a")
    canonical = ranged("canonical", "10.1.0.0/16", namespace="b", canonical=True)
    hidden = ranged("hidden", "10.1.2.0/24", namespace="c", visibility="Namespace")
    state = mesh(wide, narrow, canonical, hidden)
    address = at("10.1.2.3")
    assert state.service_at(address, "mine") is wide
    assert state.service_at(address, "x") is canonical
    assert state.service_at(address, "c") is hidden
    state.remove_service(canonical.key)
    assert state.service_at(address, "x") is narrow
    state.remove_service(narrow.key)
    assert state.service_at(address, "x") is wide


def test_ranges_of_both_families_are_found() -> None:
    both = ranged("both", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0")
    state = mesh(both)
    assert state.service_at(at("fd12::1"), "x") is both
    assert state.service_at(at("192.0.2.1"), "x") is both
    assert state.service_at(at("2001:db8::1"), "x") is None


def test_all_that_an_address_may_mean_is_the_workload_or_every_service_whoever_sees_it() -> None:
    hidden = ranged("hidden", "10.1.0.0/16", namespace="c", visibility="Namespace")
    state = mesh(ranged("range", "10.0.0.0/8"), hidden, ranged("other", "10.2.0.0/16"), WEB, FIRST, HIDDEN)
    found = state.all_at(at("10.1.0.1"))
    assert [each.name for each in found[:3]] == ["web", "first", "hidden"]
    assert {each.name for each in found[3:]} == {"range", "hidden"}
    assert state.all_at(at("far/10.1.0.1")) == []
    thief = pod("thief", "10.1.0.1")
    state.add_workload(thief)
    assert state.all_at(at("10.1.0.1")) == [thief]


# --- endpoints ------------------------------------------------------------------------------------


def test_endpoints_may_come_before_their_service_and_stay_when_it_is_replaced() -> None:
    state = mesh(SERVER)
    state.add_service(WEB)
    assert names(state.endpoints(WEB)) == ["server"]
    other = replace(WEB, ports={80: 9090})
    state.add_service(other)
    assert names(state.endpoints(other)) == ["server"]
    state.remove_service(WEB.key)
    state.add_service(WEB)
    assert names(state.endpoints(WEB)) == ["server"]


def test_unhealthy_endpoints_are_left_out_unless_all_are_allowed() -> None:
    ill = replace(SERVER, status="Unhealthy")
    state = mesh(ill, WEB)
    assert state.endpoints(WEB) == ()
    assert state.endpoint(WEB, SERVER.uid) is None
    state.add_workload(SERVER)
    assert names(state.endpoints(WEB)) == ["server"]
    state.add_workload(ill)
    lenient = replace(WEB, load_balancer=LoadBalancer(health_policy="AllowAll"))
    state.add_service(lenient)
    assert names(state.endpoints(lenient)) == ["server"]
    assert state.endpoint(lenient, SERVER.uid) is not None


def test_an_endpoint_that_its_service_holds_for_unhealthy_is_left_out_unless_all_are_allowed() -> None:
    holding = replace(WEB, unhealthy=frozenset({SERVER.uid}))
    state = mesh(SERVER, holding)
    assert state.endpoints(holding) == ()
    assert state.endpoint(holding, SERVER.uid) is None
    assert state.dump()["services"][0]["endpoints"] == {}
    lenient = replace(holding, load_balancer=LoadBalancer(health_policy="AllowAll"))
    state.add_service(lenient)
    assert names(state.endpoints(lenient)) == ["server"]
    assert state.endpoint(lenient, SERVER.uid) is not None
    assert state.dump()["services"][0]["endpoints"][SERVER.uid]["status"] == "Unhealthy"
    state.add_service(WEB)
    assert names(state.endpoints(WEB)) == ["server"]


def test_a_workload_knows_the_services_that_are_there() -> None:
    both = pod("server", "10.0.0.2", services={"gone": {}, "web": {}})
    assert mesh(both, WEB).services_of(both) == [WEB]


def test_an_address_means_a_workload_before_a_service() -> None:
    state = mesh(WEB, SERVER)
    assert state.find_address(at("10.1.0.1"), "default") is WEB
    thief = pod("thief", "10.1.0.1")
    state.add_workload(thief)
    assert state.find_address(at("10.1.0.1"), "default") is thief


def test_a_hostname_means_a_service_before_a_workload() -> None:
    same = replace(SERVER, hostname=hostname("web"))
    state = mesh(same, WEB)
    assert state.find(key("web"), "default") is WEB
    state.remove_service(WEB.key)
    assert state.find(key("web"), "default") is same
    assert state.find(at("10.0.0.2"), "default") is same


# --- policies -------------------------------------------------------------------------------------


def deny(name: str, namespace: str = "default", scope: Any = "Namespace") -> Policy:
    return Policy(name, namespace, scope, "Deny", ((),))


def test_the_policies_of_a_workload_are_those_of_its_namespace_of_all_and_those_that_select_it() -> None:
    own, everywhere = deny("own"), deny("everywhere", "istio-system", "Global")
    selecting, other = deny("selecting", scope="WorkloadSelector"), deny("other", "ns")
    unused = deny("unused", scope="WorkloadSelector")
    selected = replace(SERVER, authorization_policies=(selecting.key, NamespacedName("x", "gone")))
    state = mesh(selected, own, everywhere, selecting, other, unused)
    assert state.policies_of(selected) == [own, everywhere, selecting]
    facts = ConnectionFacts(at("10.0.0.1").address, None, to("10.0.0.2:80"))
    for each in (own, everywhere, selecting):
        verdict = state.authorize(selected, facts)
        assert (verdict.allowed, verdict.policy) == (False, each.key)
        state.remove_policy(each.key)
    assert state.authorize(selected, facts).allowed
    assert state.policies_of(selected) == []


def test_policies_that_a_workload_names_and_nobody_has_given_are_told_of_with_the_verdict() -> None:
    selecting, gone = deny("selecting", scope="WorkloadSelector"), NamespacedName("x", "gone")
    selected = replace(SERVER, authorization_policies=(gone, selecting.key))
    state = mesh(selected, selecting)
    facts = ConnectionFacts(at("10.0.0.1").address, None, to("10.0.0.2:80"))
    for _ in range(2):
        assert state.authorize(selected, facts) == Verdict(False, selecting.key, unknown=(gone,))
    state.remove_policy(selecting.key)
    assert state.authorize(selected, facts) == Verdict(True, unknown=(gone, selecting.key))
    state.add_policy(Policy("gone", "x", "WorkloadSelector", "Allow", ((),)))
    assert state.authorize(selected, facts) == Verdict(True, gone, unknown=(selecting.key,))


def test_a_policy_that_is_added_again_is_another_for_those_that_it_selects() -> None:
    selecting = deny("selecting", scope="WorkloadSelector")
    selected = replace(SERVER, authorization_policies=(selecting.key,))
    state = mesh(selected, selecting)
    facts = ConnectionFacts(at("10.0.0.1").address, None, to("10.0.0.2:80"))
    assert not state.authorize(selected, facts).allowed
    state.add_policy(replace(selecting, rules=()))
    assert state.authorize(selected, facts).allowed


# --- the whole ------------------------------------------------------------------------------------


def test_each_change_is_a_version() -> None:
    state = mesh(SERVER)
    assert state.version == 0
    changes: list[Callable[[], None]] = [
        lambda: state.add_workload(SERVER),
        lambda: state.remove_workload(SERVER.uid),
        lambda: state.add_service(WEB),
        lambda: state.remove_service(WEB.key),
        lambda: state.add_policy(deny("p")),
        lambda: state.remove_policy(deny("p").key),
        lambda: state.replace(Config()),
    ]
    for number, change in enumerate(changes):
        change()
        assert state.version == number + 1


def test_replacing_forgets_everything_that_was() -> None:
    state = mesh(SERVER, WEB, deny("p"))
    state.replace(Config((POD,)))
    assert list(state.workloads) == [POD]
    assert not list(state.services)
    assert not list(state.policies)
    assert state.endpoints(WEB) == ()


def test_what_is_removed_twice_or_never_was_is_no_error() -> None:
    state = mesh(SERVER, WEB, deny("p"))
    for _ in range(2):
        state.remove_workload(SERVER.uid)
        state.remove_service(WEB.key)
        state.remove_policy(deny("p").key)


def inside(state: State) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(state).items()
        if name not in ("version", "residents", "_usable", "_remembered", "_selected", "_sets")
    }


@examples(25)
@given(configs)
def test_taking_everything_out_again_leaves_nothing(config: Config) -> None:
    state = State(config)
    for workload in config.workloads:
        state.remove_workload(workload.uid)
    for service_ in config.services:
        state.remove_service(service_.key)
    for policy in config.policies:
        state.remove_policy(policy.key)
    assert not any(value for name, value in inside(state).items() if name != "_by_cidr")
    assert not any(state._by_cidr.values())


@examples(25)
@given(configs, st.randoms(use_true_random=False))
def test_changes_one_by_one_come_to_the_same_as_all_at_once(config: Config, random: Any) -> None:
    state = State(config)
    for workload in config.workloads:
        if random.random() < 0.5:
            state.remove_workload(workload.uid)
    # In the order of the configuration: of equals that share an address the latest is found.
    for workload in config.workloads:
        state.add_workload(workload)
    expected = State(config)
    uids = {workload.uid for workload in config.workloads}
    assert {uid: state.workload(uid) for uid in uids} == {uid: expected.workload(uid) for uid in uids}
    for service_ in expected.services:
        assert {each.workload.uid for each in state.endpoints(service_)} == {
            each.workload.uid for each in expected.endpoints(service_)
        }


def test_the_dump_is_what_config_dump_shows() -> None:
    waiting = pod("waiting", "10.0.0.3", services={"gone": {80: 1}})
    state = mesh(waiting, SERVER, WEB, deny("p"))
    endpoint = {"workloadUid": SERVER.uid, "port": {"80": 8080}, "status": "Healthy"}
    assert state.dump() == {
        "workloads": [plain_workload(SERVER), plain_workload(waiting)],
        "services": [{**plain_service(WEB), "endpoints": {SERVER.uid: endpoint}}],
        "policies": [
            {
                "name": "p",
                "namespace": "default",
                "scope": "Namespace",
                "action": "Deny",
                "rules": [[]],
                "dryRun": False,
            }
        ],
        "stagedServices": {
            str(key("gone")): {
                waiting.uid: {"workloadUid": waiting.uid, "port": {"80": 1}, "status": "Healthy"}
            }
        },
    }
    assert state.dump()["workloads"][0]["workloadIps"] == ["10.0.0.2", "fd00::2"]
