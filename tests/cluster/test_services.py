"""A service carries connections and datagrams from everywhere to the pods behind it; by real packets."""

from collections import Counter

import pytest

from netwarren import Cluster, Pod, Service, ServicePort
from netwarren.kernel import nftables
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink
from netwarren.runtime.machine import Machine
from tests.cluster.servers import Answer, Servers

BOTH = [ServicePort(80, 8080), ServicePort(80, 8080, "udp")]


def web(cluster: Cluster, **options: object) -> Service:
    return cluster.add_service("web", selector={"app": "web"}, **{"ports": {80: 8080}, **options})  # type: ignore[arg-type]


def web_pods(cluster: Cluster) -> list[Pod]:
    labels = {"app": "web"}
    return [cluster.add_pod(f"web-{end}", f"node-{end}", labels=labels) for end in "ab"]


def tables(machine: Machine) -> list[str]:
    def read() -> list[str]:
        with Netlink(machine.label, NETLINK_NETFILTER) as netlink:
            return sorted(f"{table.family} {table.name}" for table in nftables.tables(netlink))

    return machine.run(read)


def test_a_service_shows_its_address_its_ports_and_how_many_are_ready(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    service = web(cluster, ports={80: 8080, "53/udp": 53})
    assert repr(service) == "<Service web.default 10.96.0.1 80->8080/tcp 53/udp, 2 of 2 endpoints ready>"
    pods[0].ready = False
    assert repr(service) == "<Service web.default 10.96.0.1 80->8080/tcp 53/udp, 1 of 2 endpoints ready>"
    assert repr(pods[0]) == "<Pod web-a 10.0.1.2 on node-a, not ready>"
    assert [(each.pod, each.node, each.ready) for each in service.endpoints] == [
        ("web-a", "node-a", False),
        ("web-b", "node-b", True),
    ]


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_pods_and_nodes_reach_a_service_by_both_protocols_and_all_its_addresses(families: str) -> None:
    with Cluster(families=families) as cluster, Servers(web_pods(cluster)) as servers:
        service = cluster.add_service("web", selector={"app": "web"}, ports=BOTH, node_ports=True)
        clients = [cluster.add_pod("near", "node-a"), *cluster.nodes.values()]
        assert len(service.ips) == len(cluster.families)
        for number, address in enumerate(service.ips):
            for client in clients:
                seen = client.ips[number]
                both = {Answer("web-a", seen), Answer("web-b", seen)}
                assert {servers.ask(client, address) for _ in range(40)} == both
                assert {servers.ask_by_datagram(client, address) for _ in range(40)} == both


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_pod_reaches_itself_through_its_service(families: str) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("web-a", labels={"app": "web"})
        service = cluster.add_service("web", selector={"app": "web"}, ports=BOTH)
        gateway = str(pod.node.spec.families[0].gateway)
        with Servers([pod]) as servers:
            assert servers.ask(pod, service.ip) == Answer("web-a", gateway)
            assert servers.ask_by_datagram(pod, service.ip) == Answer("web-a", gateway)


def test_each_endpoint_is_as_likely_as_the_others(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"web-{number}", labels={"app": "web"}) for number in range(4)]
    client, service = cluster.add_pod("client", "node-b"), web(cluster)
    with Servers(pods) as servers:
        counts = Counter(servers.ask(client, service.ip).server for _ in range(400))
    # 100 each is expected, with a standard deviation of 8.7: 55 and 145 are more than five of them away.
    assert set(counts) == {pod.name for pod in pods}
    assert all(55 < count < 145 for count in counts.values())


def test_pods_that_are_named_need_no_labels(cluster: Cluster) -> None:
    one, other = cluster.add_pod("one"), cluster.add_pod("other", "node-b")
    service = cluster.add_service("some", pods=["other"], ports=8080)
    both = cluster.add_service("both", pods=[one, other], ports=8080)
    with Servers([one, other]) as servers:
        assert servers.chosen(one, service.ip, 8080) == {"other"}
        assert servers.chosen(one, both.ip, 8080) == {"one", "other"}


def test_services_of_one_name_in_two_namespaces_have_nothing_to_do_with_each_other(cluster: Cluster) -> None:
    labels = {"app": "web"}
    test = cluster.add_pod("web-test", namespace="test", labels=labels)
    live = cluster.add_pod("web-live", namespace="live", labels=labels)
    client = cluster.add_pod("client", "node-b")
    services = {
        name: cluster.add_service("web", namespace=name, selector=labels, ports={80: 8080})
        for name in ("test", "live")
    }
    with Servers([test, live]) as servers:
        for name, service in services.items():
            assert servers.chosen(client, service.ip) == {f"web-{name}"}
            assert cluster.service("web", name) is service
            assert cluster.resolve(f"web.{name}") == service.ip
    assert list(cluster.services) == ["web.test", "web.live"]


def test_a_service_resolves_before_a_pod_of_its_name(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", labels={"app": "web"})
    assert cluster.resolve("web") == pod.ip
    service = web(cluster)
    assert cluster.resolve("web") == service.ip == "10.96.0.1"
    service.remove()
    assert cluster.resolve("web") == pod.ip


def test_a_headless_service_is_a_name_for_its_first_ready_endpoint_and_nothing_more(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    service = web(cluster, headless=True, ports=())
    assert repr(service) == "<Service web.default headless, 2 of 2 endpoints ready>"
    assert (service.ip, service.ips) == ("", ())
    assert cluster.resolve("web") == pods[0].ip
    pods[0].ready = False
    assert cluster.resolve("web") == pods[1].ip
    assert [tables(node) for node in cluster.nodes.values()] == [[], []]


def test_a_cluster_without_services_has_no_table_and_one_with_them_has_one_a_family_in_each_node() -> None:
    with Cluster(families="dual") as cluster:
        web_pods(cluster)
        assert [tables(node) for node in cluster.nodes.values()] == [[], []]
        web(cluster)
        added = cluster.add_node("node-c")
        wanted = ["ip netwarren-services", "ip6 netwarren-services"]
        assert [tables(node) for node in (*cluster.nodes.values(), added)] == [wanted] * 4
        assert tables(cluster.pod("web-a")) == tables(cluster.root) == []


def test_a_service_of_its_own_address_and_range() -> None:
    with Cluster(families="dual", service_range=["10.8.0.0/24", "fd08::/112"]) as cluster:
        pods = web_pods(cluster)
        service = web(cluster, cluster_ip="fd08::77")
        assert service.ips == ("10.8.0.1", "fd08::77")
        assert cluster.resolve("web", "ipv6") == "fd08::77"
        with Servers(pods) as servers:
            for address in service.ips:
                assert servers.chosen(pods[0], address) == {"web-a", "web-b"}


def test_an_internal_traffic_policy_of_local_keeps_a_node_to_its_own_endpoints(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    service = web(cluster, internal_traffic_policy="Local")
    with Servers(pods) as servers:
        for end in "ab":
            assert servers.chosen(cluster.node(f"node-{end}"), service.ip) == {f"web-{end}"}
            assert servers.chosen(cluster.pod(f"web-{end}"), service.ip) == {f"web-{end}"}


def test_a_service_in_the_report_of_a_failing_test(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    web(cluster, node_ports={80: 30080})
    cluster.add_service("none", pods=(), ports=[53], namespace="test")
    pods[1].ready = False
    report = cluster.report()
    assert (
        "service web  10.96.0.1  80->8080/tcp (node port 30080)\n"
        "   web-a  10.0.1.2  on node-a, ready\n"
        "   web-b  10.0.2.2  on node-b, not ready\n"
        "service none.test  10.96.0.2  53/tcp\n"
        "   no endpoints: it selects no pod\n"
    ) in report
