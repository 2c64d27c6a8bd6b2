"""A change that fails half-way leaves the cluster as it was, and fit for the next change."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from netwarren import Cluster, KernelError
from netwarren.cluster.wiring import Wiring
from netwarren.kernel import link, netns
from netwarren.topology import operations
from tests.cluster.readback import ask, inside, state
from tests.cluster.traffic import reaches
from tests.kept import let_go

CHANGES: dict[str, Callable[[Cluster], object]] = {
    "pod": lambda cluster: cluster.add_pod("late", "node-a", address="10.0.1.77"),
    "node": lambda cluster: cluster.add_node("late", address="172.18.0.77", pod_range="10.0.77.0/24"),
}
EVERY_CHANGE = pytest.mark.parametrize("change", CHANGES)


class Broken(Exception):
    """What these tests break off with."""


def break_after(monkeypatch: pytest.MonkeyPatch, operations_done: int) -> None:
    """Carry out so many operations of a plan, then raise."""
    whole, left = Wiring.apply, operations_done

    def apply(self: Wiring, steps: Iterable[operations.Step]) -> None:
        nonlocal left
        for step in steps:
            part = step.operations[:left]
            whole(self, [operations.Step(step.namespace, part)])
            left -= len(part)
            if len(part) < len(step.operations):
                raise Broken

    monkeypatch.setattr(Wiring, "apply", apply)


@EVERY_CHANGE
@pytest.mark.parametrize("operations_done", range(16))
def test_a_change_broken_off_after_any_step_leaves_no_trace(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, change: str, operations_done: int
) -> None:
    a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
    before = state(cluster)
    with monkeypatch.context() as patch:
        break_after(patch, operations_done)
        try:
            CHANGES[change](cluster)
        except Broken:
            assert state(cluster) == before
        else:
            assert operations_done > 12, "the plan has fewer operations than this test believes"
            return
    made = CHANGES[change](cluster)
    assert reaches(a, made, made.ip)  # type: ignore[attr-defined, arg-type]
    assert reaches(a, b, b.ip)


@pytest.mark.parametrize(
    ("change", "verb"),
    [("node", "create"), ("pod", "create"), ("pod", "release_netlink")],  # a node keeps its netlink socket
)
def test_a_failure_before_or_after_the_wiring_leaves_no_trace(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, change: str, verb: str
) -> None:
    a = cluster.add_pod("a", "node-a")
    before = state(cluster)

    def fail(self: Wiring, *arguments: Any) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        original = getattr(Wiring, verb)
        calls = []

        def once(self: Wiring, *arguments: Any) -> Any:
            calls.append(verb)
            return fail(self) if len(calls) == 1 else original(self, *arguments)

        patch.setattr(Wiring, verb, once)
        with pytest.raises(Broken):
            CHANGES[change](cluster)
    assert state(cluster) == before
    made = CHANGES[change](cluster)
    assert reaches(a, made, made.ip)  # type: ignore[attr-defined, arg-type]


def add_bridge(cluster: Cluster, where: str, name: str, index: int) -> None:
    machine = cluster.root if where == "root" else cluster.node(where)
    ask(machine, lambda netlink: netlink.commit([link.add_bridge(name, index, up=False)]))


@pytest.mark.parametrize(("change", "where"), [("pod", "node-a"), ("node", "root")])
def test_a_link_of_somebody_elses_with_the_name_ours_would_have_is_an_error_and_stays_as_it_is(
    cluster: Cluster, change: str, where: str
) -> None:
    cluster.add_pod("a", "node-a")
    cluster.node("node-b")
    name = "veth1002" if change == "pod" else "veth1003"
    add_bridge(cluster, where, name, 77)
    before = state(cluster)
    with pytest.raises(KernelError, match=f"add veth {name} with peer eth0 in .*: EEXIST"):
        CHANGES[change](cluster)
    assert state(cluster) == before
    made = CHANGES[change](cluster)
    assert reaches(cluster.pod("a"), made, made.ip)  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize(("change", "where"), [("pod", "node-a"), ("node", "root")])
def test_a_link_of_somebody_elses_with_the_index_ours_would_have_is_an_error_and_stays_as_it_is(
    cluster: Cluster, change: str, where: str, up: bool
) -> None:
    cluster.add_pod("a", "node-a")
    cluster.node("node-b")
    index = 1002 if change == "pod" else 1003
    add_bridge(cluster, where, "strange", index)
    machine = cluster.root if where == "root" else cluster.node(where)
    ask(machine, lambda netlink: netlink.commit([link.set_link(index, up=up)]))
    strange = ask(machine, lambda netlink: link.link(netlink, index))
    before = state(cluster)
    with pytest.raises(KernelError, match=r"EEXIST|EBUSY"):
        CHANGES[change](cluster)
    assert state(cluster) == before
    assert ask(machine, lambda netlink: link.link(netlink, index)).up is strange.up is up
    made = CHANGES[change](cluster)
    assert reaches(cluster.pod("a"), made, made.ip)  # type: ignore[attr-defined, arg-type]


@pytest.mark.usefixtures("nothing_kept")
def test_no_namespace_is_left_of_a_pod_that_could_not_be_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[netns.Namespace] = []
    create = netns.create

    def remember(label: str) -> netns.Namespace:
        made.append(create(label))
        return made[-1]

    cluster.node("node-a")
    monkeypatch.setattr(netns, "create", remember)
    break_after(monkeypatch, 3)
    with pytest.raises(Broken):
        cluster.add_pod("late", "node-a")
    assert [namespace.fd for namespace in made] == [-1]


def test_of_declared_nodes_built_together_none_is_there_when_one_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Cluster(nodes=("one", "two", "three")) as cluster:
        before = state(cluster)
        with monkeypatch.context() as patch:
            break_after(patch, 20)
            with pytest.raises(Broken):
                _ = cluster.nodes
        assert state(cluster) == before
        assert list(cluster.nodes) == ["one", "two", "three"]
        pod = cluster.add_pod("a", "one")
        assert all(reaches(pod, node, node.ip) for node in cluster.nodes.values())


def test_a_root_that_cannot_be_wired_makes_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go()
    with monkeypatch.context() as patch:
        break_after(patch, 2)
        with pytest.raises(Broken):
            Cluster("broken")
    with Cluster("broken") as cluster:
        assert cluster.netns_name == "broken"
        assert inside(cluster.root).addresses_on("br0") == ["172.18.0.1/16"]
