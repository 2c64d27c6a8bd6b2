"""Our proxy, driven by an agent by hand: what can be seen of pods that it cannot carry yet."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netwarren import Cluster, Pod
from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.inpod import zds
from netwarren.mesh.proxy.ztunnel import Ztunnel
from netwarren.runtime import standing
from tests.cluster.mesh.test_pages import get
from tests.mesh.inpod.peers import INFO, Peer, accept, listening


class Driven(NamedTuple):
    """A proxy, the pod it lives in, and the agent that it follows."""

    proxy: Ztunnel
    place: Pod
    agent: Peer


@pytest.fixture
def driven(cluster: Cluster, tmp_path: Path) -> Iterator[Driven]:
    path, place = str(tmp_path / "zds"), cluster.add_pod("proxy", "node-a")
    with listening(path) as listener:
        proxy = Ztunnel(ProxyConfig(), agent=path, netns=place.namespace_fd, fetch=Authority().fetcher())
        proxy.start()
        try:
            with accept(listener) as agent:
                yield Driven(proxy, place, agent)
        finally:
            proxy.close()


def counts(place: Pod) -> dict[str, float]:
    page = place.run(get, "http://127.0.0.1:15020/metrics")[2].decode()
    lines = [line.split() for line in page.splitlines() if line.startswith("workload_manager_")]
    return {line[0].removeprefix("workload_manager_"): float(line[1]) for line in lines}


def states(place: Pod) -> dict[str, str]:
    dump = json.loads(place.run(get, "http://127.0.0.1:15000/config_dump")[2])
    assert all(
        each["connections"] == {"inbound": [], "outbound": []} for each in dump["workloadState"].values()
    )
    return {uid: each["state"] for uid, each in dump["workloadState"].items()}


def test_a_pod_that_cannot_be_carried_yet_is_seen_as_pending(cluster: Cluster, driven: Driven) -> None:
    _, place, agent = driven
    pod = cluster.add_pod("busy", "node-a")
    with pod:
        taken = socket.create_server(("", 15008))
    with taken:
        assert "15008" in agent.ask(zds.Add("uid", INFO), pod.namespace_fd).error
        assert states(place) == {"uid": "Pending"}
        assert counts(place) == {"active_proxy_count": 0, "pending_proxy_count": 1}
    assert not agent.ask(zds.Add("uid", INFO), pod.namespace_fd).error
    assert states(place) == {"uid": "Up"}
    found = counts(place)
    assert (found["active_proxy_count"], found["pending_proxy_count"]) == (1, 0)


def test_a_pending_pod_that_is_deleted_is_forgotten(cluster: Cluster, driven: Driven) -> None:
    _, place, agent = driven
    pod = cluster.add_pod("busy", "node-a")
    with pod:
        taken = socket.create_server(("", 15008))
    with taken:
        assert agent.ask(zds.Add("uid", INFO), pod.namespace_fd).error
        assert not agent.ask(zds.Delete("uid")).error
    assert states(place) == {}
    assert counts(place)["pending_proxy_count"] == 0


def test_a_proxy_whose_thread_cannot_come_home_ends(
    cluster: Cluster, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, _, agent = driven
    pod = cluster.add_pod("far", "node-a")

    def lose(depth: int) -> None:
        standing.here.lost = "of a test"
        standing._refuse_lost()

    with monkeypatch.context() as patch:
        patch.setattr(standing, "end_step", lose)
        agent.send(zds.encode_request(zds.Add("uid", INFO)), pod.namespace_fd)
        assert proxy.wait(20)
    assert "of a test" in str(proxy.failure)
