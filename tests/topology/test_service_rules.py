"""Services as rules in the words of nft, without a kernel; laid out as kube-proxy's nftables mode lays them."""

from ipaddress import IPv4Address, IPv6Address

from netwarren.topology.model import ClusterModel
from netwarren.topology.service_model import ServiceModel
from netwarren.topology.service_rules import DROP, ServiceRules, service_rules, stale_answers
from netwarren.topology.services import ServiceSpec, endpoints_of
from netwarren.topology.specs import NodeSpec

LABELS = {"app": "web"}


def model(families: str = "ipv4") -> ClusterModel:
    made = ClusterModel(families)
    for end in "abc":
        made.add_node(f"node-{end}")
    for end in "ab":
        made.add_pod(f"web-{end}", f"node-{end}", labels=LABELS)
    return made


def web(cluster: ClusterModel, **options: object) -> ServiceSpec:
    services = ServiceModel(cluster.ranges)
    return services.add("web", selector=LABELS, **{"ports": {80: 8080}, **options})  # type: ignore[arg-type]


def on(
    node: str, cluster: ClusterModel, service: ServiceSpec, unready: tuple[str, ...] = ()
) -> tuple[ServiceRules, ...]:
    spec: NodeSpec = cluster.node(node)
    return service_rules(service, endpoints_of(service, cluster.pods.values(), unready), spec)


def text(rules: ServiceRules) -> dict[str, list[str]]:
    return {name: [str(rule) for rule in chain] for name, chain in rules.chains.items()}


def destinations(rules: ServiceRules) -> dict[str, str]:
    return {f"{ip} {protocol} {port}": chain for (ip, protocol, port), chain in rules.verdicts.items()}


def test_a_service_is_a_choice_among_its_endpoints_and_a_way_to_each() -> None:
    cluster = model()
    (rules,) = on("node-a", cluster, web(cluster))
    assert destinations(rules) == {"10.96.0.1 tcp 80": "service-default/web/tcp/80"}
    assert text(rules) == {
        "service-default/web/tcp/80": [
            "numgen random mod 2 0 goto endpoint-default/web/tcp/80__10.0.1.2/8080",
            "goto endpoint-default/web/tcp/80__10.0.2.2/8080",
        ],
        # The source is replaced where a pod of this node would get to itself.
        "endpoint-default/web/tcp/80__10.0.1.2/8080": [
            "ip saddr 10.0.1.2/32 meta mark set meta mark or 0x4000",
            "dnat to 10.0.1.2:8080",
        ],
        "endpoint-default/web/tcp/80__10.0.2.2/8080": ["dnat to 10.0.2.2:8080"],
    }
    assert (rules.sets, rules.answering) == ({}, {})


def test_a_dual_service_has_rules_in_both_families() -> None:
    cluster = model("dual")
    four, six = on("node-c", cluster, web(cluster))
    assert (four.family, six.family) == (4, 6)
    assert destinations(six) == {"fd00:10:96::1 tcp 80": "service-default/web/tcp/80"}
    assert text(six)["endpoint-default/web/tcp/80__fd00.10.0.1..2/8080"] == ["dnat to [fd00:10:0:1::2]:8080"]


def test_who_is_not_ready_is_not_there_and_with_nobody_ready_nothing_is() -> None:
    cluster = model()
    service = web(cluster, node_ports=True)
    (rules,) = on("node-a", cluster, service, ("web-b",))
    assert text(rules)["service-default/web/tcp/80"] == ["goto endpoint-default/web/tcp/80__10.0.1.2/8080"]
    (none,) = on("node-a", cluster, service, ("web-a", "web-b"))
    assert none == ServiceRules(4)


def test_affinity_remembers_each_endpoints_clients_and_looks_there_first() -> None:
    cluster = model()
    (rules,) = on("node-c", cluster, web(cluster, session_affinity=60))
    names = [f"default/web/tcp/80__10.0.{number}.2/8080" for number in (1, 2)]
    assert rules.sets == {f"affinity-{name}": 60 for name in names}
    assert text(rules)["service-default/web/tcp/80"][:2] == [
        f"ip saddr @affinity-{name} goto endpoint-{name}" for name in names
    ]
    assert text(rules)[f"endpoint-{names[0]}"] == [
        f"update @affinity-{names[0]} {{ ip saddr timeout 60s }} dnat to 10.0.1.2:8080"
    ]


def test_a_node_port_of_the_policy_cluster_replaces_the_source() -> None:
    cluster = model()
    (rules,) = on("node-c", cluster, web(cluster, node_ports=True))
    assert destinations(rules)["172.18.0.4 tcp 30000"] == "external-default/web/tcp/80"
    assert text(rules)["external-default/web/tcp/80"] == [
        "meta mark set meta mark or 0x4000 goto service-default/web/tcp/80"
    ]


def test_a_node_port_of_the_policy_local_keeps_it_and_keeps_to_this_node() -> None:
    cluster = model()
    service = web(cluster, node_ports=True, external_traffic_policy="Local")
    own = [
        "ip saddr 10.0.{0}.0/24 goto service-default/web/tcp/80",
        "ip saddr 172.18.0.{1}/32 meta mark set meta mark or 0x4000 goto service-default/web/tcp/80",
    ]
    (rules,) = on("node-b", cluster, service)
    assert text(rules)["external-default/web/tcp/80"] == [
        *(line.format(2, 3) for line in own),
        "goto local-default/web/tcp/80",
    ]
    assert text(rules)["local-default/web/tcp/80"] == ["goto endpoint-default/web/tcp/80__10.0.2.2/8080"]
    (elsewhere,) = on("node-c", cluster, service)
    assert text(elsewhere)["external-default/web/tcp/80"] == [*(line.format(3, 4) for line in own), "drop"]
    assert "local-default/web/tcp/80" not in elsewhere.chains


def test_the_internal_policy_local_drops_where_nobody_is() -> None:
    cluster = model()
    service = web(cluster, internal_traffic_policy="Local")
    (here,) = on("node-a", cluster, service)
    assert destinations(here) == {"10.96.0.1 tcp 80": "local-default/web/tcp/80"}
    (elsewhere,) = on("node-c", cluster, service)
    assert destinations(elsewhere) == {"10.96.0.1 tcp 80": DROP}


def test_a_headless_service_has_no_rules() -> None:
    cluster = model()
    assert on("node-a", cluster, web(cluster, headless=True)) == ()


def test_datagrams_are_stale_where_an_endpoint_is_lost_and_where_the_node_had_to_answer() -> None:
    cluster = model("dual")
    service = web(cluster, ports=["80", "53/udp"], node_ports=True)
    all_, one, none = (
        on("node-a", cluster, service, names) for names in ((), ("web-b",), ("web-a", "web-b"))
    )
    assert stale_answers(one, all_) == stale_answers((), all_) == stale_answers(all_, all_) == {}
    left = {
        4: frozenset({(IPv4Address("10.0.1.2"), 53)}),
        6: frozenset({(IPv6Address("fd00:10:0:1::2"), 53)}),
    }
    four, six = service.cluster_ips
    node_four, node_six = IPv4Address("172.18.0.2"), IPv6Address("fd00:172:18::2")
    assert stale_answers(all_, one) == {
        (four, "udp", 53): left[4],
        (node_four, "udp", 30000): left[4],
        (six, "udp", 53): left[6],
        (node_six, "udp", 30000): left[6],
    }
    # At a cluster IP nobody answered, so nothing is tracked; at a node port, the node did.
    assert stale_answers(none, one) == {
        (node_four, "udp", 30000): left[4],
        (node_six, "udp", 30000): left[6],
    }
    assert set(stale_answers(all_, ()).values()) == {frozenset()}
