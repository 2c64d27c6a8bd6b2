"""Node ports: every node answers for a service, and the traffic policy says with whom and what it sees."""

import errno

import pytest

from netwarren import Cluster, Pod, Service
from netwarren.runtime.machine import Machine
from tests.cluster.servers import Answer, Servers
from tests.cluster.traffic import connect_refusal, new_socket

LABELS = {"app": "web"}
NUMBER = 30080


def scene(cluster: Cluster, policy: str) -> tuple[Pod, Pod, Service]:
    one = cluster.add_pod("one", "node-a", labels=LABELS)
    other = cluster.add_pod("other", "node-b", labels=LABELS)
    service = cluster.add_service(
        "web",
        selector=LABELS,
        ports=["8080/tcp", "8080/udp"],
        node_ports={"8080/tcp": NUMBER, "8080/udp": NUMBER},
        external_traffic_policy=policy,
    )
    return one, other, service


def answers(servers: Servers, client: Machine, address: str) -> set[Answer]:
    by_datagram = {servers.ask_by_datagram(client, address, NUMBER) for _ in range(30)}
    by_connection = {servers.ask(client, address, NUMBER) for _ in range(30)}
    assert by_datagram == by_connection
    return by_connection


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_every_node_answers_pods_nodes_and_the_root_and_the_server_sees_the_node(families: str) -> None:
    with Cluster(families=families) as cluster:
        one, other, _service = scene(cluster, "Cluster")
        empty = cluster.add_node("node-c")
        gateway = {pod.name: str(pod.node.spec.families[0].gateway) for pod in (one, other)}
        with Servers([one, other]) as servers:
            for client in (cluster.root, one, empty.add_pod("client"), *cluster.nodes.values()):
                for node in cluster.nodes.values():
                    # The node's address that is nearest to the server.
                    seen = {
                        pod.name: gateway[pod.name] if pod.node is node else node.ip for pod in (one, other)
                    }
                    assert answers(servers, client, node.ip) == {Answer(*each) for each in seen.items()}


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_with_the_policy_local_a_node_sends_to_its_own_endpoints_who_see_the_client(families: str) -> None:
    with Cluster(families=families) as cluster:
        one, other, _service = scene(cluster, "Local")
        client = cluster.add_node("node-c").add_pod("client")
        bridge = str(cluster.bridge_addresses[0].ip)
        with Servers([one, other]) as servers:
            for pod in (one, other):
                assert answers(servers, client, pod.node.ip) == {Answer(pod.name, client.ip)}
                assert answers(servers, cluster.root, pod.node.ip) == {Answer(pod.name, bridge)}


def test_with_the_policy_local_a_node_and_its_own_pods_are_not_bound_to_it(cluster: Cluster) -> None:
    one, other, _service = scene(cluster, "Local")
    with Servers([one, other]) as servers:
        for client in (one.node, one):
            assert {each.server for each in answers(servers, client, one.node.ip)} == {"one", "other"}


def test_with_the_policy_local_a_node_without_endpoints_drops_as_in_kubernetes(cluster: Cluster) -> None:
    one, other, _service = scene(cluster, "Local")
    empty = cluster.add_node("node-c")
    with new_socket(cluster.root, empty.ip) as near:
        near.settimeout(0.3)
        assert near.connect_ex((empty.ip, NUMBER)) == errno.EAGAIN
    one.ready = other.ready = False
    assert connect_refusal(cluster.root, empty.ip, NUMBER) == "ECONNREFUSED"


def test_the_cluster_ip_of_a_service_with_the_policy_local_spreads_over_all(cluster: Cluster) -> None:
    one, other, service = scene(cluster, "Local")
    with Servers([one, other]) as servers:
        assert servers.chosen(one.node, service.ip, 8080) == {"one", "other"}


def test_what_listens_on_a_node_itself_is_reached_at_all_other_ports(cluster: Cluster) -> None:
    scene(cluster, "Cluster")
    client = cluster.add_pod("client", "node-b")
    assert connect_refusal(client, cluster.node("node-a").ip, NUMBER + 1) == "ECONNREFUSED"
