"""Services with endpoints in another network: a tunnel within a tunnel, by way of that network's gateway."""

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.errors import MeshConfigError
from netwarren.mesh.hbone.transport import ConnectRequest
from netwarren.mesh.model import (
    GatewayAddress,
    Identity,
    Locality,
    Match,
    NamespacedName,
    NetworkAddress,
    Policy,
    StringMatch,
)
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh.hbone_servers import Handle, forwarding, hbone_server, via
from tests.cluster.mesh_peers.conftest import echo
from tests.cluster.mesh_peers.conftest import talk as say

COMPLETE, FAILED = "connection complete", "connection failed"
CLOSED = "istio_tcp_connections_closed_total"
WEB = "web.default.svc.cluster.local"


def account(name: str) -> Identity:
    return Identity("cluster.local", "default", name)


class East:
    """``client`` is in one network; ``server``, behind the service ``web``, and ``gateway`` are in the network east."""

    def __init__(self, cluster: Cluster, *, family: int = 4, **west: Any) -> None:
        self.cluster = cluster
        self.family = family
        self.west: NodeProxy = cluster.deploy_ztunnel_sync("node-a", **west)
        self.east: NodeProxy = cluster.deploy_ztunnel_sync("node-b", network="east")
        self.client = cluster.add_pod("client", "node-a")
        self.gateway = cluster.add_pod("gateway", "node-b", captured=False)
        self.server = cluster.add_pod(
            "server",
            "node-b",
            labels={"app": "web"},
            workload={"network_gateway": self.at(self.gateway), "locality": Locality("east", "east-1")},
        )
        self.service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
        self.vip = self.address(self.service.ips)
        cluster.mesh.update_service(self.service, subject_alt_names=(str(account("server")),))

    def address(self, ips: tuple[str, ...]) -> str:
        return next(ip for ip in ips if ip_address(ip).version == self.family)

    def at(self, pod: Pod) -> GatewayAddress:
        return GatewayAddress(NetworkAddress("east", ip_address(self.address(pod.ips))))

    @contextlib.contextmanager
    def open(self, to: Pod | None = None, *, identity: str = "gateway") -> Iterator[list[ConnectRequest]]:
        """The gateway works, and leads to ``to``."""
        target = self.address((to or self.server).ips)
        handle: Handle = forwarding(self.gateway, lambda authority: target)
        host = self.address(self.gateway.ips)
        with hbone_server(self.cluster, self.gateway, account(identity), handle=handle, host=host) as came:
            yield came


@pytest.fixture
def east(cluster: Cluster) -> East:
    return East(cluster)


def test_a_service_is_reached_through_the_gateway_of_its_network(east: East) -> None:
    east.server.start(double())
    with east.open() as came:
        assert talk(east.client, east.vip, 80) == (east.gateway.ip, b"hellohello")
    (request,) = came
    assert request.authority == f"{WEB}:80"
    said = dict(request.headers)
    assert said["forwarded"].startswith(f'for="{east.client.ip}:')
    assert said["forwarded"].endswith(f";host={WEB}")
    assert "x-forwarded-network" not in said  # which is for the inner one


def test_both_logs_name_both_ends_and_not_the_gateway(east: East) -> None:
    east.server.start(double())
    with east.open():
        talk(east.client, east.vip, 80)
        said = expect_record_sync(east.west.log, COMPLETE, {"direction": "outbound"}).fields
        heard = expect_record_sync(east.east.log, COMPLETE, {"direction": "inbound"}).fields
    assert said["dst.addr"] == f"{east.gateway.ip}:15008"
    assert said["dst.hbone_addr"] == f"{WEB}:80"
    assert said["dst.service"] == WEB
    assert said["dst.workload"] == "server"
    assert said["dst.identity"] == str(account("server"))
    assert str(heard["src.addr"]).startswith(f"{east.gateway.ip}:")
    assert heard["src.workload"] == "client"
    assert heard["src.identity"] == str(account("client"))
    assert heard["dst.hbone_addr"] == f"{WEB}:80"
    assert heard["dst.workload"] == "server"
    assert (said["bytes_sent"], said["bytes_recv"]) == (heard["bytes_recv"], heard["bytes_sent"])


def test_both_ends_are_counted_and_not_the_gateway(east: East) -> None:
    east.server.start(double())
    before = {"source": snapshot(east.west.metrics), "destination": snapshot(east.east.metrics)}
    with east.open():
        talk(east.client, east.vip, 80)
        for reporter, since in before.items():
            labels = {
                "reporter": reporter,
                "source_workload": "client",
                "source_principal": str(account("client")),
                "destination_workload": "server",
                "destination_principal": str(account("server")),
                "destination_service": WEB,
                "destination_zone": "east-1",
                "connection_security_policy": "mutual_tls",
            }
            expect_sync(since, CLOSED, labels, 1)
            expect_sync(since, "istio_tcp_connections_opened_total", labels, 1)
            expect_sync(since, "istio_tcp_received_bytes_total", labels, 5)


def test_much_comes_through_whole(east: East) -> None:
    data = hashlib.shake_128(b"much").digest(3 << 20)
    east.server.start(echo)
    with east.open():
        assert say(east.client, east.vip, data, 80) == data


def test_a_server_that_ends_its_half_first_still_hears_its_client(east: East) -> None:
    def serve(ready: Callable[[object], None]) -> bytes:
        with socket.create_server(("", 8080)) as listener:
            ready(None)
            with listener.accept()[0] as connection:
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65536), b""))

    serving = east.server.start(serve)
    with east.open(), east.client, socket.create_connection((east.vip, 80), timeout=20) as connection:
        assert connection.recv(10) == b""
        connection.sendall(bytes(300_000))
        connection.shutdown(socket.SHUT_WR)
        assert len(serving.result(20)) == 300_000


def test_connections_share_the_outer_tunnel_and_have_inner_ones_of_their_own(east: East) -> None:
    east.server.start(double())
    with east.open() as came:
        for _ in range(4):
            talk(east.client, east.vip, 80)

        def ends() -> list[object] | None:
            """Where they came from, once the end of all has been told."""
            found: list[object] = [
                record.fields["src.addr"]
                for record in east.east.log.records()
                if record.message == COMPLETE and record.fields["direction"] == "inbound"
            ]
            return found if len(found) == 4 else None

        inner = east.east.log.changes.wait(ends, 20)
    assert inner is not None
    assert len(set(inner)) == 4
    assert len({id(request.tls) for request in came}) == 1


def test_whoever_is_not_the_service_within_is_not_spoken_to(east: East) -> None:
    impostor = east.cluster.add_pod("impostor", "node-b")
    impostor.start(double())
    with east.open(impostor):
        assert ended(east.client, east.vip, 80)
    record = expect_record_sync(east.west.log, COMPLETE, {"direction": "outbound"})
    error = str(record.fields["error"])
    assert "peer did not present the expected SAN" in error
    assert str(account("server")) in error
    assert str(account("impostor")) in error


def test_a_gateway_that_is_somebody_else_is_not_spoken_to(east: East) -> None:
    before = snapshot(east.west.metrics)
    with east.open(identity="impostor") as came:
        assert ended(east.client, east.vip, 80)
    assert came == []
    labels = {"reporter": "source", "response_flags": "TLS_FAILURE", "destination_service": WEB}
    expect_sync(before, CLOSED, labels, 1)


def test_what_the_gateway_refuses_is_an_error_of_the_client(east: East) -> None:
    nobody = east.cluster.add_pod("nobody", "node-b", captured=False)  # has no port 15008
    with east.open(nobody):
        assert ended(east.client, east.vip, 80)
    record = expect_record_sync(east.west.log, COMPLETE, {"direction": "outbound"})
    assert "http status: 503" in str(record.fields["error"])


def test_whom_a_policy_of_the_server_denies_is_kept_out_by_identity(east: East) -> None:
    east.server.start(double())
    match = Match(principals=(StringMatch("Exact", "cluster.local/ns/default/sa/client"),))
    east.cluster.mesh.add_policy(Policy("no", "default", "Namespace", "Deny", rules=(((match,),),)))
    with east.open():
        assert ended(east.client, east.vip, 80)
        record = expect_record_sync(east.west.log, COMPLETE, {"direction": "outbound"})
        assert "http status: 401" in str(record.fields["error"])
        friend = east.cluster.add_pod("friend", "node-a")
        assert talk(friend, east.vip, 80) == (east.gateway.ip, b"hellohello")


def test_a_revoked_server_behind_a_gateway_is_cut(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    east = East(cluster, crl_path=path, crl_debounce=0.0)
    east.server.start(echo)
    before = snapshot(east.west.metrics)
    with east.open(), east.client, socket.create_connection((east.vip, 80), timeout=20) as connection:
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"
        path.write_bytes(cluster.mesh.authority.revoke(account("server")))
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""
    expect_sync(before, "istio_crl_policy_rejections_total", {"reporter": "source"}, 1)
    labels = {"response_flags": "CERT_REVOKED", "destination_workload": "server"}
    expect_sync(before, CLOSED, labels, 1)


def test_a_gateway_that_nobody_is_cannot_be_named_and_leads_nowhere_when_it_goes(east: East) -> None:
    nowhere = GatewayAddress(NetworkAddress("east", ip_address("10.9.9.9")))
    with pytest.raises(MeshConfigError, match=r"10\.9\.9\.9"):
        east.cluster.mesh.update(east.server, network_gateway=nowhere)
    east.gateway.remove()
    before = snapshot(east.west.metrics)
    assert ended(east.client, east.vip, 80)
    failed = expect_record_sync(east.west.log, FAILED, {"direction": "outbound"})
    assert "unknown network gateway" in str(failed.fields["error"])
    assert before.delta(CLOSED, {}) == 0


def test_an_endpoint_of_another_network_without_a_gateway_is_out_of_reach(east: East) -> None:
    east.cluster.mesh.update(east.server, network_gateway=None)
    assert ended(east.client, east.vip, 80)
    failed = expect_record_sync(east.west.log, FAILED, {"direction": "outbound"})
    assert "no valid routing destination for workload: default/server" in str(failed.fields["error"])


def test_a_gateway_that_does_not_answer_is_a_connection_that_failed(east: East) -> None:
    before = snapshot(east.west.metrics)
    assert ended(east.client, east.vip, 80)
    labels = {"reporter": "source", "response_flags": "CONNECT", "destination_workload": "gateway"}
    expect_sync(before, CLOSED, labels, 1)


def test_the_address_of_a_pod_in_another_network_means_nothing_here(east: East) -> None:
    east.server.start(double())
    assert talk(east.client, east.server.ip) == (east.client.ip, b"hellohello")  # by plain routing
    record = expect_record_sync(east.west.log, COMPLETE, {"direction": "outbound"})
    assert "dst.workload" not in record.fields


def test_within_its_own_network_a_service_needs_no_gateway(east: East) -> None:
    neighbour = east.cluster.add_pod("neighbour", "node-b")
    east.server.start(double())
    for host in (east.vip, "web"):
        assert talk(neighbour, host, 80) == (neighbour.ip, b"hellohello")
    record = expect_record_sync(east.east.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"{east.server.ip}:15008"
    assert record.fields["dst.hbone_addr"] == f"{east.server.ip}:8080"


def test_a_gateway_goes_by_the_name_of_its_service(east: East) -> None:
    gate = east.cluster.add_pod("gate", "node-b", captured=False, labels={"app": "gate"})
    east.cluster.add_service("gate", selector={"app": "gate"}, ports={15008: 15008})
    name = GatewayAddress(NamespacedName("default", "gate.default.svc.cluster.local"))
    east.cluster.mesh.update(east.server, network_gateway=name)
    east.server.start(double())
    handle = forwarding(gate, lambda authority: east.server.ip)
    with hbone_server(east.cluster, gate, handle=handle):
        assert talk(east.client, east.vip, 80) == (gate.ip, b"hellohello")


@pytest.mark.parametrize("families", ["ipv6", "dual"])
def test_a_gateway_may_be_reached_by_ipv6(families: str) -> None:
    with Cluster(families=families) as cluster:
        east = East(cluster, family=6)
        east.server.start(double(family=socket.AF_INET6))
        with east.open():
            assert talk(east.client, east.vip, 80) == (east.address(east.gateway.ips), b"hellohello")


def test_a_waypoint_in_another_network_is_reached_through_its_gateway(east: East) -> None:
    waypoint = east.cluster.add_pod(
        "waypoint",
        "node-b",
        captured=False,
        labels={"app": "waypoint"},
        workload={"network_gateway": east.at(east.gateway)},
    )
    east.cluster.add_service("waypoint", selector={"app": "waypoint"}, ports={15008: 15008})
    east.cluster.mesh.update_service("waypoint", subject_alt_names=(str(account("waypoint")),))
    name = NamespacedName("default", "waypoint.default.svc.cluster.local")
    east.cluster.mesh.update_service(east.service, waypoint=GatewayAddress(name))
    with east.open(waypoint) as outer, hbone_server(east.cluster, waypoint, handle=via) as inner:
        assert talk(east.client, east.vip, 80) == ("via", b"hello")
    assert [each.authority for each in (*outer, *inner)] == [f"{WEB}:80"] * 2
    assert dict(inner[0].headers)["x-forwarded-network"] == ""
