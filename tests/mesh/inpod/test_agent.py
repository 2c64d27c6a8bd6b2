"""The node's agent against proxies spoken by hand, and against the proxy's own side; from any thread."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from netwarren import ClosedError, Cluster, KernelError
from netwarren.cluster.members import Pod
from netwarren.errors import MeshError
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.inpod.zds import Add, Delete, SnapshotSent, WorkloadInfo
from netwarren.sandbox import names
from tests.mesh.inpod.peers import INFO, SECONDS, Peer, Recorded, connect, descriptors, running

SOON = 0.05
"""For what is not going to happen."""


@pytest.fixture
def agent() -> Iterator[NodeAgent]:
    with NodeAgent() as made:
        yield made


@pytest.fixture
def netns() -> Iterator[int]:
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def other_thread() -> Iterator[Callable[..., "Future[None]"]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def identity(netns: int) -> tuple[int, int]:
    found = os.fstat(netns)
    return found.st_dev, found.st_ino


def synced(agent: NodeAgent) -> Peer:
    """A proxy that has taken all there is."""
    peer = connect(agent.path)
    while peer.hear()[0] != SnapshotSent():
        peer.acknowledge()
    peer.acknowledge()
    agent.wait_synced(SECONDS)
    return peer


def test_who_connects_is_told_all_pods_and_that_these_were_all(agent: NodeAgent, netns: int) -> None:
    agent.add("u1", INFO, netns, wait=False)
    agent.add("u2", WorkloadInfo("other", "ns", "sa"), netns, wait=False)
    with connect(agent.path) as proxy:
        assert proxy.hear() == (Add("u1", INFO), identity(netns))
        proxy.acknowledge()
        assert proxy.hear() == (Add("u2", WorkloadInfo("other", "ns", "sa")), identity(netns))
        assert not agent.synced
        proxy.acknowledge()
        assert proxy.hear() == (SnapshotSent(), None)
        proxy.acknowledge()
        agent.wait_synced(SECONDS)


def test_nothing_is_said_before_the_last_was_acknowledged(agent: NodeAgent, netns: int) -> None:
    agent.add("u1", INFO, netns, wait=False)
    with connect(agent.path) as proxy:
        proxy.hear()
        proxy.socket.settimeout(SOON)
        with pytest.raises(TimeoutError):
            proxy.hear()
        proxy.acknowledge()
        assert proxy.hear()[0] == SnapshotSent()


def test_an_addition_returns_when_it_is_acknowledged(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    with synced(agent) as proxy:
        adding = other_thread(agent.add, "u1", INFO, netns)
        assert proxy.hear() == (Add("u1", INFO), identity(netns))
        assert not adding.done()
        proxy.acknowledge()
        adding.result(SECONDS)
        deleting = other_thread(agent.delete, "u1")
        assert proxy.hear() == (Delete("u1"), None)
        assert not deleting.done()
        proxy.acknowledge()
        deleting.result(SECONDS)


def test_a_refused_addition_says_why_and_is_none(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    with synced(agent) as proxy:
        adding = other_thread(agent.add, "u1", INFO, netns)
        proxy.hear()
        proxy.acknowledge("failure to start proxy : EADDRINUSE")
        with pytest.raises(
            MeshError, match=r"pod 'name' \(u1\): the proxy refuses: failure to start proxy : EADDR"
        ):
            adding.result(SECONDS)
        assert proxy.hear() == (Delete("u1"), None)
        proxy.acknowledge()
    with connect(agent.path) as again:
        assert again.hear()[0] == SnapshotSent()


def test_an_addition_that_is_not_acknowledged_in_time_is_none(agent: NodeAgent, netns: int) -> None:
    with synced(agent) as proxy:
        with pytest.raises(MeshError, match=r"has not acknowledged it within 0.05 s"):
            agent.add("u1", INFO, netns, timeout=SOON)
        assert proxy.hear()[0] == Add("u1", INFO)
        proxy.acknowledge()
        assert proxy.hear()[0] == Delete("u1")


@pytest.mark.usefixtures("nothing_kept")
def test_without_a_proxy_an_addition_says_so(agent: NodeAgent, netns: int) -> None:
    before = descriptors()
    with pytest.raises(MeshError, match=f"no proxy is connected to {agent.path}"):
        agent.add("u1", INFO, netns, timeout=SOON)
    assert descriptors() == before
    agent.delete("u1")


def test_an_addition_survives_a_proxy_that_connects_anew(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    with synced(agent) as proxy:
        adding = other_thread(agent.add, "u1", INFO, netns)
        proxy.hear()
    with connect(agent.path) as again:
        assert again.hear()[0] == Add("u1", INFO)
        again.acknowledge()
        adding.result(SECONDS)


def test_a_deletion_needs_no_proxy_that_has_gone(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    agent.add("u1", INFO, netns, wait=False)
    with synced(agent) as proxy:
        deleting = other_thread(agent.delete, "u1")
        proxy.hear()
        assert not deleting.done()
    deleting.result(SECONDS)


def test_a_deletion_that_is_refused_or_not_acknowledged_is_told(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    agent.add("u1", INFO, netns, wait=False)
    agent.add("u2", INFO, netns, wait=False)
    with synced(agent) as proxy:
        deleting = other_thread(agent.delete, "u1")
        proxy.hear()
        proxy.acknowledge("no")
        with pytest.raises(MeshError, match="the end of pod u1: the proxy refuses: no"):
            deleting.result(SECONDS)
        with pytest.raises(MeshError, match="the end of pod u2: the proxy has not acknowledged"):
            agent.delete("u2", timeout=SOON)


def test_a_pod_that_is_gone_before_its_turn_is_not_told(agent: NodeAgent, netns: int) -> None:
    agent.add("u1", INFO, netns, wait=False)
    agent.add("u2", INFO, netns, wait=False)
    with connect(agent.path) as proxy:
        proxy.hear()
        agent.wait_connected(1, SECONDS)
        with pytest.raises(MeshError):
            agent.delete("u2", timeout=SOON)
        proxy.acknowledge()
        assert proxy.hear()[0] == SnapshotSent()
        proxy.acknowledge()
        assert proxy.hear()[0] == Delete("u2")


def test_at_a_hot_upgrade_additions_go_to_the_new_proxy_and_deletions_to_both(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    agent.add("u1", INFO, netns, wait=False)
    with synced(agent) as old, synced(agent) as new:
        assert agent.connected == 2
        adding = other_thread(agent.add, "u2", INFO, netns)
        assert new.hear()[0] == Add("u2", INFO)
        new.acknowledge()
        adding.result(SECONDS)
        deleting = other_thread(agent.delete, "u1")
        assert old.hear()[0] == Delete("u1")  # and of u2 it has heard nothing
        old.acknowledge()
        assert new.hear()[0] == Delete("u1")
        new.acknowledge()
        deleting.result(SECONDS)


def test_where_the_new_proxy_fails_the_old_one_is_told_what_it_missed(
    agent: NodeAgent, netns: int, other_thread: Callable[..., "Future[None]"]
) -> None:
    with synced(agent) as old:
        with synced(agent) as new:
            adding = other_thread(agent.add, "u1", INFO, netns)
            new.hear()
        assert old.hear()[0] == Add("u1", INFO)
        old.acknowledge()
        adding.result(SECONDS)


@pytest.mark.parametrize("said", [b"\x08\x02", b"\xff", b""])
def test_who_does_not_say_hello_is_hung_up_on(agent: NodeAgent, said: bytes) -> None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Peer(made) as peer:
        made.connect(agent.path)
        peer.send(said)
        assert peer.receive() == (b"", [])
    assert agent.connected == 0


@pytest.mark.parametrize("said", [b"", b"\x0a\x00", b"\xff"])
def test_who_answers_what_was_not_asked_is_hung_up_on(agent: NodeAgent, netns: int, said: bytes) -> None:
    with synced(agent) as proxy:
        proxy.send(said, netns)
        assert proxy.receive() == (b"", [])


def test_a_message_too_long_for_a_proxy_is_refused_at_once(agent: NodeAgent, netns: int) -> None:
    with pytest.raises(MeshError, match="use shorter names"):
        agent.add("u" * 2000, INFO, netns)


def test_a_descriptor_that_is_closed_is_told(agent: NodeAgent) -> None:
    with pytest.raises(KernelError, match="hold the network namespace of pod 'name'"):
        agent.add("u1", INFO, 10**6)


@pytest.mark.usefixtures("nothing_kept")
def test_its_pods_are_held_until_it_closes(netns: int) -> None:
    before = descriptors()
    agent = NodeAgent()
    agent.add("u1", INFO, netns, wait=False)
    agent.add("u1", INFO, netns, wait=False)
    assert repr(agent) == f"<NodeAgent at {agent.path}: 1 pods, 0 proxies>"
    agent.close()
    agent.close()
    assert descriptors() == before
    assert repr(agent).endswith(": closed>")
    with pytest.raises(ClosedError):
        agent.add("u1", INFO, netns)


def test_who_waits_when_it_closes_is_told(netns: int, other_thread: Callable[..., "Future[None]"]) -> None:
    agent = NodeAgent()
    with synced(agent) as proxy:
        adding = other_thread(agent.add, "u1", INFO, netns)
        proxy.hear()
        agent.close()
        with pytest.raises(ClosedError, match="was closed"):
            adding.result(SECONDS)
        assert proxy.receive()[0] == b""


def test_its_socket_lies_where_it_vanishes_with_the_sandbox_and_is_removed_before(agent: NodeAgent) -> None:
    run = os.path.dirname(names.directory())
    assert agent.path.startswith(f"{run}/netwarren-zds-")
    assert os.stat(agent.path).st_dev == os.stat(names.views()).st_dev  # the sandbox's own, in memory
    directory = os.path.dirname(agent.path)
    agent.close()
    assert not os.path.exists(directory)


def test_a_program_in_a_pod_finds_the_socket(agent: NodeAgent) -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("ztunnel")
        pod.check_output(["test", "-S", agent.path])


def test_a_path_may_be_given_and_one_that_is_taken_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "ztunnel.sock")
    with NodeAgent(path), pytest.raises(KernelError, match=f"listen at {path}: EADDRINUSE"):
        NodeAgent(path)
    assert not os.path.exists(path)


def test_its_thread_does_not_stay_in_the_pod_it_was_made_in(netns: int) -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("maker")
        with pod, NodeAgent() as agent:
            (thread,) = [each for each in threading.enumerate() if each.name == "netwarren-agent"]
            assert os.stat(f"/proc/self/task/{thread.native_id}/ns/net").st_ino != pod.inode
            assert agent.connected == 0


# --- with the proxy's own side ----------------------------------------------------------------------


def test_agent_and_proxy_understand_each_other(agent: NodeAgent) -> None:
    pods = Recorded()
    with Cluster() as cluster, running(agent.path, pods) as proxy:
        members: list[Pod] = [cluster.add_pod(name) for name in ("one", "two")]
        for pod in members:
            agent.add(pod.name, INFO, pod.namespace_fd)
        agent.wait_synced(SECONDS)
        proxy.wait_ready()
        assert pods.done == [("start", "one"), ("start", "two")]
        assert [each.netns.inode for each in proxy.client.states.active.values()] == [
            pod.inode for pod in members
        ]
        pods.refusals["three"] = "no"
        with pytest.raises(MeshError, match="failure to start proxy : no"):
            agent.add("three", INFO, members[0].namespace_fd)
        agent.delete("one")
        assert set(proxy.client.states.active) == {"two"}
        assert proxy.client.states.pending == {}


def test_pods_added_on_many_threads_are_all_carried(agent: NodeAgent, netns: int) -> None:
    pods = Recorded()
    with running(agent.path, pods), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda uid: agent.add(uid, INFO, netns), map(str, range(50))))
        list(pool.map(agent.delete, map(str, range(50))))
    assert sorted(pods.done) == sorted((what, str(uid)) for uid in range(50) for what in ("start", "stop"))


def test_a_proxy_that_outlives_its_agent_carries_on_with_the_next(tmp_path: Path, netns: int) -> None:
    path = str(tmp_path / "ztunnel.sock")
    pods = Recorded()
    with running(path, pods) as proxy:
        with NodeAgent(path) as agent:
            agent.add("u1", INFO, netns)
            agent.add("u2", INFO, netns)
            proxy.wait_ready()
        proxy.wait_ready(False)
        with NodeAgent(f"{path}.new") as agent:
            agent.add("u2", INFO, netns, wait=False)
            os.rename(agent.path, path)  # now it is found, not before it knew of the pod
            proxy.wait_ready()
            assert pods.done == [("start", "u1"), ("start", "u2"), ("stop", "u1")]
