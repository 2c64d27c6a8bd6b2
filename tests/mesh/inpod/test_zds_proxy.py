"""The proxy's side of ZDS against an agent spoken by hand: what is done, answered, kept open and closed."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.inpod.zds import Ack, Add, Delete, Keep, SnapshotSent
from tests.mesh.inpod.peers import (
    INFO,
    Peer,
    Recorded,
    Running,
    accept,
    descriptors,
    listening,
    namespaces,
    running,
)

HERE = "/proc/thread-self/ns/net"


@pytest.fixture
def netns() -> Iterator[int]:
    fd = os.open(HERE, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def other_netns() -> Iterator[int]:
    """Another identity: all the proxy's side looks at is stat(2)."""
    fd = os.open("/proc/thread-self/ns/uts", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def pods() -> Recorded:
    return Recorded()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with listening(str(tmp_path / "zds")) as made:
        yield made


@pytest.fixture
def proxy(listener: socket.socket, pods: Recorded) -> Iterator[Running]:
    with running(listener.getsockname(), pods) as made:
        yield made


@pytest.fixture
def agent(listener: socket.socket, proxy: Running) -> Iterator[Peer]:
    with accept(listener) as made:
        yield made


def test_pods_are_started_and_acknowledged_and_then_it_is_ready(
    agent: Peer, proxy: Running, pods: Recorded, netns: int
) -> None:
    assert agent.ask(Add("u1", INFO), netns) == Ack()
    assert agent.ask(Add("u2", INFO), netns) == Ack()
    assert pods.done == [("start", "u1"), ("start", "u2")]
    assert proxy.ready == []
    assert agent.ask(SnapshotSent()) == Ack()
    proxy.wait_ready()
    assert agent.ask(Delete("u1")) == Ack()
    assert pods.done[2:] == [("stop", "u1")]


def test_another_namespace_by_the_same_name_is_another_pod(
    agent: Peer, pods: Recorded, netns: int, other_netns: int
) -> None:
    assert agent.ask(Add("u1", INFO), netns) == Ack()
    assert agent.ask(Add("u1", INFO), netns) == Ack()
    assert agent.ask(Add("u1", INFO), other_netns) == Ack()
    assert pods.done == [("start", "u1"), ("stop", "u1"), ("start", "u1")]


def test_a_pod_that_does_not_start_is_told_and_tried_again(
    listener: socket.socket, pods: Recorded, netns: int
) -> None:
    pods.refusals["u1"] = "port 15008 is taken"
    with running(listener.getsockname(), pods, retry_seconds=0.02) as proxy, accept(listener) as agent:
        assert agent.ask(Add("u1", INFO), netns) == Ack("failure to start proxy : port 15008 is taken")
        assert agent.ask(SnapshotSent()) == Ack()
        assert proxy.ready == []
        del pods.refusals["u1"]
        pods.wait_for(("start", "u1"))
        proxy.wait_ready()
        assert agent.ask(Delete("u1")) == Ack()


@pytest.mark.usefixtures("nothing_kept")
def test_descriptors_are_closed_when_nobody_waits_for_them(
    agent: Peer, proxy: Running, pods: Recorded, netns: int
) -> None:
    before = namespaces(descriptors())
    pods.refusals["u1"] = "no"
    agent.ask(Add("u1", INFO), netns)
    agent.ask(Add("u2", INFO), netns)
    assert len(namespaces(descriptors())) == len(before) + 1  # for the next attempt
    agent.ask(Add("u1", INFO), netns)
    assert len(namespaces(descriptors())) == len(before) + 1
    agent.ask(Delete("u1"))
    assert namespaces(descriptors()) == before


@pytest.mark.usefixtures("nothing_kept")
def test_at_the_end_of_the_run_nothing_is_left_open(
    listener: socket.socket, pods: Recorded, netns: int
) -> None:
    before = descriptors()
    pods.refusals["u1"] = "no"
    with running(listener.getsockname(), pods), accept(listener) as agent:
        agent.ask(Add("u1", INFO), netns)
    assert descriptors() == before


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize(
    "case", ["no descriptor", "two descriptors", "one with a snapshot", "garbage", "ten", "long"]
)
def test_what_cannot_be_understood_is_answered_and_the_connection_made_anew(
    listener: socket.socket, agent: Peer, proxy: Running, pods: Recorded, netns: int, case: str
) -> None:
    assert agent.ask(SnapshotSent()) == Ack()
    proxy.wait_ready()
    before = namespaces(descriptors())
    match case:
        case "no descriptor":
            answer = agent.ask(Add("u1", INFO))
        case "two descriptors":
            answer = agent.ask(Add("u1", INFO), netns, netns)
        case "one with a snapshot":
            answer = agent.ask(Keep("u1"), netns)
        case "garbage":
            agent.send(b"\xff\xff", netns)
            answer = agent.answer()
        case "ten":
            answer = agent.ask(Add("u1", INFO), *[netns] * 10)
        case _:
            agent.send(b"\x0a" * 2000, netns)
            answer = agent.answer()
    assert answer.error
    assert agent.receive()[0] == b""
    proxy.wait_ready(False)
    assert namespaces(descriptors()) == before
    with accept(listener) as again:
        assert again.ask(SnapshotSent()) == Ack()
        proxy.wait_ready()
    assert pods.done == []


@pytest.mark.parametrize("case", ["two snapshots", "kept late", "no info"])
def test_an_agent_that_does_not_keep_to_the_protocol_is_answered_and_ends_the_proxy(
    agent: Peer, proxy: Running, netns: int, case: str
) -> None:
    agent.ask(SnapshotSent())
    match case:
        case "two snapshots":
            answer = agent.ask(SnapshotSent())
        case "kept late":
            answer = agent.ask(Keep("u1"))
        case _:
            answer = agent.ask(Add("u1", None), netns)
    assert answer.error.startswith("protocol error: ")
    failure = proxy.wait_end()
    assert isinstance(failure, MeshError)
    assert "does not keep to ZDS" in str(failure)


def test_pods_go_on_while_the_agent_is_away_and_are_named_again_or_stopped(
    listener: socket.socket, agent: Peer, proxy: Running, pods: Recorded, netns: int
) -> None:
    for uid in ("u1", "u2", "u3"):
        agent.ask(Add(uid, INFO), netns)
    agent.ask(SnapshotSent())
    proxy.wait_ready()
    agent.socket.close()
    proxy.wait_ready(False)
    with accept(listener) as again:
        again.ask(Add("u1", INFO), netns)
        again.ask(Keep("u2"))
        assert len(pods.done) == 3
        again.ask(SnapshotSent())
        proxy.wait_ready()
        assert pods.done[3:] == [("stop", "u3")]


def test_an_agent_that_comes_later_is_found(tmp_path: Path, pods: Recorded) -> None:
    path = str(tmp_path / "later")
    with running(path, pods) as proxy, listening(path) as listener, accept(listener) as agent:
        agent.ask(SnapshotSent())
        proxy.wait_ready()


def test_an_agent_that_hangs_up_at_once_is_asked_again(listener: socket.socket, proxy: Running) -> None:
    for _ in range(3):
        listener.accept()[0].close()
    with accept(listener) as agent:
        agent.ask(SnapshotSent())
        proxy.wait_ready()


def test_at_the_proxys_end_all_pods_are_stopped_gracefully(
    agent: Peer, proxy: Running, pods: Recorded, netns: int
) -> None:
    for uid in ("u1", "u2"):
        agent.ask(Add(uid, INFO), netns)
    agent.ask(SnapshotSent())
    agent.ask(SnapshotSent())
    proxy.wait_end()
    proxy.call(proxy.client.stop_all)
    assert pods.done[2:] == [("stop gracefully", "u1"), ("stop gracefully", "u2")]
