"""Pods and nodes come and go in any order while the cluster runs, and what is there always works."""

import random

import pytest

from netwarren import Cluster, NetwarrenError, Node, Pod
from tests.cluster.readback import inside, members
from tests.cluster.traffic import datagram, reaches, refusal


class Walk:
    """Random changes to a cluster beside a plain list of what must be there after them."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.count = 0

    def step(self) -> None:
        if not self.nodes:
            self.add_node()
        change = self.random.choices(
            [self.add_pod, self.remove_pod, self.add_node, self.remove_node], weights=[6, 4, 2, 1]
        )[0]
        change()

    def new_name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.random.choice([self.count, self.count % 3])}"

    def add_pod(self) -> None:
        name, node = self.new_name("pod"), self.random.choice(list(self.nodes))
        try:
            made = self.cluster.add_pod(name, node)
        except NetwarrenError:
            assert name in self.pods
        else:
            assert name not in self.pods
            self.pods[name] = made

    def remove_pod(self) -> None:
        if self.pods:
            self.pods.pop(self.random.choice(list(self.pods))).remove()

    def add_node(self) -> None:
        name = self.new_name("node")
        if name not in self.nodes:
            self.nodes[name] = self.cluster.add_node(name)

    def remove_node(self) -> None:
        name = self.random.choice(list(self.nodes))
        self.nodes.pop(name).remove()
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.gone}

    def check(self) -> None:
        assert self.cluster.pods == self.pods
        assert self.cluster.nodes == self.nodes
        addresses = [pod.ip for pod in self.pods.values()] + [node.ip for node in self.nodes.values()]
        assert len(set(addresses)) == len(addresses)
        for name, node in self.nodes.items():
            assert len(inside(node).links) == 2 + sum(pod.spec.node == name for pod in self.pods.values())
        everybody = [*self.pods.values(), *self.nodes.values()]
        for machine in everybody:
            other = self.random.choice(everybody)
            if other is not machine:
                assert datagram(machine, other, other.ip).data == b"hello", (machine, other)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("families", ["ipv4", "dual"])
def test_any_order_of_changes_leaves_what_was_added_and_not_removed(families: str, seed: int) -> None:
    with Cluster(nodes=(), families=families) as cluster:
        walk = Walk(cluster, seed)
        for _ in range(5):
            for _ in range(8):
                walk.step()
            walk.check()
        for pod in list(walk.pods.values()):
            pod.remove()
        for node in list(walk.nodes.values()):
            node.remove()
        (root,) = members(cluster)
        found = inside(root)
        assert {link.name for link in found.links} == {"lo", "br0"}
        assert {route.protocol for route in found.routes} == {"kernel"}
        assert found.neighbours == ()


def test_removing_a_node_removes_its_pods_and_no_others(cluster: Cluster) -> None:
    for number in range(3):
        cluster.add_pod(f"a-{number}", "node-a")
        cluster.add_pod(f"b-{number}", "node-b")
    cluster.remove_node("node-b")
    assert list(cluster.pods) == ["a-0", "a-1", "a-2"]
    assert list(cluster.built_nodes) == ["node-a"]
    assert reaches(cluster.pod("a-0"), cluster.pod("a-2"), cluster.resolve("a-2"))


def test_others_find_a_removed_pod_unreachable_and_nobody_else(cluster: Cluster) -> None:
    gone, beside = cluster.add_pod("gone", "node-a"), cluster.add_pod("beside", "node-a")
    elsewhere = cluster.add_pod("elsewhere", "node-b")
    gone.remove()
    for other in (beside, elsewhere, cluster.root):
        assert refusal(other, gone.ip) == "EHOSTUNREACH"
    assert reaches(elsewhere, beside, beside.ip)


def test_removing_a_pod_leaves_nothing_of_it_in_its_node(cluster: Cluster) -> None:
    cluster.add_pod("stays", "node-a")
    before = inside(cluster.node("node-a")).lines()
    for _ in range(3):
        cluster.add_pod("comes", "node-a").remove()
        assert inside(cluster.node("node-a")).lines() == before


def test_removing_a_node_leaves_nothing_of_it_in_the_others(cluster: Cluster) -> None:
    cluster.add_pod("stays", "node-a")
    machines = members(cluster)
    before = [inside(machine).lines() for machine in machines]
    for _ in range(3):
        cluster.add_node("comes").add_pod("too")
        cluster.remove_node("comes")
        assert [inside(machine).lines() for machine in machines] == before


def test_a_node_can_be_removed_before_it_was_used(cluster: Cluster) -> None:
    cluster.remove_node("node-b")
    assert list(cluster.nodes) == ["node-a"]


def test_all_can_go_and_come_again(cluster: Cluster) -> None:
    for _ in range(3):
        for name in list(cluster.nodes):
            cluster.remove_node(name)
        one, two = cluster.add_node("one").add_pod("a"), cluster.add_node("two").add_pod("b")
        assert reaches(one, two, two.ip)
