"""A mesh's configuration as its author writes it."""

import json
from copy import deepcopy
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from netwarren.errors import ConfigurationError, MeshConfigError
from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    GatewayAddress,
    LoadBalancer,
    Locality,
    Match,
    NamespacedName,
    NetworkAddress,
    ServiceAccountMatch,
    StringMatch,
    WeightedWaypoint,
    Workload,
)
from netwarren.mesh.state.dump import dump_json, dump_yaml, load_json, load_yaml, plain_of
from netwarren.mesh.state.local_config import Config, config_of
from tests.mesh.state.drawn import configs, examples

LEAST: dict[str, Any] = {
    "workloads": [{"namespace": "default", "workloadIps": ["10.0.0.1"], "services": {}}],
    "services": [{"name": "web", "namespace": "default", "hostname": "web.example.com"}],
    "policies": [{"name": "p", "namespace": "default", "scope": "Namespace", "action": "Deny"}],
}

WHOLE = """
workloads:
- uid: cluster1//v1/Pod/default/local
  name: local
  namespace: default
  serviceAccount: local
  trustDomain: cluster.local
  workloadIps: ["127.0.0.1", "fd00::1"]
  protocol: HBONE
  networkMode: HostNetwork
  node: local
  network: near
  nativeTunnel: true
  hostname: local.example.com
  workloadName: local-abc
  workloadType: deployment
  canonicalName: local
  canonicalRevision: v1
  clusterId: Kubernetes
  locality: {region: r, zone: z, subzone: s}
  status: Unhealthy
  capacity: 3
  waypoint: {destination: "default/waypoint.example.com", hboneMtlsPort: 15009}
  networkGateway: {destination: "far/10.0.0.9"}
  applicationTunnel: {protocol: PROXY, port: 15088}
  authorizationPolicies: ["default/deny-9999"]
  services:
    default/example.com: {80: 8080}
services:
- name: local
  namespace: default
  hostname: example.com
  vips: ["/127.10.0.1"]
  cidrVips: [{network: near, cidr: 10.1.0.0/16}]
  ports: {80: 8080, 81: 0}
  subjectAltNames: ["spiffe://cluster.local/ns/default/sa/local"]
  waypoint: {destination: "/10.0.0.8", hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: "/10.0.0.8"}, weight: 3}]
  loadBalancer: {routingPreferences: [Network, Region], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: IPv4
  canonical: true
  visibility: Namespace
policies:
- action: Allow
  rules:
  - - - notDestinationPorts: [9999]
        principals: [!Exact "cluster.local/ns/default/sa/a", {Prefix: "cluster.local"}, !Presence []]
        notNamespaces: [!Suffix "-test"]
        serviceAccounts: [{namespace: default, serviceAccount: a}]
        sourceIps: ["10.0.0.0/8", "10.0.0.1"]
  name: deny-9999
  namespace: default
  scope: WorkloadSelector
  dryRun: true
"""


def test_every_field_is_read() -> None:
    config = load_yaml(WHOLE)
    [workload], [service], [policy] = config.workloads, config.services, config.policies
    assert workload == Workload(
        uid="cluster1//v1/Pod/default/local",
        name="local",
        namespace="default",
        addresses=(ip_address("127.0.0.1"), ip_address("fd00::1")),
        service_account="local",
        trust_domain="cluster.local",
        network="near",
        node="local",
        protocol="HBONE",
        network_mode="HostNetwork",
        native_tunnel=True,
        hostname="local.example.com",
        workload_name="local-abc",
        workload_type="deployment",
        canonical_name="local",
        canonical_revision="v1",
        cluster_id="Kubernetes",
        locality=Locality("r", "z", "s"),
        status="Unhealthy",
        capacity=3,
        waypoint=GatewayAddress(NamespacedName("default", "waypoint.example.com"), 15009),
        network_gateway=GatewayAddress(NetworkAddress("far", ip_address("10.0.0.9"))),
        application_tunnel=ApplicationTunnel("PROXY", 15088),
        authorization_policies=(NamespacedName("default", "deny-9999"),),
        services={NamespacedName("default", "example.com"): {80: 8080}},
    )
    assert service.vips == (NetworkAddress("", ip_address("127.10.0.1")),)
    assert service.cidr_vips == (CidrAddress("near", ip_network("10.1.0.0/16")),)
    assert service.ports == {80: 8080, 81: 0}
    assert service.subject_alt_names == ("spiffe://cluster.local/ns/default/sa/local",)
    waypoint = GatewayAddress(NetworkAddress("", ip_address("10.0.0.8")))
    assert service.waypoint == waypoint
    assert service.weighted_waypoints == (WeightedWaypoint(waypoint, 3),)
    assert service.load_balancer == LoadBalancer(("Network", "Region"), "Failover", "AllowAll")
    assert (service.ip_families, service.canonical, service.visibility) == ("IPv4", True, "Namespace")
    assert (policy.scope, policy.action, policy.dry_run) == ("WorkloadSelector", "Allow", True)
    assert policy.rules == (
        (
            (
                Match(
                    not_destination_ports=(9999,),
                    principals=(
                        StringMatch("Exact", "cluster.local/ns/default/sa/a"),
                        StringMatch("Prefix", "cluster.local"),
                        StringMatch("Presence"),
                    ),
                    not_namespaces=(StringMatch("Suffix", "-test"),),
                    service_accounts=(ServiceAccountMatch("default", "a"),),
                    source_ips=(ip_network("10.0.0.0/8"), ip_network("10.0.0.1/32")),
                ),
            ),
        ),
    )


def test_what_is_left_out_has_the_defaults_of_a_local_configuration() -> None:
    config = config_of(LEAST)
    [workload], [service], [policy] = config.workloads, config.services, config.policies
    assert workload == Workload(
        uid="",
        name="",
        namespace="default",
        addresses=(ip_address("10.0.0.1"),),
        service_account="",
        trust_domain="",
        cluster_id="",
    )
    assert (service.vips, service.ports, service.load_balancer, service.waypoint) == ((), {}, None, None)
    assert (policy.rules, policy.dry_run) == ((), False)


@pytest.mark.parametrize("text", ["", "null", "{}", "workloads:\npolicies: []\n"])
def test_nothing_is_an_empty_mesh(text: str) -> None:
    assert load_yaml(text) == Config()


def test_yaml_reads_json() -> None:
    assert load_yaml(dump_json(load_yaml(WHOLE))) == load_yaml(WHOLE)


@pytest.mark.parametrize("presence", ["!Presence []", "!Presence", "{Presence: []}", "Presence"])
def test_presence_may_be_written_in_any_way(presence: str) -> None:
    text = f"policies: [{{name: p, namespace: d, scope: Global, action: Deny, rules: [[[{{principals: [{presence} ]}}]]]}}]"
    assert load_yaml(text).policies[0].rules[0][0][0].principals == (StringMatch("Presence"),)


def test_endpoints_that_a_service_names_are_told_to_their_workloads() -> None:
    plain = deepcopy(LEAST)
    plain["workloads"][0]["uid"] = "one"
    plain["services"][0]["endpoints"] = {
        "one": {"workloadUid": "one", "port": {"80": 8080}, "status": "Healthy"},
        "gone": {"workloadUid": "gone", "port": {}},
    }
    assert config_of(plain).workloads[0].services == {
        NamespacedName("default", "web.example.com"): {80: 8080}
    }


def test_an_endpoint_that_a_service_holds_for_unhealthy_stays_so_when_it_is_written_out() -> None:
    plain = deepcopy(LEAST)
    plain["workloads"][0]["uid"] = "one"
    endpoint = {"workloadUid": "one", "port": {"80": 8080}, "status": "Unhealthy"}
    plain["services"][0]["endpoints"] = {"one": endpoint}
    config = config_of(plain)
    assert config.services[0].unhealthy == {"one"}
    assert plain_of(config)["services"][0]["endpoints"] == {"one": endpoint}
    assert load_json(dump_json(config)) == load_yaml(dump_yaml(config)) == config
    assert yaml.safe_load(dump_yaml(config))["services"][0]["endpoints"]["one"]["port"] == {80: 8080}


@examples(30)
@given(configs)
def test_what_is_written_out_reads_back_the_same(config: Config) -> None:
    assert config_of(plain_of(config)) == config
    assert load_json(dump_json(config)) == config
    assert load_yaml(dump_yaml(config)) == config


def test_yaml_writes_string_matches_as_tags_and_ports_as_numbers() -> None:
    text = dump_yaml(load_yaml(WHOLE))
    assert '!Exact "cluster.local/ns/default/sa/a"' in text
    assert "!Presence []" in text
    assert "80: 8080" in text


# --- what is refused ------------------------------------------------------------------------------


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    plain = config = deepcopy(LEAST)
    at: Any = plain
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["workload"], [], "workload: is no known field; did you mean 'workloads'?"),
        (["workloads"], {}, "workloads: is a mapping, and must be a list"),
        (["workloads", 0], "x", "workloads[0]: is 'x', and must be a mapping"),
        (["workloads", 0, "trustdomain"], "x", "workloads[0].trustdomain: is no known field; did you mean 'trustDomain'?"),
        (["workloads", 0, "workload_ips"], "x", "did you mean 'workloadIps'?"),
        (["workloads", 0, "zzz"], "x", "workloads[0].zzz: is no known field; known are applicationTunnel, "),
        (["workloads", 0, "name"], 7, "workloads[0].name: is 7, and must be a string; put it in quotes"),
        (["workloads", 0, "name"], True, "is the truth value true (a word like on, off, yes, no needs quotes"),
        (["workloads", 0, "workloadIps"], ["10.0.0"], "workloads[0].workloadIps[0]: is '10.0.0', which is no IP"),
        (["workloads", 0, "workloadIps"], "10.0.0.1", "workloads[0].workloadIps: is '10.0.0.1', and must be a list"),
        (["workloads", 0, "protocol"], "hbone", "workloads[0].protocol: is 'hbone', which is none of TCP, HBONE"),
        (["workloads", 0, "nativeTunnel"], "yes", "must be true or false"),
        (["workloads", 0, "capacity"], -1, "workloads[0].capacity: is -1, and must be a number from 0 to"),
        (["workloads", 0, "waypoint"], {}, "workloads[0].waypoint.destination: is missing, and must be given"),
        (["workloads", 0, "waypoint"], {"destination": "x"}, "waypoint.destination: is 'x', and must be written network/IP"),
        (["workloads", 0, "waypoint"], {"destination": "a/b/c"}, "must be written network/IP or namespace/hostname"),
        (["workloads", 0, "waypoint"], {"destination": "/10.0.0.1", "hboneMtlsPort": 0}, "number from 1 to 65535"),
        (["workloads", 0, "services"], {"web": {}}, "workloads[0].services.web: is 'web', and must be written namespace/name"),
        (["workloads", 0, "services"], {"d/web": {"80": "x"}}, "workloads[0].services.d/web.80: is 'x', and must be a number"),
        (["workloads", 0, "services"], {"d/web": {"http": 1}}, "services.d/web.http: is 'http', and must be a number"),
        (["workloads", 0, "authorizationPolicies"], ["p"], "authorizationPolicies[0]: is 'p', and must be written namespace/name"),
        (["workloads", 0, "locality"], {"rack": "1"}, "workloads[0].locality.rack: is no known field; known are region"),
        (["services", 0, "vips"], ["10.0.0.1"], "services[0].vips[0]: is '10.0.0.1' without a network; write '/10.0.0.1'"),
        (["services", 0, "vips"], ["/x"], "services[0].vips[0]: is 'x', which is no IP address"),
        (["services", 0, "cidrVips"], [{"cidr": "10.0.0.0/99"}], "cidrVips[0].cidr: is '10.0.0.0/99', which is no range"),
        (["services", 0, "loadBalancer"], {"mode": "Random"}, "loadBalancer.mode: is 'Random', which is none of Standard"),
        (["services", 0, "ports"], {"80": 70000}, "services[0].ports.80: is 70000, and must be a number from 0 to 65535"),
        (["policies", 0, "scope"], "Mesh", "policies[0].scope: is 'Mesh', which is none of Global, Namespace"),
        (["policies", 0, "rules"], [{}], "policies[0].rules[0]: is a mapping, and must be a list"),
        (["policies", 0, "rules"], [[[{"notPrincipal": []}]]], "rules[0][0][0].notPrincipal: is no known field; did you mean 'notPrincipals'?"),
        (["policies", 0, "rules"], [[[{"principals": ["x"]}]]], 'principals[0]: must be one of {"Exact": "x"}'),
        (["policies", 0, "rules"], [[[{"principals": [{"Exactly": "x"}]}]]], "has no match 'Exactly'; did you mean 'Exact'?"),
        (["policies", 0, "rules"], [[[{"principals": [{"Exact": 5}]}]]], "principals[0].Exact: is 5, and must be a string"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place_with_what_would_do(
    path: list[str | int], value: object, message: str
) -> None:
    with pytest.raises(MeshConfigError) as caught:
        config_of(changed(path, value))
    assert message in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *[("workloads", field) for field in ("namespace", "workloadIps", "services")],
        *[("services", field) for field in ("name", "namespace", "hostname")],
        *[("policies", field) for field in ("name", "namespace", "scope", "action")],
    ],
)
def test_what_must_be_given_is_asked_for(kind: str, field: str) -> None:
    plain = deepcopy(LEAST)
    del plain[kind][0][field]
    with pytest.raises(MeshConfigError, match=rf"^{kind}\[0\]\.{field}: is missing, and must be given$"):
        config_of(plain)


@pytest.mark.parametrize(
    "text",
    [
        "workloads: [",
        "workloads: []\nworkloads: []",
        "a: !!python/object:os.system {}",
        "\x00",
        "{a: b: c}",
        "- &a [*a]",
        "? [1]\n: 2",
        "workloads: !Exact {a: 1}",
        "[1, 2]",
        "7",
    ],
)
def test_what_is_no_yaml_or_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(MeshConfigError):
        load_yaml(text)


@pytest.mark.parametrize(
    "text", ["", "{", '{"workloads": [], "workloads": []}', "[" * 100000, "[]", "\ud800"]
)
def test_what_is_no_json_or_no_object_is_refused(text: str) -> None:
    with pytest.raises(MeshConfigError):
        load_json(text)


@examples(60)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_no_text_is_worse_than_refused(text: str | bytes) -> None:
    for load in (load_yaml, load_json):
        try:
            load(text)
        except MeshConfigError:
            continue


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["workloads", "services", "policies", "namespace", "Exact"]), inner)
    ),
    max_leaves=8,
)


@examples(60)
@given(anything)
def test_nothing_plain_is_worse_than_refused(plain: object) -> None:
    try:
        config_of(plain)
    except MeshConfigError:
        pass


@examples(60)
@given(st.sampled_from(["workloads", "services", "policies"]), st.data())
def test_no_value_in_a_field_is_worse_than_refused(kind: str, data: st.DataObject) -> None:
    plain = json.loads(dump_json(load_yaml(WHOLE)))
    field = data.draw(st.sampled_from(sorted(plain[kind][0])))
    plain[kind][0][field] = data.draw(anything)
    said = ""
    try:
        config_of(plain)
    except MeshConfigError as error:
        said = str(error)
    assert said == "" or said.startswith(f"{kind}[0].{field}")
