"""A kernel without what a cluster needs: one error that names it and the remedy, and nothing left behind."""

import errno
import os

import pytest

from netwarren import Cluster, UnsupportedByKernel
from netwarren.kernel import netlink
from netwarren.kernel.netlink import Netlink, Request
from netwarren.sandbox import names
from tests.cluster.readback import state
from tests.cluster.traffic import reaches


def without(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Have netlink answer as a kernel does that was built without ``part``."""
    commit = Netlink.commit

    def answer(self: Netlink, requests: list[Request]) -> None:
        for request in requests:
            if request.needs == part:
                raise netlink.refusal(request, errno.EOPNOTSUPP, self.where, "Unknown device type")
        commit(self, requests)

    monkeypatch.setattr(Netlink, "commit", answer)


@pytest.mark.usefixtures("nothing_kept")
def test_without_bridges_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        without(patch, "bridge")
        with pytest.raises(
            UnsupportedByKernel, match=r"add bridge br0 in the root of none: .*modprobe bridge"
        ):
            Cluster("none")
    assert os.listdir("/proc/self/fd") == before
    assert "none" not in os.listdir(names.directory())


def test_without_veth_there_is_no_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(cluster)
    with monkeypatch.context() as patch:
        without(patch, "veth")
        with pytest.raises(UnsupportedByKernel, match=r"add veth .* in the root of .*modprobe veth"):
            cluster.add_pod("web", "node-a")
    assert state(cluster) == before
    assert cluster.add_pod("web", "node-a").ip == "10.0.1.2"


def test_without_veth_there_is_no_pod(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client = cluster.add_pod("client", "node-a")
    before = state(cluster)
    with monkeypatch.context() as patch:
        without(patch, "veth")
        with pytest.raises(
            UnsupportedByKernel, match=r"in node 'node-a': EOPNOTSUPP.*no veth: `modprobe veth`"
        ):
            cluster.add_pod("web", "node-a")
    assert state(cluster) == before
    web = cluster.add_pod("web", "node-a")
    assert reaches(client, web, web.ip)


@pytest.mark.usefixtures("nothing_kept")
def test_without_ipv6_an_ipv6_cluster_is_refused_and_an_ipv4_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = Netlink.commit

    def answer(self: Netlink, requests: list[Request]) -> None:
        for request in requests:
            if request.needs == "IPv6":
                raise netlink.refusal(request, errno.EOPNOTSUPP, self.where)
        commit(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(Netlink, "commit", answer)
        with pytest.raises(UnsupportedByKernel, match="no IPv6: CONFIG_IPV6=y"):
            Cluster(families="dual")
        with Cluster() as cluster:
            assert cluster.add_pod("web").ip == "10.0.1.2"
