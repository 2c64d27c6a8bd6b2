"""Configurations for hypothesis: everything that the schema can say.

Rules: what is drawn is valid; names are printable but otherwise wild.
Does not belong here: tests.
"""

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    GatewayAddress,
    LoadBalancer,
    Locality,
    Match,
    NamespacedName,
    NetworkAddress,
    Policy,
    Service,
    ServiceAccountMatch,
    StringMatch,
    WeightedWaypoint,
    Workload,
)
from netwarren.mesh.state.local_config import Config

# What YAML takes for something else, and characters that it gives a meaning to.
texts = st.sampled_from(
    ["", "yes", "null", "~", "1e3", "0x1F", "010", "1:20", "2001-01-01", "<<", "=", "-"]
) | st.text(st.sampled_from("aZ0 :#-\"'!&*{}[],%@`|>?~=\\\t\u00e9\u4e2d\U0001f600\u2028\x85"), max_size=6)
words = st.text(st.sampled_from("abcxyz-09"), min_size=1, max_size=8)
addresses = st.ip_addresses()
ports = st.integers(1, 65535)
port_maps = st.dictionaries(ports, st.integers(0, 65535), max_size=2)
hosts = st.builds(NamespacedName, words, words.map(lambda word: f"{word}.example.com"))
network_addresses = st.builds(NetworkAddress, st.sampled_from(["", "near", "far/er"]), addresses)
gateways = st.builds(GatewayAddress, st.one_of(network_addresses, hosts), ports)
networks = st.one_of(
    st.builds(
        lambda value, length: _network(value, length, 4), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
    st.builds(
        lambda value, length: _network(value, length, 6), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)


def _network(value: int, length: int, version: int):  # type: ignore[no-untyped-def]
    from ipaddress import IPv4Network, IPv6Network

    made = IPv4Network if version == 4 else IPv6Network
    return made((value, length), strict=False)


def tuples(each: st.SearchStrategy, most: int = 2) -> st.SearchStrategy:
    return st.lists(each, max_size=most).map(tuple)


workloads = st.builds(
    Workload,
    uid=texts,
    name=texts,
    namespace=words,
    addresses=tuples(addresses),
    service_account=texts,
    trust_domain=texts,
    network=texts,
    node=texts,
    protocol=st.sampled_from(["TCP", "HBONE"]),
    network_mode=st.sampled_from(["Standard", "HostNetwork"]),
    native_tunnel=st.booleans(),
    hostname=texts,
    workload_name=texts,
    workload_type=st.sampled_from(["deployment", "cronjob", "pod", "job"]),
    canonical_name=texts,
    canonical_revision=texts,
    cluster_id=texts,
    locality=st.builds(Locality, texts, texts, texts),
    status=st.sampled_from(["Healthy", "Unhealthy"]),
    capacity=st.integers(0, 2**32 - 1),
    waypoint=st.none() | gateways,
    network_gateway=st.none() | gateways,
    application_tunnel=st.none()
    | st.builds(ApplicationTunnel, st.sampled_from(["NONE", "PROXY"]), st.none() | ports),
    authorization_policies=tuples(hosts),
    services=st.dictionaries(hosts, port_maps, max_size=2),
)
services = st.builds(
    Service,
    name=texts,
    namespace=words,
    hostname=words,
    vips=tuples(network_addresses),
    cidr_vips=tuples(st.builds(CidrAddress, texts, networks)),
    ports=port_maps,
    subject_alt_names=tuples(texts),
    waypoint=st.none() | gateways,
    weighted_waypoints=tuples(st.builds(WeightedWaypoint, gateways, st.integers(0, 100))),
    load_balancer=st.none()
    | st.builds(
        LoadBalancer,
        tuples(st.sampled_from(["Region", "Zone", "Subzone", "Node", "Cluster", "Network"])),
        st.sampled_from(["Standard", "Strict", "Failover", "Passthrough"]),
        st.sampled_from(["OnlyHealthy", "AllowAll"]),
    ),
    ip_families=st.sampled_from([None, "Dual", "IPv4", "IPv6"]),
    canonical=st.booleans(),
    visibility=st.sampled_from(["Public", "Namespace"]),
)


def matches_of(
    strings: st.SearchStrategy[str],
    accounts: st.SearchStrategy[str],
    where: st.SearchStrategy,
    port: st.SearchStrategy[int],
) -> st.SearchStrategy[Match]:
    patterns = tuples(
        st.builds(StringMatch, st.sampled_from(["Exact", "Prefix", "Suffix"]), strings)
        | st.just(StringMatch("Presence")),
        2,
    )
    account = tuples(st.builds(ServiceAccountMatch, accounts, accounts), 2)
    fields = {
        "namespaces": patterns,
        "service_accounts": account,
        "principals": patterns,
        "source_ips": tuples(where, 2),
        "destination_ips": tuples(where, 2),
        "destination_ports": tuples(port, 2),
    }
    # A few fields of a match at a time: most connections match no match that has all of them.
    one = st.one_of(
        [
            st.tuples(st.just(prefix + name), values)
            for name, values in fields.items()
            for prefix in ("", "not_")
        ]
    )
    return st.lists(one, max_size=2).map(lambda given: Match(**dict(given)))


def policies_of(match: st.SearchStrategy[Match]) -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        name=words,
        namespace=words,
        scope=st.sampled_from(["Global", "Namespace", "WorkloadSelector"]),
        action=st.sampled_from(["Allow", "Deny"]),
        rules=tuples(tuples(tuples(match, 2), 2), 2),
        dry_run=st.booleans(),
    )


policies = policies_of(matches_of(texts, texts, networks, st.integers(0, 65535)))
configs = st.builds(Config, tuples(workloads, 2), tuples(policies, 1), tuples(services, 2))


def held_for_unhealthy(config: Config) -> Config:
    """``config`` with all endpoints of its services held for unhealthy by these."""

    def unhealthy(service: Service) -> frozenset[str]:
        others = {each.uid for each in config.workloads if service.key not in each.services}
        return frozenset({each.uid for each in config.workloads} - others)

    held = [replace(each, unhealthy=unhealthy(each)) for each in config.services]
    return replace(config, services=tuple(held))


configs |= configs.map(held_for_unhealthy)


def examples(most: int = 60) -> settings:
    """So many examples, however slow the machine."""
    return settings(max_examples=most, deadline=None, suppress_health_check=[HealthCheck.too_slow])
