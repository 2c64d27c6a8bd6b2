"""Which endpoint of a service connections go to: where it runs, how much it bears, how it is."""

import socket
from collections import Counter
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.mesh.model import LoadBalancer, Locality, RoutingPreference
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import ended

FAILED = "connection failed"
HERE = Locality("west", "west-1", "rack-1")
ZONAL: tuple[RoutingPreference, ...] = ("Region", "Zone")


def naming(name: str) -> Callable[[Callable[[object], None]], None]:
    """For `Pod.start`: a server at port 8080 that says its name."""

    def serve(ready: Callable[[object], None]) -> None:
        with socket.create_server(("", 8080)) as listener:
            ready(None)
            while True:
                with listener.accept()[0] as connection:
                    connection.sendall(name.encode())

    return serve


class Balanced:
    """``client`` is at `HERE`, on node-a; `pod` adds endpoints of the service ``web``."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.proxies = [cluster.deploy_ztunnel_sync(node) for node in ("node-a", "node-b")]
        self.client = cluster.add_pod("client", "node-a", workload={"locality": HERE})
        self.service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})

    def pod(self, name: str, node: str = "node-b", **workload: object) -> Pod:
        pod = self.cluster.add_pod(name, node, labels={"app": "web"}, workload=workload)
        pod.start(naming(name))
        return pod

    def prefer(self, *preferences: RoutingPreference, strict: bool = False) -> None:
        balancer = LoadBalancer(preferences, "Strict" if strict else "Failover")
        self.cluster.mesh.update_service("web", load_balancer=balancer)

    def answers(self, times: int = 25) -> Counter[str]:
        """Who answered how often."""
        found: Counter[str] = Counter()
        with self.client:
            for _ in range(times):
                with socket.create_connection((self.service.ip, 80), timeout=20) as connection:
                    found[b"".join(iter(lambda: connection.recv(100), b"")).decode()] += 1
        return found


@pytest.fixture
def balanced(cluster: Cluster) -> Balanced:
    return Balanced(cluster)


def test_a_service_on_two_nodes_has_its_connections_on_both(balanced: Balanced) -> None:
    balanced.pod("here", "node-a")
    balanced.pod("there", "node-b")
    assert set(balanced.answers(50)) == {"here", "there"}  # that one is left out: once in 5e14 times


def test_capacity_weighs(balanced: Balanced) -> None:
    balanced.pod("much", capacity=9)
    balanced.pod("little", capacity=1)
    balanced.pod("nothing", capacity=0)
    found = balanced.answers(100)
    assert found["nothing"] == 0
    assert found["much"] > 60  # 90 are to be expected, and fewer than 61 come once in 1e14 times
    assert found.total() == 100


def test_those_in_the_clients_zone_come_first_and_others_only_where_there_are_none(
    balanced: Balanced,
) -> None:
    near = balanced.pod("near", locality=Locality("west", "west-1", "rack-9"))
    region = balanced.pod("region", locality=Locality("west", "west-2"))
    balanced.pod("far", locality=Locality("east", "east-1"))
    balanced.prefer(*ZONAL)
    assert set(balanced.answers()) == {"near"}
    near.remove()
    assert set(balanced.answers()) == {"region"}
    region.remove()
    assert set(balanced.answers()) == {"far"}


def test_strict_preferences_leave_nobody_where_nobody_has_them_all(balanced: Balanced) -> None:
    balanced.pod("near", locality=Locality("west", "west-1"))
    balanced.pod("region", locality=Locality("west", "west-2"))
    balanced.prefer(*ZONAL, strict=True)
    assert set(balanced.answers()) == {"near"}
    balanced.cluster.pod("near").remove()
    assert ended(balanced.client, balanced.service.ip, 80)
    failed = expect_record_sync(balanced.proxies[0].log, FAILED, {"direction": "outbound"})
    assert "no healthy upstream" in str(failed.fields["error"])


def test_preferences_are_forgotten_in_standard_mode(balanced: Balanced) -> None:
    balanced.pod("near", locality=HERE)
    balanced.pod("far", locality=Locality("east", "east-1"))
    balancer = LoadBalancer(ZONAL, "Standard")
    balanced.cluster.mesh.update_service("web", load_balancer=balancer)
    assert set(balanced.answers(50)) == {"near", "far"}


def test_the_clients_own_node_is_preferred(balanced: Balanced) -> None:
    here = balanced.pod("here", "node-a")
    balanced.pod("there", "node-b")
    balanced.prefer("Node")
    assert set(balanced.answers()) == {"here"}
    here.remove()
    assert set(balanced.answers()) == {"there"}


def test_a_preferred_one_that_moves_away_is_preferred_no_more(balanced: Balanced) -> None:
    moving = balanced.pod("moving", locality=HERE)
    balanced.pod("other", locality=Locality("west", "west-1"))
    balanced.prefer("Region", "Zone", "Subzone")
    assert set(balanced.answers()) == {"moving"}
    balanced.cluster.mesh.update(moving, locality=Locality("east"))
    assert set(balanced.answers()) == {"other"}


def test_who_is_not_ready_gets_nothing_unless_all_are_allowed(balanced: Balanced) -> None:
    well, ill = balanced.pod("well"), balanced.pod("ill")
    ill.ready = False
    assert set(balanced.answers()) == {"well"}
    well.ready = False
    assert ended(balanced.client, balanced.service.ip, 80)
    balanced.cluster.mesh.update_service("web", load_balancer=LoadBalancer(health_policy="AllowAll"))
    assert set(balanced.answers(50)) == {"well", "ill"}


def test_a_near_one_that_is_not_ready_yields_to_one_that_is_far(balanced: Balanced) -> None:
    near = balanced.pod("near", locality=HERE)
    balanced.pod("far", locality=Locality("east"))
    balanced.prefer("Region")
    near.ready = False
    assert set(balanced.answers()) == {"far"}
    near.ready = True
    assert set(balanced.answers()) == {"near"}


def test_a_service_that_balances_nothing_leads_to_its_own_address_in_plain(balanced: Balanced) -> None:
    balanced.pod("web")
    balanced.cluster.mesh.update_service("web", load_balancer=LoadBalancer(mode="Passthrough"))
    assert set(balanced.answers(3)) == {"web"}  # as the node translates the address
    record = expect_record_sync(balanced.proxies[0].log, "connection complete", {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"{balanced.service.ip}:80"
    assert "dst.hbone_addr" not in record.fields
