"""Endpoints follow pods as they come, go, and turn ready or not; what goes to those that stay, goes on."""

import socket
from collections.abc import Sequence

import pytest

from netwarren import Cluster, Pod, Service
from netwarren.kernel.netlink import Netlink, Request
from netwarren.runtime.machine import Machine
from tests.cluster.servers import Servers, Session
from tests.cluster.traffic import new_socket

LABELS = {"app": "web"}
PORTS = ["8080/tcp", "8080/udp"]


def scene(cluster: Cluster) -> tuple[Pod, Pod, Pod, Service]:
    one = cluster.add_pod("one", "node-a", labels=LABELS)
    other = cluster.add_pod("other", "node-b", labels=LABELS)
    client = cluster.add_pod("client", "node-a")
    return one, other, client, cluster.add_service("web", selector=LABELS, ports=PORTS)


def session_with(servers: Servers, server: str, client: Machine, address: str) -> Session:
    while True:
        session = servers.session(client, address, 8080)
        if session.server == server:
            return session
        session.close()


def flow_with(
    servers: Servers, server: str, client: Machine, address: str, port: int = 8080
) -> socket.socket:
    while True:
        near = new_socket(client, address, socket.SOCK_DGRAM)
        near.connect((address, port))
        if servers.exchange(near).server == server:
            return near
        near.close()


def test_a_pod_that_is_not_ready_gets_nothing_new_and_keeps_its_connections(cluster: Cluster) -> None:
    one, other, client, service = scene(cluster)
    with Servers([one, other]) as servers:
        session = session_with(servers, "one", client, service.ip)
        one.ready = False
        assert not one.ready
        assert servers.chosen(client, service.ip, 8080) == {"other"}
        assert session.works()
        one.ready = True
        assert servers.chosen(client, service.ip, 8080) == {"one", "other"}
        assert session.works()
        session.close()


def test_a_long_connection_survives_pods_and_nodes_that_come_and_go(cluster: Cluster) -> None:
    one, other, client, service = scene(cluster)
    with Servers([one, other]) as servers:
        session = session_with(servers, "one", client, service.ip)
        flow = flow_with(servers, "one", client, service.ip)
        other.remove()
        assert servers.chosen(client, service.ip, 8080) == {"one"}
        for number in range(5):
            added = cluster.add_node(f"node-{number}").add_pod(f"pod-{number}", labels=LABELS)
            servers.add(added)
            assert added.name in servers.chosen(client, service.ip, 8080, times=20)
            assert session.works()
            cluster.remove_node(added.node)
            assert servers.chosen(client, service.ip, 8080, times=5) == {"one"}
        assert session.works()
        assert servers.exchange(flow).server == "one"
        session.close()
        flow.close()


def test_a_new_node_and_its_pods_reach_the_services_there_are(cluster: Cluster) -> None:
    one, other, _client, service = scene(cluster)
    node = cluster.add_node("late")
    pod = node.add_pod("pod")
    with Servers([one, other]) as servers:
        for machine in (node, pod):
            assert servers.chosen(machine, service.ip, 8080) == {"one", "other"}
            assert servers.ask_by_datagram(machine, service.ip, 8080).server in {"one", "other"}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("how", ["unready", "removed", "with its node"])
def test_a_flow_of_datagrams_moves_on_when_its_endpoint_goes(family: str, how: str) -> None:
    with Cluster(families=family) as cluster:
        one, other, client, service = scene(cluster)
        with Servers([one, other]) as servers:
            flows = {
                machine: flow_with(servers, "other", machine, service.ip)
                for machine in (client, one, cluster.node("node-a"))
            }
            to_one = flow_with(servers, "one", client, service.ip)
            if how == "unready":
                other.ready = False
            elif how == "removed":
                other.remove()
            else:
                cluster.remove_node("node-b")
            for near in (*flows.values(), to_one):
                assert servers.exchange(near).server == "one"
                near.close()


def test_a_flow_that_a_node_port_refused_gets_through_once_somebody_is_ready(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", "node-b", labels=LABELS)
    pod.ready = False
    service = cluster.add_service("web", selector=LABELS, ports="8080/udp", node_ports={"8080/udp": 30080})
    node = cluster.node("node-a")
    with Servers([pod]) as servers, new_socket(cluster.root, node.ip, socket.SOCK_DGRAM) as near:
        near.connect((node.ip, 30080))
        near.send(b"too early")
        with pytest.raises(ConnectionRefusedError):
            near.recv(100)
        pod.ready = True
        assert servers.exchange(near).server == "web"
    assert service.ports[0].node_port == 30080


def test_a_pod_added_again_under_a_name_that_a_service_lists_is_one_of_its_endpoints(
    cluster: Cluster,
) -> None:
    pod, client = cluster.add_pod("web"), cluster.add_pod("client")
    service = cluster.add_service("web", pods=[pod], ports=8080)
    pod.remove()
    assert service.endpoints == ()
    again = cluster.add_pod("web", "node-b")
    with Servers([again]) as servers:
        assert servers.chosen(client, service.ip, 8080, times=5) == {"web"}


def test_a_removed_pod_cannot_be_made_ready(cluster: Cluster) -> None:
    from netwarren import ClosedError

    pod = cluster.add_pod("web")
    pod.remove()
    with pytest.raises(ClosedError, match="pod 'web' was removed"):
        pod.ready = False


def test_a_program_that_flushes_a_nodes_rules_is_made_up_for_with_the_next_change(cluster: Cluster) -> None:
    from netwarren.kernel import nftables
    from netwarren.kernel.netlink import NETLINK_NETFILTER

    one, other, client, service = scene(cluster)

    def flush() -> None:
        with Netlink("node", NETLINK_NETFILTER) as netlink:
            nftables.commit(netlink, [nftables.delete_table("ip", "netwarren-services")])

    one.node.run(flush)
    cluster.add_service("second", pods=[one], ports=8080)
    with Servers([one, other]) as servers:
        assert servers.chosen(client, service.ip, 8080) == {"one", "other"}
        assert servers.chosen(client, cluster.resolve("second"), 8080, times=5) == {"one"}


@pytest.mark.parametrize("affinity", [False, True])
def test_a_change_too_large_for_one_batch_is_made_in_several_and_nobody_gets_lost_between(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, affinity: bool
) -> None:
    from netwarren.cluster import service_wiring
    from netwarren.kernel import nftables

    one, other, client, service = scene(cluster)
    commit = nftables.commit
    batches = 0

    def ask_after_each(netlink: Netlink, requests: Sequence[Request]) -> None:
        nonlocal batches
        batches += 1
        commit(netlink, requests)
        if asked:
            assert servers.ask(client, asked, 8080).server in {"one", "other", "late"}

    asked = ""
    with Servers([one, other]) as servers:
        monkeypatch.setattr(service_wiring, "_MOST_BYTES", 1)
        monkeypatch.setattr(nftables, "commit", ask_after_each)
        asked = service.ip
        second = cluster.add_service(
            "second", selector=LABELS, ports=PORTS, session_affinity=affinity, node_ports=True
        )
        assert batches > 20
        asked = ""  # the pod listens only once it is there
        late = cluster.add_pod("late", labels=LABELS)
        servers.add(late)
        asked = second.ip
        other.ready = False
        other.ready = True
        late.remove()
        asked = service.ip
        second.remove()
        assert servers.chosen(client, service.ip, 8080) == {"one", "other"}
