"""Ports of services that have a name: each pod says which number it is."""

from ipaddress import ip_address

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import ConfigurationError, MeshConfigError
from netwarren.mesh.model import GatewayAddress, NamespacedName, NetworkAddress
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh.hbone_servers import forwarding, hbone_server

KEY = NamespacedName("default", "web.default.svc.cluster.local")
COMPLETE, FAILED = "connection complete", "connection failed"


def behind(cluster: Cluster, name: str, ports: dict[int, int], **workload: object) -> Pod:
    """A pod on node-b that is behind the service, with numbers of its own for named ports."""
    workload["services"] = {KEY: ports}
    return cluster.add_pod(name, "node-b", labels={"app": "web"}, workload=workload)


@pytest.fixture
def web(cluster: Cluster) -> Cluster:
    """Two nodes with proxies, ``client`` on one, and a service with a named port, 80, and one with a number, 81."""
    cluster.deploy_ztunnel_sync("node-a")
    cluster.deploy_ztunnel_sync("node-b", network="east")
    cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 80, 81: 8081})
    identity = "spiffe://cluster.local/ns/default/sa/{}"
    cluster.mesh.update_service(
        service, ports={80: 0, 81: 8081}, subject_alt_names=(identity.format("one"), identity.format("two"))
    )
    return cluster


def test_a_named_port_leads_to_the_number_that_each_pod_has(web: Cluster) -> None:
    behind(web, "one", {80: 8080}, network="").start(double(8080))
    behind(web, "two", {80: 9090}, network="").start(double(9090))
    client, vip = web.pod("client"), web.service("web").ip
    for _ in range(8):
        assert talk(client, vip, 80) == (client.ip, b"hellohello")
    wanted = {f"{web.pod('one').ip}:8080", f"{web.pod('two').ip}:9090"}
    seen = {
        str(record.fields["dst.hbone_addr"])
        for record in web.mesh.proxies["node-a"].log.records()
        if record.message == COMPLETE
    }
    assert seen <= wanted


def test_a_pod_without_the_named_port_gets_no_connections_for_it(web: Cluster) -> None:
    behind(web, "one", {}, network="")
    two = behind(web, "two", {80: 9090}, network="")
    two.start(double(9090))
    client, vip = web.pod("client"), web.service("web").ip
    for _ in range(5):
        assert talk(client, vip, 80) == (client.ip, b"hellohello")
    two.remove()
    assert ended(client, vip, 80)
    failed = expect_record_sync(web.mesh.proxies["node-a"].log, FAILED, {"direction": "outbound"})
    assert f"no healthy upstream: {vip}:80" in str(failed.fields["error"])


@pytest.mark.parametrize(("port", "number"), [(80, 9090), (81, 8081)])
def test_a_hostname_is_asked_for_and_leads_to_the_pods_own_port(web: Cluster, port: int, number: int) -> None:
    gateway = web.add_pod("gateway", "node-b", captured=False)
    at = GatewayAddress(NetworkAddress("east", ip_address(gateway.ip)))
    two = behind(web, "two", {80: 9090}, network_gateway=at)
    two.start(double(number))
    client, vip = web.pod("client"), web.service("web").ip
    with hbone_server(web, gateway, handle=forwarding(gateway, lambda authority: two.ip)) as came:
        assert talk(client, vip, port) == (gateway.ip, b"hellohello")
    assert [each.authority for each in came] == [f"{KEY.name}:{port}"]
    record = expect_record_sync(web.mesh.proxies["node-b"].log, COMPLETE, {"direction": "inbound"})
    assert record.fields["dst.hbone_addr"] == f"{KEY.name}:{port}"
    assert record.fields["dst.service"] == KEY.name


def test_a_hostname_with_a_named_port_that_the_pod_has_not_is_answered_503(web: Cluster) -> None:
    gateway = web.add_pod("gateway", "node-b", captured=False)
    at = GatewayAddress(NetworkAddress("east", ip_address(gateway.ip)))
    one = behind(web, "one", {})
    behind(web, "two", {80: 9090}, network_gateway=at)
    client, vip = web.pod("client"), web.service("web").ip
    with hbone_server(web, gateway, handle=forwarding(gateway, lambda authority: one.ip)):
        assert ended(client, vip, 80)
    failed = expect_record_sync(web.mesh.proxies["node-b"].log, FAILED, {"direction": "inbound"})
    assert f"no port for service: {KEY.name}:80" in str(failed.fields["error"])


def test_what_the_proxies_know_of_a_service_changes_by_name_and_stays_with_it(web: Cluster) -> None:
    before = web.mesh.service("web")
    assert before == web.mesh.service("web.default") == web.mesh.service(web.service("web"))
    web.add_service("other", pods=[], ports={1: 1})
    web.add_pod("pod", "node-b")
    assert web.mesh.service("web").ports == {80: 0, 81: 8081}
    web.service("web").remove()
    web.add_service("web", selector={"app": "web"}, ports={80: 8080})
    assert web.mesh.service("web").ports == {80: 8080}


def test_a_service_has_no_fields_but_its_own_and_names_nobody_that_is_not_there(web: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="a service has no field colour"):
        web.mesh.update_service("web", colour="red")
    with pytest.raises(ConfigurationError, match="stays"):
        web.mesh.update_service("web", hostname="other")
    nowhere = GatewayAddress(NetworkAddress("", ip_address("10.9.9.9")))
    with pytest.raises(MeshConfigError, match=r"10\.9\.9\.9"):
        web.mesh.update_service("web", waypoint=nowhere)
    assert web.mesh.service("web").waypoint is None
