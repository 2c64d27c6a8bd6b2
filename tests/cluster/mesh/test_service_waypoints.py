"""Waypoints of services, and waypoints where there is IPv6, alone or beside IPv4."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from netwarren import Cluster, Pod
from netwarren.mesh.hbone import proxy_protocol
from netwarren.mesh.model import (
    ApplicationTunnel,
    GatewayAddress,
    Identity,
    LoadBalancer,
    NamespacedName,
    NetworkAddress,
    WeightedWaypoint,
)
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh.hbone_servers import hbone_server

COMPLETE = "connection complete"
WEB = "web.default.svc.cluster.local"
GATE = NamespacedName("default", "gate.default.svc.cluster.local")


def at(address: str) -> GatewayAddress:
    return GatewayAddress(NetworkAddress("", ip_address(address)))


def of_family(ips: tuple[str, ...], family: int) -> str:
    return next(ip for ip in ips if ip_address(ip).version == family)


class Shop:
    """``client`` and ``server``, behind the service ``web``, are captured; ``waypoint``, behind ``gate``, is not."""

    def __init__(self, cluster: Cluster, **waypoint: object) -> None:
        self.cluster = cluster
        self.proxy = cluster.deploy_ztunnel_sync("node-a")
        self.client = cluster.add_pod("client", "node-a")
        self.server = cluster.add_pod("server", "node-a", labels={"app": "web"})
        self.waypoint = self.gate("waypoint", **waypoint)
        self.web = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
        self.service = cluster.add_service("gate", selector={"app": "gate"}, ports={15008: 15008})

    def gate(self, name: str, **workload: object) -> Pod:
        return self.cluster.add_pod(name, "node-b", labels={"app": "gate"}, workload=workload)


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


@pytest.fixture(params=["ipv6", "dual"])
def six(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with Cluster(families=request.param) as cluster:
        yield Shop(cluster)


# --- of services ---


@pytest.mark.parametrize(
    "balancer", [None, LoadBalancer(mode="Passthrough")], ids=["balanced", "passthrough"]
)
def test_the_waypoint_of_a_service_gets_what_is_for_its_address(
    shop: Shop, balancer: LoadBalancer | None
) -> None:
    shop.cluster.mesh.update_service("web", waypoint=at(shop.waypoint.ip), load_balancer=balancer)
    with hbone_server(shop.cluster, shop.waypoint) as came:
        assert talk(shop.client, shop.web.ip, 80) == ("via", b"hello")
    (request,) = came
    assert request.authority == f"{shop.web.ip}:80"
    assert dict(request.headers)["forwarded"].endswith(f";host={WEB}")
    record = expect_record_sync(shop.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"{shop.waypoint.ip}:15008"
    assert record.fields["dst.hbone_addr"] == f"{shop.web.ip}:80"
    assert record.fields["dst.service"] == WEB
    assert record.fields["dst.workload"] == "waypoint"


def test_the_waypoint_of_a_service_is_not_that_of_its_pods(shop: Shop) -> None:
    shop.server.start(double())
    shop.cluster.mesh.update_service("web", waypoint=at(shop.waypoint.ip))
    assert talk(shop.client, shop.server.ip) == (shop.client.ip, b"hellohello")


def test_a_waypoint_by_name_may_prove_to_be_any_that_its_service_is(shop: Shop) -> None:
    other = "spiffe://cluster.local/ns/default/sa/gate-of-all"
    shop.cluster.mesh.update_service("gate", subject_alt_names=(other,))
    shop.cluster.mesh.update_service("web", waypoint=GatewayAddress(GATE))
    for identity in (None, Identity.parse(other)):
        with hbone_server(shop.cluster, shop.waypoint, identity):
            assert talk(shop.client, shop.web.ip, 80) == ("via", b"hello")


def test_waypoints_share_a_service_by_their_weights(shop: Shop) -> None:
    second = shop.gate("second")
    third = shop.gate("third")
    shares = ((shop.waypoint, 1), (second, 1), (third, 0))
    weighted = tuple(WeightedWaypoint(at(pod.ip), weight) for pod, weight in shares)
    shop.cluster.mesh.update_service("web", weighted_waypoints=weighted, waypoint=at(third.ip))
    with (
        hbone_server(shop.cluster, shop.waypoint) as one,
        hbone_server(shop.cluster, second) as other,
        hbone_server(shop.cluster, third) as never,
    ):
        for _ in range(60):  # that all go to one of two: once in 5e17 times
            assert talk(shop.client, shop.web.ip, 80) == ("via", b"hello")
    assert one
    assert other
    assert len(one) + len(other) == 60
    assert never == []


def test_a_captured_pod_is_the_waypoint_of_a_service_for_whose_address_it_answers(shop: Shop) -> None:
    gate = shop.cluster.add_pod("captured", "node-a", labels={"app": "gate"})
    gate.start(double(80))
    shop.waypoint.remove()
    shop.cluster.mesh.update_service("web", waypoint=GatewayAddress(GATE))
    assert talk(shop.client, shop.web.ip, 80) == (shop.client.ip, b"hellohello")
    record = expect_record_sync(shop.proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["dst.workload"] == "captured"
    assert record.fields["dst.hbone_addr"] == f"{shop.web.ip}:80"


def test_a_waypoint_service_without_endpoints_is_an_unknown_waypoint(shop: Shop) -> None:
    shop.cluster.mesh.update_service("web", waypoint=GatewayAddress(GATE))
    shop.waypoint.remove()
    assert ended(shop.client, shop.web.ip, 80)
    failed = expect_record_sync(shop.proxy.log, "connection failed", {"direction": "outbound"})
    assert "unknown waypoint" in str(failed.fields["error"])


# --- where there is IPv6 ---


def test_a_waypoint_is_reached_by_ipv6(six: Shop) -> None:
    there, way = of_family(six.server.ips, 6), of_family(six.waypoint.ips, 6)
    six.cluster.mesh.update(six.server, waypoint=at(way))
    with hbone_server(six.cluster, six.waypoint, host=way) as came:
        assert talk(six.client, there) == ("via", b"hello")
    (request,) = came
    assert request.authority == f"[{there}]:8080"
    assert f'for="[{of_family(six.client.ips, 6)}]:' in dict(request.headers)["forwarded"]
    record = expect_record_sync(six.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"[{way}]:15008"
    assert record.fields["dst.hbone_addr"] == f"[{there}]:8080"


def test_the_waypoint_of_a_service_is_reached_by_ipv6(six: Shop) -> None:
    vip, way = of_family(six.web.ips, 6), of_family(six.waypoint.ips, 6)
    six.cluster.mesh.update_service("web", waypoint=GatewayAddress(GATE))
    with hbone_server(six.cluster, six.waypoint, host=way) as came:
        assert talk(six.client, vip, 80) == ("via", b"hello")
    assert [each.authority for each in came] == [f"[{vip}]:80"]


@pytest.mark.parametrize(("asked", "way"), [(4, 6), (6, 4)])
def test_a_waypoint_by_address_may_be_of_the_other_family(asked: int, way: int) -> None:
    with Cluster(families="dual") as cluster:
        shop = Shop(cluster)
        host = of_family(shop.waypoint.ips, way)
        cluster.mesh.update(shop.server, waypoint=at(host))
        target = of_family(shop.server.ips, asked)
        with hbone_server(cluster, shop.waypoint, host=host) as came:
            assert talk(shop.client, target) == ("via", b"hello")
        assert [each.authority for each in came] == [f"[{target}]:8080" if asked == 6 else f"{target}:8080"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_waypoint_by_name_is_reached_by_the_family_that_was_asked_for(family: int) -> None:
    with Cluster(families="dual") as cluster:
        shop = Shop(cluster)
        cluster.mesh.update(shop.server, waypoint=GatewayAddress(GATE))
        host = of_family(shop.waypoint.ips, family)
        with hbone_server(cluster, shop.waypoint, host=host):
            assert talk(shop.client, of_family(shop.server.ips, family)) == ("via", b"hello")


@pytest.mark.parametrize("captured", ["waypoint and server", "waypoint"])
def test_a_captured_waypoint_gets_addresses_of_ipv6_by_the_proxy_protocol(six: Shop, captured: str) -> None:
    cluster = six.cluster
    tunnel = {"application_tunnel": ApplicationTunnel("PROXY", 15088)}
    waypoint = cluster.add_pod("tunnelled", "node-a", workload=tunnel)
    node, carried = ("node-a", True) if captured == "waypoint and server" else ("node-b", False)
    way = of_family(waypoint.ips, 6)
    server = cluster.add_pod("far", node, captured=carried, workload={"waypoint": at(way)})
    waypoint.start(_headers)
    there, here = of_family(server.ips, 6), of_family(six.client.ips, 6)
    identity = cluster.mesh.workload(six.client).identity
    with six.client, socket.create_connection((there, 8080), timeout=20) as connection:
        said = b"".join(iter(lambda: connection.recv(1000), b"")).decode()
    assert said == f"{here} [{there}]:8080 {identity}"


def _headers(ready: Callable[[object], None]) -> None:
    """Takes a PROXY header on port 15088 of the loopback of IPv6, and says what it says."""
    with socket.create_server(("::1", 15088), family=socket.AF_INET6) as listener:
        ready(None)
        while True:
            with listener.accept()[0] as near:
                data = b""
                while (decoded := proxy_protocol.decode(data)) is None:
                    data += near.recv(1000)
                header, _ = decoded
                near.sendall(f"{header.source.address} {header.destination} {header.identity}".encode())


def test_a_waypoint_is_given_as_a_pod_or_as_a_service(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    gate = cluster.add_pod("gate", "node-b", labels={"app": "gate"})
    web = cluster.add_pod("web", "node-a", workload={"waypoint": gate})
    assert cluster.mesh.workload(web).waypoint == GatewayAddress(NetworkAddress("", ip_address(gate.ip)))
    service = cluster.add_service("gate", selector={"app": "gate"}, ports={15008: 15008})
    cluster.mesh.update(web, waypoint=service)
    name = NamespacedName("default", "gate.default.svc.cluster.local")
    assert cluster.mesh.workload(web).waypoint == GatewayAddress(name)
    shop = cluster.add_service("shop", pods=[web], ports={80: 8080})
    assert cluster.mesh.update_service(shop, waypoint=gate).waypoint is not None
