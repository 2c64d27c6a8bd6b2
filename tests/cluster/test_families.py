"""IPv4, IPv6 and both: addresses, which one is preferred, and traffic the moment a pod is there."""

import socket

import pytest

from netwarren import AddressError, Cluster, ConfigurationError
from tests.cluster.readback import inside
from tests.cluster.traffic import reaches

ADDRESSES = {
    "ipv4": ("10.0.1.2",),
    "ipv6": ("fd00:10:0:1::2",),
    "dual": ("10.0.1.2", "fd00:10:0:1::2"),
    ("ipv6", "ipv4"): ("fd00:10:0:1::2", "10.0.1.2"),
}
FAMILIES = pytest.mark.parametrize("families", ADDRESSES, ids=str)


@FAMILIES
def test_a_pod_has_an_address_in_each_family_in_the_order_they_were_named(
    families: str | tuple[str, ...],
) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("server")
        assert pod.ips == ADDRESSES[families]
        held = inside(pod).addresses_on("eth0")
        assert {each.split("/")[0] for each in held if not each.startswith("fe80:")} == set(pod.ips)


@FAMILIES
def test_the_first_family_named_is_the_one_names_resolve_to(families: str | tuple[str, ...]) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("server")
        assert cluster.resolve("server") == pod.ip == pod.ips[0]
        assert cluster.resolve("node-a") == cluster.node("node-a").ips[0]


@FAMILIES
def test_a_new_pod_is_reached_at_once_in_every_family(families: str | tuple[str, ...]) -> None:
    with Cluster(families=families) as cluster:
        server = cluster.add_pod("server", "node-b")
        for number in range(3):
            client = cluster.add_pod(f"client-{number}", "node-a")
            assert [reaches(client, server, address) for address in server.ips] == [True] * len(server.ips)
            assert [reaches(server, client, address) for address in client.ips] == [True] * len(client.ips)


@FAMILIES
def test_a_new_pod_is_reached_at_once_from_its_node_the_root_and_beside_it(
    families: str | tuple[str, ...],
) -> None:
    with Cluster(families=families) as cluster:
        beside = cluster.add_pod("beside")
        for caller in (beside, beside.node, cluster.root):
            pod = cluster.add_pod(f"pod-{len(cluster.pods)}")
            assert [reaches(caller, pod, address) for address in pod.ips] == [True] * len(pod.ips)


@FAMILIES
def test_a_node_added_while_others_run_is_reached_at_once(families: str | tuple[str, ...]) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("client", "node-a")
        node = cluster.add_node("node-c")
        assert [reaches(pod, node, address) for address in node.ips] == [True] * len(node.ips)
        assert [reaches(node, pod, address) for address in pod.ips] == [True] * len(pod.ips)


@pytest.mark.cluster(families="dual")
@pytest.mark.parametrize("family", ["ipv6", 6, socket.AF_INET6])
def test_a_name_resolves_to_the_family_asked_for(cluster: Cluster, family: str | int) -> None:
    pod = cluster.add_pod("server")
    assert cluster.resolve("server", family=family) == pod.ips[1] == "fd00:10:0:1::2"
    assert cluster.resolve("server", family="ipv4") == pod.ips[0]


def test_a_family_the_cluster_does_not_have_is_refused_with_the_remedy(cluster: Cluster) -> None:
    cluster.add_pod("server")
    with pytest.raises(AddressError, match=r"server has no IPv6 address, it has 10\.0\.1\.2.*'ipv6'"):
        cluster.resolve("server", family="ipv6")


@pytest.mark.parametrize("families", ["ipx", (), ("ipv4", "ipv4"), 5, {"ipv4"}])
def test_families_that_mean_nothing_are_refused(families: object) -> None:
    with pytest.raises(ConfigurationError, match="famil"):
        Cluster(families=families)  # type: ignore[arg-type]
