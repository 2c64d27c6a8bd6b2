"""What the model of a cluster decides, and that a refusal leaves no trace."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from netwarren.errors import (
    AddressError,
    AddressTaken,
    ConfigurationError,
    DuplicateName,
    InvalidName,
    NetwarrenError,
    RangeExhausted,
    UnknownName,
)
from netwarren.topology.model import ClusterModel
from netwarren.topology.ranges import Ranges

# Room for three nodes with two pods each in IPv4, and for more in IPv6.
TIGHT = (
    Ranges.parse("10.0.0.0/27", 29, "172.18.0.0/29"),
    Ranges.parse("fd00:10::/120", 124, "fd00:172:18::/120"),
)
# An IPv4 range in which IPv6 gives out first: what IPv4 had taken by then is to be given back.
TIGHT_IPV6 = (Ranges.parse("fd00:10::/125", 126, "fd00:172:18::/64"),)


def dual() -> ClusterModel:
    """A dual-stack cluster: web and db on node-a, client on node-b."""
    model = ClusterModel("dual")
    model.add_node("node-a")
    model.add_node("node-b")
    model.add_pod("web", "node-a")
    model.add_pod("db", "node-a")
    model.add_pod("client", "node-b")
    return model


def content(model: ClusterModel) -> dict[str, Any]:
    """The model but for indexes, which a history does show in."""
    return {
        **{name: replace(spec, index=0) for name, spec in model.nodes.items()},
        **{name: replace(spec, index=0) for name, spec in model.pods.items()},
    }


# --- what is decided ------------------------------------------------------------------------------


def test_a_node_has_an_address_a_pod_range_and_a_port() -> None:
    node = dual().node("node-b")
    v4, v6 = node.families
    assert (node.name, node.index, node.mac) == ("node-b", 1002, "0a:58:ac:12:00:03")
    assert (str(v4.interface), str(v4.root)) == ("172.18.0.3/16", "172.18.0.1")
    assert (str(v4.pod_range), str(v4.gateway)) == ("10.0.2.0/24", "10.0.2.1")
    assert (str(v6.interface), str(v6.root)) == ("fd00:172:18::3/64", "fd00:172:18::1")
    assert (str(v6.pod_range), str(v6.gateway)) == ("fd00:10:0:2::/64", "fd00:10:0:2::1")
    assert node.root_mac == "0a:58:ac:12:00:01"


def test_a_pod_has_an_address_of_its_nodes_range_in_each_family() -> None:
    pod = dual().pod("db")
    assert (pod.name, pod.node, pod.index, pod.mac) == ("db", "node-a", 1002, "0a:58:0a:00:01:03")
    assert [str(each) for each in pod.interfaces] == ["10.0.1.3/24", "fd00:10:0:1::3/64"]


def test_a_cluster_is_ipv4_unless_told_otherwise() -> None:
    model = ClusterModel()
    assert model.families == (4,)
    assert [str(each) for each in model.root] == ["172.18.0.1/16"]


def test_the_first_family_is_the_preferred_one() -> None:
    model = ClusterModel(("ipv6", "ipv4"))
    model.add_node("node-a")
    model.add_pod("web", "node-a")
    assert str(model.resolve("web")) == "fd00:10:0:1::2"
    assert str(model.resolve("node-a")) == "fd00:172:18::2"
    assert model.pod("web").mac == "0a:58:0a:00:01:02"


def test_pods_and_nodes_resolve_in_each_family() -> None:
    model = dual()
    assert str(model.resolve("client")) == "10.0.2.2"
    assert str(model.resolve("client", "ipv6")) == "fd00:10:0:2::2"
    assert str(model.resolve("node-b", 4)) == "172.18.0.3"
    assert str(model.resolve("node-b", 6)) == "fd00:172:18::3"


def test_resolving_in_a_family_the_cluster_lacks_is_refused() -> None:
    model = ClusterModel(4)
    model.add_node("node-a")
    with pytest.raises(AddressError, match=r"node-a has no IPv6 address, it has 172\.18\.0\.2; .* 'ipv6'"):
        model.resolve("node-a", 6)
    with pytest.raises(ConfigurationError, match="5 is not an address family"):
        model.resolve("node-a", 5)


def test_addresses_and_ranges_may_be_asked_for() -> None:
    model = ClusterModel("dual")
    node = model.add_node("node-a", pod_range=("10.0.7.0/24", "fd00:10:0:7::/64"), address="172.18.9.9")
    assert [str(each.pod_range) for each in node.families] == ["10.0.7.0/24", "fd00:10:0:7::/64"]
    assert [str(each.address) for each in node.families] == ["172.18.9.9", "fd00:172:18::2"]
    pod = model.add_pod("web", "node-a", address=("fd00:10:0:7::80", ip_address("10.0.7.80")))
    assert [str(each) for each in pod.interfaces] == ["10.0.7.80/24", "fd00:10:0:7::80/64"]


def test_other_ranges_may_be_given() -> None:
    model = ClusterModel(4, [Ranges.parse("192.168.0.0/16", 26, "198.51.100.0/24")])
    assert str(model.add_node("node-a").families[0].pod_range) == "192.168.0.64/26"
    assert str(model.add_pod("web", "node-a").interfaces[0]) == "192.168.0.66/26"


def test_what_is_removed_is_reused_but_for_its_index() -> None:
    model = dual()
    before = content(model)
    for name in ("web", "db", "client"):
        model.remove_pod(name)
    for name in ("node-b", "node-a"):
        model.remove_node(name)
    assert (dict(model.nodes), dict(model.pods)) == ({}, {})
    for name in ("node-a", "node-b"):
        model.add_node(name)
    for name, node in (("web", "node-a"), ("db", "node-a"), ("client", "node-b")):
        model.add_pod(name, node)
    assert content(model) == before
    assert [node.index for node in model.nodes.values()] == [1003, 1004]


def test_the_index_of_a_removed_pod_is_not_reused_while_its_node_lives() -> None:
    model = dual()
    removed = model.remove_pod("db")
    again = model.add_pod("db", "node-a")
    assert again.address == removed.address
    assert again.index == removed.index + 1


def test_views_show_what_there_is_now() -> None:
    model = dual()
    nodes, pods, on_a = model.nodes, model.pods, model.pods_on("node-a")
    assert (list(nodes), list(pods), list(on_a)) == (
        ["node-a", "node-b"],
        ["web", "db", "client"],
        ["web", "db"],
    )
    model.remove_pod("web")
    assert (list(pods), list(on_a)) == (["db", "client"], ["db"])


def test_repr_shows_what_there_is() -> None:
    assert repr(dual()) == "<ClusterModel IPv4+IPv6: 2 nodes, 3 pods>"


def test_two_hundred_nodes_and_five_thousand_pods_are_decided_in_no_time() -> None:
    started = time.process_time()
    model = ClusterModel("dual")
    for i in range(200):
        model.add_node(f"node-{i}")
        for j in range(25):
            model.add_pod(f"pod-{i}-{j}", f"node-{i}")
    assert len({model.resolve(name, family) for name in model.pods for family in (4, 6)}) == 10_000
    assert len({node.mac for node in model.nodes.values()}) == 200
    assert time.process_time() - started < 5  # 0.25 s here


# --- what is refused ------------------------------------------------------------------------------


def test_pods_and_nodes_share_one_set_of_names() -> None:
    model = dual()
    for add in (lambda: model.add_node("web"), lambda: model.add_pod("web", "node-b")):
        with pytest.raises(DuplicateName, match=r"pod 'web' exists already \(10\.0\.1\.2 on node-a\)"):
            add()
    for add in (lambda: model.add_node("node-a"), lambda: model.add_pod("node-a", "node-b")):
        with pytest.raises(DuplicateName, match=r"node 'node-a' exists already \(172\.18\.0\.2\)"):
            add()


def test_an_unknown_name_lists_the_names_there_are() -> None:
    model = dual()
    with pytest.raises(UnknownName, match="no node is called 'web'; there are: node-a, node-b"):
        model.node("web")
    with pytest.raises(UnknownName, match="no pod is called 'node-a'; there are: client, db, web"):
        model.pod("node-a")
    with pytest.raises(
        UnknownName, match="no pod or node is called 'x'; there are: client, db, node-a, node-b, web"
    ):
        model.resolve("x")
    with pytest.raises(UnknownName, match="no node is called 'x'"):
        model.pods_on("x")


def test_a_node_with_pods_is_not_removed() -> None:
    model = dual()
    with pytest.raises(NetwarrenError, match="node 'node-a' still has pods: web, db; remove them first"):
        model.remove_node("node-a")
    for i in range(20):
        model.add_pod(f"pod-{i}", "node-b")
    with pytest.raises(NetwarrenError, match=r"client, pod-0, .*, pod-10 and 9 more; remove"):
        model.remove_node("node-b")


def test_a_bridge_takes_so_many_nodes_and_no_more() -> None:
    model = ClusterModel(6)
    for i in range(1023):
        model.add_node(f"node-{i}")
    with pytest.raises(
        RangeExhausted, match="no port is left in the bridge br0: all 1023 are taken; remove a node"
    ):
        model.add_node("one-more")
    model.remove_node("node-7")
    assert str(model.add_node("one-more").address) == "fd00:172:18::9"


def test_a_full_node_says_so() -> None:
    model = ClusterModel(4, TIGHT[:1])
    model.add_node("node-a")
    for i in range(5):
        model.add_pod(f"pod-{i}", "node-a")
    with pytest.raises(
        RangeExhausted, match=r"left in 10\.0\.0\.8/29: all 5 are taken; remove a pod from node-a"
    ):
        model.add_pod("one-more", "node-a")


REFUSALS: dict[str, tuple[type[NetwarrenError], Callable[[ClusterModel], object]]] = {
    "bad node name": (InvalidName, lambda m: m.add_node("Node")),
    "bad pod name": (InvalidName, lambda m: m.add_pod("a_b", "node-a")),
    "node name taken": (DuplicateName, lambda m: m.add_node("web")),
    "pod name taken": (DuplicateName, lambda m: m.add_pod("node-a", "node-a")),
    "unknown node": (UnknownName, lambda m: m.add_pod("new", "node-x")),
    "not an address": (AddressError, lambda m: m.add_pod("new", "node-a", address="web")),
    "node address taken": (AddressTaken, lambda m: m.add_node("new", address="172.18.0.2")),
    "address of the root": (AddressError, lambda m: m.add_node("new", address="172.18.0.1")),
    "second family of a node": (AddressTaken, lambda m: m.add_node("new", address="fd00:172:18::2")),
    "second family's range": (AddressTaken, lambda m: m.add_node("new", pod_range="fd00:10:0:2::/64")),
    "range of another size": (AddressError, lambda m: m.add_node("new", pod_range="10.0.8.0/23")),
    "pod address taken": (AddressTaken, lambda m: m.add_pod("new", "node-a", address="10.0.1.3")),
    "address of the gateway": (AddressError, lambda m: m.add_pod("new", "node-a", address="10.0.1.1")),
    "address of another node": (AddressError, lambda m: m.add_pod("new", "node-a", address="10.0.2.9")),
    "second family of a pod": (
        AddressTaken,
        lambda m: m.add_pod("new", "node-a", address=("10.0.1.9", "fd00:10:0:1::3")),
    ),
    "family twice": (AddressError, lambda m: m.add_pod("new", "node-a", address=("10.0.1.8", "10.0.1.9"))),
    "remove unknown pod": (UnknownName, lambda m: m.remove_pod("node-a")),
    "remove unknown node": (UnknownName, lambda m: m.remove_node("web")),
    "remove node with pods": (NetwarrenError, lambda m: m.remove_node("node-a")),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_leaves_no_trace(refusal: str) -> None:
    kind, change = REFUSALS[refusal]
    model = dual()
    untouched = copy.deepcopy(model)
    for _ in range(2):
        with pytest.raises(kind):
            change(model)
    assert dict(model.nodes) == dict(untouched.nodes)
    assert dict(model.pods) == dict(untouched.pods)
    # What is not to be seen shows in what comes next: indexes too.
    for later in (model, untouched):
        later.add_pod("later", "node-a")
        later.add_pod("on-b", "node-b")
        later.add_node("node-later")
        later.remove_pod("client")
        later.remove_pod("on-b")
        later.remove_node("node-b")
        later.add_node("node-b")
        later.add_pod("nine", "node-a", address=("10.0.1.9", "fd00:10:0:1::9"))
    assert dict(model.nodes) == dict(untouched.nodes)
    assert dict(model.pods) == dict(untouched.pods)


def test_an_exhausted_second_family_gives_the_first_back() -> None:
    model = ClusterModel("dual", TIGHT_IPV6)
    model.add_node("node-a")
    model.add_pod("p1", "node-a")
    model.add_pod("p2", "node-a")
    for _ in range(3):
        with pytest.raises(RangeExhausted, match="fd00:10::4/126"):
            model.add_pod("p3", "node-a")
        with pytest.raises(RangeExhausted, match="fd00:10::/125"):
            model.add_node("node-b")
    model.remove_pod("p2")
    p3 = model.add_pod("p3", "node-a", address="10.0.1.4")
    assert [str(each.ip) for each in p3.interfaces] == ["10.0.1.4", "fd00:10::7"]
    first_half = model.add_node("node-b", pod_range="fd00:10::/126")
    assert [str(each.pod_range) for each in first_half.families] == ["10.0.2.0/24", "fd00:10::/126"]


# --- any history ----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "Bad"])
LOW = st.none() | st.integers(0, 20)


class AnyHistory(RuleBasedStateMachine):
    """Whatever was added, removed and refused: the model is as one of the same nodes and pods without a past."""

    @initialize(families=st.sampled_from([(4,), (6,), (4, 6), (6, 4)]))
    def start(self, families: tuple[int, ...]) -> None:
        self.families = families
        self.model = self.fresh()
        self.indexes: dict[str, list[int]] = {}

    def fresh(self) -> ClusterModel:
        return ClusterModel(self.families, [each for each in TIGHT if each.family in self.families])

    def attempt(self, change: Callable[[], object]) -> None:
        before = (dict(self.model.nodes), dict(self.model.pods))
        try:
            change()
        except NetwarrenError:
            assert (dict(self.model.nodes), dict(self.model.pods)) == before

    @rule(name=NAMES, v4=LOW, v6=LOW)
    def add_node(self, name: str, v4: int | None, v6: int | None) -> None:
        def change() -> None:
            index = self.model.add_node(name, address=self.wanted("172.18.0.", "fd00:172:18::", v4, v6)).index
            seen = self.indexes.setdefault("", [])
            assert index not in seen
            seen.append(index)
            self.indexes[name] = []

        self.attempt(change)

    @precondition(lambda self: self.model.nodes)
    @rule(name=NAMES, data=st.data(), v4=LOW, v6=LOW)
    def add_pod(self, name: str, data: st.DataObject, v4: int | None, v6: int | None) -> None:
        node = data.draw(st.sampled_from(list(self.model.nodes)))

        def change() -> None:
            index = self.model.add_pod(name, node, address=self.wanted("10.0.0.", "fd00:10::", v4, v6)).index
            assert index not in self.indexes[node]
            self.indexes[node].append(index)

        self.attempt(change)

    def wanted(self, v4_prefix: str, v6_prefix: str, v4: int | None, v6: int | None) -> list[str]:
        wanted = []
        if v4 is not None and 4 in self.families:
            wanted.append(f"{v4_prefix}{v4}")
        if v6 is not None and 6 in self.families:
            wanted.append(f"{v6_prefix}{v6:x}")
        return wanted

    @precondition(lambda self: self.model.pods)
    @rule(data=st.data())
    def remove_pod(self, data: st.DataObject) -> None:
        self.model.remove_pod(data.draw(st.sampled_from(list(self.model.pods))))

    @rule(name=NAMES)
    def remove_node(self, name: str) -> None:
        self.attempt(lambda: self.model.remove_node(name))

    @invariant()
    def nothing_is_had_twice(self) -> None:
        if not hasattr(self, "model"):
            return
        nodes, pods = self.model.nodes.values(), self.model.pods.values()
        addresses = [each.address for node in nodes for each in node.families]
        addresses += [each.gateway for node in nodes for each in node.families]
        addresses += [each.ip for pod in pods for each in pod.interfaces]
        addresses += [each.ip for each in self.model.root]
        assert len(set(addresses)) == len(addresses)
        assert len({node.mac for node in nodes}) == len(nodes)
        for pod in pods:
            for interface, family in zip(pod.interfaces, self.model.node(pod.node).families, strict=True):
                assert interface.network == family.pod_range

    @invariant()
    def the_past_does_not_show(self) -> None:
        if not hasattr(self, "model"):
            return
        twin = self.fresh()
        for node in self.model.nodes.values():
            twin.add_node(
                node.name,
                pod_range=[each.pod_range for each in node.families],
                address=[each.address for each in node.families],
            )
        for pod in self.model.pods.values():
            twin.add_pod(pod.name, pod.node, address=[each.ip for each in pod.interfaces])
        assert content(twin) == content(self.model)
        # Nor does it in what comes next.
        future = copy.deepcopy(self.model)
        for model in (twin, future):
            names = list(model.nodes)
            try:
                model.add_node("next")
            except RangeExhausted:
                pass
            for name in names:
                try:
                    model.add_pod(f"next-{name}", name)
                except RangeExhausted:
                    pass
        assert content(twin) == content(future)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
