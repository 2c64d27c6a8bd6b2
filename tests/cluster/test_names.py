"""Names of pods and nodes: what they resolve to, which there can be, and that two are never the same."""

import pytest

from netwarren import Cluster, DuplicateName, InvalidName, UnknownName
from netwarren.errors import ConfigurationError
from tests.cluster.readback import inside, state
from tests.cluster.traffic import reaches

LONGEST = "a" * 63


def test_a_name_resolves_to_the_address_of_the_pod_or_node(cluster: Cluster) -> None:
    pod = cluster.add_pod("server", "node-a")
    assert cluster.resolve("server") == pod.ip == "10.0.1.2"
    assert cluster.resolve("node-a") == pod.node.ip == "172.18.0.2"


def test_an_unknown_name_is_refused_with_those_there_are(cluster: Cluster) -> None:
    cluster.add_pod("server", "node-a")
    with pytest.raises(UnknownName, match="'servre'; there are: node-a, node-b, server") as refused:
        cluster.resolve("servre")
    assert refused.value.known == ("node-a", "node-b", "server")


def test_a_cluster_with_nothing_in_it_says_so() -> None:
    with Cluster(nodes=()) as cluster:
        with pytest.raises(UnknownName, match="there are none"):
            cluster.resolve("server")
        with pytest.raises(UnknownName, match="no node is called"):
            cluster.add_pod("server")


def test_of_many_names_only_some_are_listed() -> None:
    names = [f"node-{number:02}" for number in range(20)]
    with (
        Cluster(nodes=names) as cluster,
        pytest.raises(UnknownName, match=r"node-00, .*node-11 and 8 more$"),
    ):
        cluster.node("node-99")


def test_names_are_given_back_with_the_pod(cluster: Cluster) -> None:
    cluster.add_pod("server", "node-a").remove()
    with pytest.raises(UnknownName, match="no pod is called 'server'"):
        cluster.pod("server")
    assert cluster.add_pod("server", "node-b").node.name == "node-b"


def test_a_removed_node_is_not_there_any_more_though_it_was_declared(cluster: Cluster) -> None:
    cluster.remove_node("node-b")
    with pytest.raises(UnknownName, match=r"'node-b'; there are: node-a$"):
        cluster.node("node-b")
    assert cluster.add_node("node-b").ip == cluster.resolve("node-b")


@pytest.mark.parametrize(
    "name",
    ["", "Web", "web_1", "-web", "web-", "web.1", "wéb", "web ", "a" * 64, "a/b", "10", "localhost", "a\n"],
)
def test_a_name_kubernetes_or_a_resolver_would_not_take_is_refused(cluster: Cluster, name: str) -> None:
    for add in (cluster.add_pod, cluster.add_node):
        with pytest.raises(InvalidName, match="RFC 1123 label") as refused:
            add(name)
        assert refused.value.name == name


def test_a_declared_node_with_a_bad_name_makes_no_cluster() -> None:
    with pytest.raises(InvalidName, match="node name 'Node'"):
        Cluster(nodes=("Node",))


def test_the_longest_names_there_are_make_interface_names_of_15_bytes_at_most() -> None:
    with Cluster(nodes=(LONGEST, "node-b")) as cluster:
        pod = cluster.add_pod("b" * 63, LONGEST)
        other = cluster.add_pod("b" * 62 + "c", "node-b")
        machines = (cluster.root, pod.node, pod)
        longest = max(len(link.name) for machine in machines for link in inside(machine).links)
        assert longest <= 15
        assert cluster.resolve("b" * 63) == pod.ip
        assert reaches(pod, other, other.ip)


def test_the_hundredth_pod_of_a_node_still_has_an_interface_name_that_fits(cluster: Cluster) -> None:
    for number in range(100):
        cluster.add_pod(f"pod-{number}", "node-a")
    names = [link.name for link in inside(cluster.node("node-a")).links]
    assert len(names) == len(set(names)) == 102
    assert max(map(len, names)) <= 15


@pytest.mark.parametrize("built", [True, False], ids=["used", "declared"])
def test_a_pod_cannot_be_called_like_a_node(cluster: Cluster, built: bool) -> None:
    cluster.node("node-a")
    if built:
        cluster.node("node-b")
    before = state(cluster)
    with pytest.raises(DuplicateName, match="node 'node-b' exists already"):
        cluster.add_pod("node-b", "node-a")
    assert state(cluster) == before
    assert cluster.resolve("node-b") == cluster.node("node-b").ip


@pytest.mark.parametrize("built", [True, False], ids=["used", "declared"])
def test_a_declared_node_cannot_be_added_again(cluster: Cluster, built: bool) -> None:
    if built:
        cluster.node("node-b")
    before = state(cluster)
    with pytest.raises(DuplicateName, match="node 'node-b' exists already"):
        cluster.add_node("node-b", pod_range="10.0.77.0/24")
    assert state(cluster) == before


# --- declared nodes -------------------------------------------------------------------------------


def test_a_declared_node_is_built_when_it_is_first_used(cluster: Cluster) -> None:
    assert cluster.built_nodes == {}
    cluster.add_pod("server", "node-b")
    assert list(cluster.built_nodes) == ["node-b"]
    assert cluster.resolve("node-a") == cluster.built_nodes["node-a"].ip


def test_asking_for_all_nodes_builds_them(cluster: Cluster) -> None:
    assert list(cluster.nodes) == list(cluster.built_nodes) == ["node-a", "node-b"]


def test_a_pod_goes_to_the_first_declared_node_whichever_was_used_first(cluster: Cluster) -> None:
    cluster.node("node-b")
    assert cluster.add_pod("server").node.name == "node-a"


def test_without_declared_nodes_a_pod_goes_to_the_first_that_was_added() -> None:
    with Cluster(nodes=()) as cluster:
        cluster.add_node("one")
        cluster.add_node("two")
        assert cluster.add_pod("server").node.name == "one"


def test_a_node_knows_its_pods_and_a_pod_its_node(cluster: Cluster) -> None:
    node = cluster.node("node-b")
    pods = [node.add_pod("a"), cluster.add_pod("b", node), cluster.add_pod("c", "node-b")]
    cluster.add_pod("elsewhere", "node-a")
    assert list(node.pods.values()) == pods
    assert [pod.node for pod in pods] == [node] * 3
    assert cluster.pod("b") is pods[1]
    assert list(cluster.pods) == ["a", "b", "c", "elsewhere"]


def test_one_text_for_the_nodes_is_not_taken_for_names_of_a_letter_each() -> None:
    with pytest.raises(ConfigurationError, match=r"nodes='edge'.*\('edge',\)"):
        Cluster(nodes="edge")
    with pytest.raises(ConfigurationError, match=r"nodes=5 is not several names"):
        Cluster(nodes=5)  # type: ignore[arg-type]
