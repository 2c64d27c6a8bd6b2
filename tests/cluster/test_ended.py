"""Pods, nodes and clusters after their end: every verb refuses and says what is gone; so do strangers."""

import asyncio
import socket
import sys
from collections.abc import Callable

import pytest

from netwarren import Background, ClosedError, Cluster
from netwarren.runtime.machine import Machine
from tests.cluster.readback import state


def step_in(machine: Machine) -> None:
    with machine:
        pytest.fail("the block was entered")


async def _async_step_in(machine: Machine) -> None:
    async with machine:
        pytest.fail("the block was entered")


async def _nothing() -> None:
    pytest.fail("the coroutine ran")


VERBS: dict[str, Callable[[Machine], object]] = {
    "with": step_in,
    "async with": lambda machine: asyncio.run(_async_step_in(machine)),
    "run": lambda machine: machine.run(pytest.fail, "the function ran"),
    "start": lambda machine: machine.start(pytest.fail, "the function ran"),
    "run_async": lambda machine: asyncio.run(machine.run_async(_nothing)),
    "socket": lambda machine: machine.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "popen": lambda machine: machine.popen([sys.executable, "--version"]),
    "check_output": lambda machine: machine.check_output([sys.executable, "--version"]),
    "namespace_fd": lambda machine: machine.namespace_fd,
    "remove": lambda machine: machine.remove(),  # type: ignore[attr-defined]
}
EVERY_VERB = pytest.mark.parametrize("verb", VERBS)


@EVERY_VERB
def test_a_removed_pod_refuses_everything(cluster: Cluster, verb: str) -> None:
    pod = cluster.add_pod("server")
    pod.remove()
    with pytest.raises(ClosedError, match="pod 'server' was removed; add it anew"):
        VERBS[verb](pod)


@EVERY_VERB
def test_a_removed_node_and_the_pods_on_it_refuse_everything(cluster: Cluster, verb: str) -> None:
    pod = cluster.add_pod("server", "node-b")
    node = pod.node
    node.remove()
    for machine, label in ((node, "node 'node-b'"), (pod, "pod 'server'")):
        with pytest.raises(ClosedError, match=f"{label} was removed"):
            VERBS[verb](machine)


@EVERY_VERB
def test_nothing_can_be_done_in_a_closed_cluster(verb: str) -> None:
    with Cluster() as cluster:
        machines: list[Machine] = [cluster.add_pod("server"), cluster.node("node-a")]
    for machine in machines:
        with pytest.raises(ClosedError, match=r"is in a closed cluster|is closed"):
            VERBS[verb](machine)


def test_the_root_of_a_closed_cluster_refuses_everything() -> None:
    with Cluster() as cluster:
        pass
    for verb in VERBS.keys() - {"remove"}:
        with pytest.raises(ClosedError, match="the root is in a closed cluster"):
            VERBS[verb](cluster.root)


def test_a_closed_cluster_says_so_whatever_it_is_asked() -> None:
    with Cluster("gone") as cluster:
        pod = cluster.add_pod("server")
        node = pod.node
    asked: list[Callable[[], object]] = [
        lambda: cluster.add_pod("other"),
        lambda: cluster.add_node("other"),
        lambda: node.add_pod("other"),
        lambda: cluster.remove_pod("server"),
        lambda: cluster.remove_pod(pod),
        lambda: cluster.remove_node("node-a"),
        lambda: cluster.resolve("server"),
        lambda: cluster.node("node-a"),
        lambda: cluster.pod("server"),
        lambda: cluster.nodes,
        lambda: pod.node,
    ]
    for ask in asked:
        with pytest.raises(ClosedError, match=r"cluster 'gone' is closed|in a closed cluster"):
            ask()


def test_closing_again_is_fine() -> None:
    cluster = Cluster()
    cluster.close()
    cluster.close()
    assert cluster.closed


def test_a_pod_of_another_cluster_is_refused(cluster: Cluster) -> None:
    with Cluster("other") as other:
        mine, theirs = cluster.add_pod("server", "node-a"), other.add_pod("server", "node-a")
        before = state(cluster), state(other)
        changes: list[Callable[[], object]] = [
            lambda: cluster.remove_pod(theirs),
            lambda: cluster.remove_node(theirs.node),
            lambda: cluster.add_pod("another", theirs.node),
            lambda: other.remove_pod(mine),
        ]
        for change in changes:
            with pytest.raises(ClosedError, match=r"is not of cluster '.*'; use the cluster it was made by"):
                change()
        assert (state(cluster), state(other)) == before


def test_a_pod_of_the_same_name_does_not_stand_in_for_the_one_that_was_removed(cluster: Cluster) -> None:
    old = cluster.add_pod("server")
    old.remove()
    new = cluster.add_pod("server")
    with pytest.raises(ClosedError):
        cluster.remove_pod(old)
    assert cluster.pod("server") is new


def test_a_block_that_is_open_when_its_pod_goes_is_left_as_usual(cluster: Cluster) -> None:
    pod = cluster.add_pod("server")
    with cluster.root:
        with pod:
            pod.remove()
        assert cluster.root.run(lambda: True)


def test_code_in_the_background_is_told_to_stop_before_its_pod_goes(cluster: Cluster) -> None:
    from threading import Event

    def wait(ready: Callable[[], None], stop: Event) -> str:
        ready()
        assert stop.wait(30)
        return "was asked to"

    pod = cluster.add_pod("server")
    background: Background[str] = pod.start(wait)
    pod.remove()
    assert background.result(timeout=30) == "was asked to"


@pytest.mark.parametrize("of", ["pod", "node", "cluster"])
def test_programs_end_with_their_pod(of: str) -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("server", "node-b")
        program = pod.popen([sys.executable, "-c", "import signal; signal.pause()"])
        end: dict[str, Callable[[], None]] = {
            "pod": pod.remove,
            "node": pod.node.remove,
            "cluster": cluster.close,
        }
        end[of]()
        assert program.poll() == -9
