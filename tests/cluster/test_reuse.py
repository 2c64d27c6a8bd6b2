"""An address that comes back with another pod: those who knew the old one reach the new one at once."""

from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.runtime.machine import Machine
from tests.cluster.traffic import connect, datagram, reaches, refusal

FAMILIES = pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])


def everybody_else(cluster: Cluster, pod: Pod) -> list[Machine]:
    others = [other for other in cluster.pods.values() if other is not pod]
    return [cluster.root, *cluster.built_nodes.values(), *others]


def test_the_lowest_address_that_was_given_back_is_handed_out_next(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"pod-{number}") for number in range(4)]
    pods[2].remove()
    pods[1].remove()
    assert [cluster.add_pod(f"new-{number}").ip for number in range(3)] == [
        "10.0.1.3",
        "10.0.1.4",
        "10.0.1.6",
    ]


@FAMILIES
def test_whoever_talked_to_the_old_pod_reaches_the_new_one_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        for number, node in enumerate(["node-a", "node-b"]):
            cluster.add_pod(f"other-{number}", node)
        first: tuple[str, ...] = ()
        for turn in range(4):
            pod = cluster.add_pod("server", "node-a")
            first = first or pod.ips
            assert pod.ips == first
            for other in everybody_else(cluster, pod):
                for address in pod.ips:
                    assert reaches(other, pod, address), (turn, other)
                    assert datagram(other, pod, address).data == b"hello"
            pod.remove()


@FAMILIES
def test_between_the_old_pod_and_the_new_one_the_address_is_refused(families: str) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("server", "node-a")
        beside, elsewhere = cluster.add_pod("beside", "node-a"), cluster.add_pod("elsewhere", "node-b")
        assert all(reaches(other, pod, pod.ip) for other in (beside, elsewhere))
        pod.remove()
        for other in (beside, elsewhere, cluster.root, cluster.node("node-a")):
            assert refusal(other, pod.ip) in ("EHOSTUNREACH", "ENETUNREACH")
        again = cluster.add_pod("again", "node-a", address=pod.ips)
        assert all(reaches(other, again, pod.ip) for other in (beside, elsewhere))


def test_a_new_pod_does_not_inherit_the_connections_of_the_old_one(cluster: Cluster) -> None:
    client, server = cluster.add_pod("client", "node-b"), cluster.add_pod("server", "node-a")
    with connect(client, server, server.ip) as old:
        server.remove()
        again = cluster.add_pod("server", "node-a")
        assert again.ip == server.ip
        assert reaches(client, again, again.ip)
        old.near.sendall(b"are you still there?")
        with pytest.raises(ConnectionResetError):
            old.near.recv(1)


@FAMILIES
def test_a_node_that_comes_back_with_its_address_and_range_is_reached_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        cluster.node("node-a")
        other = cluster.add_pod("other", "node-a")
        for _ in range(2):  # a router answers two such questions of one asker, and is silent for a while
            node = cluster.nodes.get("node-b") or cluster.add_node("node-b")
            pod = node.add_pod("server")
            assert (node.ip, pod.ip) in (("172.18.0.3", "10.0.2.2"), ("fd00:172:18::3", "fd00:10:0:2::2"))
            for asker in (other, other.node, cluster.root):
                assert reaches(asker, pod, pod.ip)
                assert reaches(asker, node, node.ip)
            node.remove()
            assert refusal(other, pod.ip) in ("EHOSTUNREACH", "ENETUNREACH")


@FAMILIES
def test_the_pods_beside_a_removed_one_still_reach_their_node_by_the_address_all_of_them_share(
    families: str,
) -> None:
    with Cluster(families=families) as cluster:
        pods = [cluster.add_pod(f"pod-{number}", "node-a") for number in range(3)]
        gateways = [str(each.gateway) for each in cluster.node("node-a").spec.families]
        remove: Callable[[Pod], None] = cluster.remove_pod
        for gone in (0, 2):
            remove(pods[gone])
            assert all(reaches(pods[1], cluster.node("node-a"), gateway) for gateway in gateways)
