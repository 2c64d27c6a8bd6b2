"""What an address that a pod calls means to its proxy: services by ranges, by who sees them, workloads by name."""

import contextlib
import socket
from ipaddress import ip_address, ip_network

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.model import CidrAddress
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh_peers.conftest import echo

COMPLETE, FAILED = "connection complete", "connection failed"


class Web:
    """``client`` and ``server``, behind the service ``web``, which listens at port 8080."""

    def __init__(self, cluster: Cluster, **server: object) -> None:
        self.cluster = cluster
        self.proxy = cluster.deploy_ztunnel_sync("node-a")
        self.client = cluster.add_pod("client", "node-a")
        self.server = cluster.add_pod("server", "node-a", labels={"app": "web"}, workload=server)
        self.service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
        self.server.start(double())

    def talks(self, host: str = "", port: int = 80, client: Pod | None = None) -> bool:
        return talk(client or self.client, host or self.service.ip, port)[1] == b"hellohello"


@pytest.fixture
def web(cluster: Cluster) -> Web:
    return Web(cluster)


def test_a_service_may_have_a_range_of_addresses(web: Web) -> None:
    ranges = (CidrAddress("", ip_network("10.77.0.0/16")),)
    web.cluster.mesh.update_service("web", cidr_vips=ranges)
    assert web.talks("10.77.1.2")
    assert web.talks("10.77.255.255")
    record = expect_record_sync(web.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.service"] == "web.default.svc.cluster.local"


def test_a_service_of_a_namespace_is_not_seen_by_others(web: Web) -> None:
    web.cluster.mesh.update_service("web", visibility="Namespace")
    other = web.cluster.add_pod("other", "node-a", namespace="elsewhere")
    assert web.talks()
    assert web.talks(client=other)  # as an address that the mesh does not know
    record = expect_record_sync(
        web.proxy.log, COMPLETE, {"src.namespace": "elsewhere", "direction": "outbound"}
    )
    assert "dst.service" not in record.fields


def test_a_pod_in_its_nodes_network_is_not_found_by_its_address(web: Web) -> None:
    web.cluster.mesh.update(web.server, network_mode="HostNetwork")
    assert web.talks(web.server.ip, 8080)
    record = expect_record_sync(web.proxy.log, COMPLETE, {"direction": "outbound"})
    assert "dst.workload" not in record.fields
    assert "dst.hbone_addr" not in record.fields


def test_a_workload_without_an_address_is_resolved_by_its_hostname_each_time(cluster: Cluster) -> None:
    web = Web(cluster)
    cluster.dns.add("web-0.example.com", "A", web.server.ip)
    far = {"addresses": (), "hostname": "web-0.example.com", "protocol": "TCP"}
    cluster.add_pod("far", "node-b", captured=False, labels={"app": "far"}, workload=far)
    service = cluster.add_service("far", selector={"app": "far"}, ports={80: 8080})
    before = snapshot(web.proxy.metrics)
    for _ in range(2):
        assert web.talks(service.ip)
    labels = {"hostname": "web-0.example.com", "source_workload": "client"}
    expect_sync(before, "istio_on_demand_dns_total", labels, 2)
    record = expect_record_sync(web.proxy.log, COMPLETE, {"dst.workload": "far"})
    assert record.fields["dst.addr"] == f"{web.server.ip}:8080"


@pytest.mark.parametrize("answer", ["NXDOMAIN", "SERVFAIL", "no address"])
def test_a_hostname_that_means_nothing_leads_nowhere(cluster: Cluster, answer: str) -> None:
    web = Web(cluster)
    far = {"addresses": (), "hostname": "web-0.example.com"}
    cluster.add_pod("far", "node-b", captured=False, labels={"app": "far"}, workload=far)
    service = cluster.add_service("far", selector={"app": "far"}, ports={80: 8080})
    with contextlib.ExitStack() as failing:
        if answer == "no address":
            cluster.dns.add("web-0.example.com", "TXT", "nothing to see here")
        else:
            failing.enter_context(cluster.dns.fail(answer, name="web-0.example.com"))
        assert ended(web.client, service.ip, 80)
    failed = expect_record_sync(web.proxy.log, FAILED, {"direction": "outbound"})
    error = (
        "valid dns response had no A/AAAA records"
        if answer == "no address"
        else "no ip addresses were resolved"
    )
    assert error in str(failed.fields["error"])


def test_without_response_baggage_all_goes_on(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a", response_baggage=False)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")


@pytest.mark.parametrize(("most", "tunnels"), [(100, 1), (2, 3), (1, 5)])
def test_a_tunnel_carries_so_many_connections_and_then_there_is_another(
    cluster: Cluster, most: int, tunnels: int
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", pool_max_streams=most)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(echo)
    with contextlib.ExitStack() as opened, client:
        for _ in range(5):
            connection = socket.create_connection((server.ip, 8080), timeout=20)
            opened.enter_context(connection).sendall(b"hello")
            assert connection.recv(10) == b"hello"
    assert proxy.log.changes.wait(lambda: len(_inbound(proxy)) == 5 or None, 20)
    assert len(set(_inbound(proxy))) == tunnels


def _inbound(proxy: NodeProxy) -> list[str]:
    """From where the tunnels came, once a connection."""
    records = [each for each in proxy.log.records() if each.message == COMPLETE]
    return [str(each.fields["src.addr"]) for each in records if each.fields["direction"] == "inbound"]


def test_the_address_that_was_asked_for_decides_the_family() -> None:
    with Cluster(families="dual") as dual:
        dual.deploy_ztunnel_sync("node-a")
        client = dual.add_pod("client", "node-a")
        server = dual.add_pod("server", "node-a", labels={"app": "web"})
        service = dual.add_service("web", selector={"app": "web"}, ports={80: 8080})
        server.start(double(family=socket.AF_INET6))
        six = next(ip for ip in service.ips if ip_address(ip).version == 6)
        assert talk(client, six, 80)[1] == b"hellohello"
        dual.mesh.update_service("web", ip_families="IPv4")
        server.start(double(port=8081))
        four = next(ip for ip in service.ips if ip_address(ip).version == 4)
        dual.mesh.update_service("web", ports={80: 8081})
        assert talk(client, four, 80)[1] == b"hellohello"
