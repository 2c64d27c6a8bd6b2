"""Services as captured pods reach them."""

import socket

import pytest

from netwarren import Cluster
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk


def test_a_headless_service_goes_by_the_addresses_of_its_pods(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    pods = [cluster.add_pod(name, "node-b", labels={"app": "db"}) for name in ("one", "two")]
    cluster.add_service("db", selector={"app": "db"}, ports={8080: 8080}, headless=True)
    _, _, addresses = client.run(socket.gethostbyname_ex, "db.default.svc.cluster.local")
    assert set(addresses) == {pod.ip for pod in pods}
    pods[0].start(double())
    assert talk(client, pods[0].ip) == (client.ip, b"hellohello")


def test_a_port_that_a_service_has_not_is_no_way_to_its_pods(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    cluster.add_pod("web", "node-a", labels={"app": "web"}).start(double())
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    assert ended(client, service.ip, 8080)
    expect_record_sync(
        proxy.log, "connection failed", where=lambda each: "no healthy upstream" in str(each.fields["error"])
    )


def test_each_port_of_a_service_leads_to_its_target(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client, web = cluster.add_pod("client", "node-a"), cluster.add_pod("web", "node-a", labels={"app": "web"})
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080, 81: 9090})
    for port in (8080, 9090):
        web.start(double(port))
    for port in (80, 81):
        assert talk(client, service.ip, port) == (client.ip, b"hellohello")


def test_connections_are_counted_for_the_service_at_both_ends(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    cluster.add_pod("web", "node-a", labels={"app": "web"}).start(double())
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    before = snapshot(proxy.metrics)
    talk(client, service.ip, 80)
    for reporter in ("source", "destination"):
        labels = {
            "reporter": reporter,
            "destination_service": "web.default.svc.cluster.local",
            "destination_service_name": "web",
            "destination_service_namespace": "default",
        }
        expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


@pytest.mark.parametrize("families", ["ipv6", "dual"])
def test_a_service_of_ipv6_leads_to_pods_of_ipv6(families: str) -> None:
    with Cluster(families=families) as cluster:
        cluster.deploy_ztunnel_sync("node-a")
        client = cluster.add_pod("client", "node-a")
        web = cluster.add_pod("web", "node-b", labels={"app": "web"})
        web.start(double(family=socket.AF_INET6))
        service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
        vip = next(ip for ip in service.ips if ":" in ip)
        there = next(ip for ip in client.ips if ":" in ip)
        assert talk(client, vip, 80) == (there, b"hellohello")


def test_a_service_of_another_namespace_is_reached_by_its_name(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    cluster.add_pod("web", "node-a", namespace="shop", labels={"app": "web"}).start(double())
    cluster.add_service("web", namespace="shop", selector={"app": "web"}, ports={80: 8080})
    assert talk(client, "web.shop", 80) == (client.ip, b"hellohello")


def test_names_are_told_by_datagram_and_by_stream(cluster: Cluster) -> None:
    import dns.message
    import dns.query

    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    before = snapshot(proxy.metrics)
    question = dns.message.make_query("web.default.svc.cluster.local", "A")
    for ask in (dns.query.udp, dns.query.tcp):
        answer = client.run(ask, question, "10.255.255.53", timeout=20)
        assert [str(each) for each in answer.answer[0]] == [service.ip]
    for protocol in ("udp", "tcp"):
        expect_sync(before, "istio_dns_requests_total", {"request_protocol": protocol}, 1)
