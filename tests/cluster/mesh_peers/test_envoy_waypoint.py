"""Envoy as a waypoint: our node proxy brings a pod's connections to it, and who each of the two is gets checked."""

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.model import GatewayAddress, NamespacedName, NetworkAddress
from netwarren.mesh.telemetry.expect import expect_record_sync
from netwarren.topology.addresses import parse_address
from tests.cluster.mesh_peers import envoys
from tests.cluster.mesh_peers.conftest import SECONDS, echo, echo6, identity, talk

COMPLETE = "connection complete"
US = "spiffe://cluster.local/ns/default/sa/{}"


class Way:
    """``client`` is carried, ``server`` is not and echoes at port 8080; Envoy goes into ``waypoint``."""

    def __init__(self, cluster: Cluster, log: Path, family: int = 4) -> None:
        self.cluster = cluster
        self.log = log
        self.family = family
        self.proxy: NodeProxy = cluster.deploy_ztunnel_sync("node-a")
        self.client = cluster.add_pod("client", "node-a")
        self.server = cluster.add_pod("server", "node-b", captured=False, labels={"app": "web"})
        self.waypoint = cluster.add_pod("waypoint", "node-b", captured=False, labels={"app": "gate"})
        self.server.start(echo if family == 4 else echo6)
        gateway = GatewayAddress(NetworkAddress("", parse_address(self.address(self.waypoint))), 15008)
        cluster.mesh.update(self.server, waypoint=gateway)

    def address(self, pod: Pod) -> str:
        return next(ip for ip in pod.ips if parse_address(ip).version == self.family)

    def named(self) -> GatewayAddress:
        """The waypoint by the name of a service that it is behind."""
        self.cluster.add_service("gate", selector={"app": "gate"}, ports={15008: 15008})
        return GatewayAddress(NamespacedName("default", "gate.default.svc.cluster.local"))

    def open(self, *, waypoint: str = "waypoint", client: str = "client") -> None:
        """Start Envoy as the service account ``waypoint``, which lets in ``client``."""
        certificate = self.cluster.mesh.authority.issue(identity(waypoint))
        self.envoy = envoys.start_waypoint(self.waypoint, certificate, identity(client), self.log)


@pytest.fixture
def way(cluster: Cluster, tmp_path: Path) -> Way:
    envoys.binary()
    return Way(cluster, tmp_path / "access.log")


def test_connections_lead_through_envoy_to_where_they_were_going(way: Way) -> None:
    way.open()
    assert talk(way.client, str(way.server.ip), b"hello") == b"hello"
    record = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["src.identity"] == US.format("client")
    assert record.fields["dst.addr"] == f"{way.waypoint.ip}:15008"
    assert record.fields["dst.hbone_addr"] == f"{way.server.ip}:8080"
    assert record.fields["dst.identity"] == US.format("waypoint")
    assert "error" not in record.fields


def test_an_envoy_by_the_name_of_its_service_is_the_waypoint_of_a_workload(way: Way) -> None:
    way.open()
    way.cluster.mesh.update(way.server, waypoint=way.named())
    assert talk(way.client, way.server.ip, b"hello") == b"hello"
    record = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"{way.waypoint.ip}:15008"
    assert record.fields["dst.identity"] == US.format("waypoint")


def test_an_envoy_by_the_name_of_its_service_is_the_waypoint_of_a_service(way: Way) -> None:
    way.open()
    service = way.cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    way.cluster.mesh.update_service(service, waypoint=way.named())
    assert talk(way.client, service.ip, b"hello", 80) == b"hello"  # whose node translates the address
    way.envoy.stop()
    authority, _, status, _, forwarded = way.log.read_text().splitlines()[0].split()
    assert (authority, status) == (f"{service.ip}:80", "200")
    assert forwarded.endswith(";host=web.default.svc.cluster.local")


@pytest.mark.parametrize("families", ["ipv6", "dual"])
@pytest.mark.parametrize("named", [False, True], ids=["address", "name"])
def test_an_envoy_is_reached_by_ipv6(families: str, named: bool, tmp_path: Path) -> None:
    envoys.binary()
    with Cluster(families=families) as cluster:
        way = Way(cluster, tmp_path / "access.log", family=6)
        way.open()
        if named:
            cluster.mesh.update(way.server, waypoint=way.named())
        server = way.address(way.server)
        assert talk(way.client, server, b"hello") == b"hello"
        record = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
        assert record.fields["dst.addr"] == f"[{way.address(way.waypoint)}]:15008"
        assert record.fields["dst.hbone_addr"] == f"[{server}]:8080"
        assert record.fields["dst.identity"] == US.format("waypoint")
        assert "error" not in record.fields


def test_envoy_is_told_who_calls_and_for_what(way: Way) -> None:
    way.open()
    assert talk(way.client, str(way.server.ip), b"hello") == b"hello"
    way.envoy.stop()  # that it has written what it had to
    authority, who, status, baggage, forwarded = way.log.read_text().splitlines()[0].split()
    assert (authority, who, status) == (f"{way.server.ip}:8080", US.format("client"), "200")
    assert "k8s.pod.name=client" in baggage.split(",")
    assert forwarded.startswith(f'for="{way.client.ip}:')


def test_much_and_many_come_through_envoy_whole(way: Way) -> None:
    way.open()
    data = hashlib.shake_128(b"much").digest(1 << 20)
    with ThreadPoolExecutor(8) as pool:
        pieces = [data[number:] for number in range(24)]
        answers = pool.map(lambda each: _in_turns(way.client, str(way.server.ip), each), pieces)
        assert list(answers) == pieces


def _in_turns(client: Pod, host: str, data: bytes) -> bytes:
    with client, socket.create_connection((host, 8080), timeout=60) as connection:
        answer = bytearray()
        for start in range(0, len(data), 1 << 16):
            connection.sendall(data[start : start + (1 << 16)])
            while len(answer) < min(start + (1 << 16), len(data)):
                answer += connection.recv(1 << 20)
        return bytes(answer)


def test_an_envoy_that_is_somebody_else_is_not_spoken_to(way: Way) -> None:
    way.open(waypoint="impostor")
    assert talk(way.client, str(way.server.ip), b"hello") == b""
    record = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    error = str(record.fields["error"])
    assert US.format("waypoint") in error
    assert US.format("impostor") in error


def test_an_envoy_that_lets_in_others_only_cuts_us(way: Way) -> None:
    way.open(client="somebody-else")
    assert talk(way.client, str(way.server.ip), b"hello") == b""
    record = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["error"]


def test_envoys_refusal_has_a_body_and_its_other_streams_go_on(way: Way) -> None:
    way.open()
    with way.client, socket.create_connection((str(way.server.ip), 8080), timeout=SECONDS) as neighbour:
        neighbour.sendall(b"one")
        assert neighbour.recv(3, socket.MSG_WAITALL) == b"one"
        assert talk(way.client, str(way.server.ip), b"hello", port=81) == b""
        failed = expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
        assert "http status: 503" in str(failed.fields["error"])
        neighbour.sendall(b"two")
        assert neighbour.recv(3, socket.MSG_WAITALL) == b"two"


def test_an_envoy_that_went_and_came_again_is_found(way: Way) -> None:
    way.open()
    assert talk(way.client, str(way.server.ip), b"hello") == b"hello"
    way.envoy.stop()
    assert talk(way.client, str(way.server.ip), b"hello") == b""
    way.open()
    assert talk(way.client, str(way.server.ip), b"hello") == b"hello"
