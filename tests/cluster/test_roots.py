"""The root of a closed cluster serves the next one, if it is like new."""

import os
import time

import pytest

from netwarren import Cluster
from netwarren.cluster import roots
from netwarren.errors import UnknownName
from netwarren.kernel import link
from netwarren.runtime import ferry

pytestmark = pytest.mark.usefixtures("_netwarren_sandbox", "nothing_kept")


def closed(**options: str) -> int:
    """The inode of the root of a cluster that was used and closed."""
    with Cluster(**options) as cluster:  # type: ignore[arg-type]
        cluster.add_pod("a", node="node-a")
        cluster.add_pod("b", node="node-b")
    return cluster.root.inode


def settled() -> None:
    """Wait until the kernel has taken the nodes of closed clusters away."""
    deadline = time.monotonic() + 30
    ferry.catch_up()
    for root in roots.waiting():
        while len(link.links(root.netlink)) > 2:
            assert time.monotonic() < deadline, "the kernel does not take ports away"
            time.sleep(0.005)  # there is nothing to wait on that would not itself keep the link


def report_of(cluster: Cluster) -> list[str]:
    """The report of a root, without the name that `ip netns` has for it and the kernel's multicast routes."""
    lines = cluster.report().splitlines()
    return [line for line in lines if "multicast" not in line and not line.startswith("step in")]


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_a_root_is_used_again_and_reads_like_a_new_one(families: str) -> None:
    with Cluster(families=families) as new:
        expected = report_of(new)
        new.root.socket().close()  # so that this one is not used again
    first = closed(families=families)
    settled()
    with Cluster(families=families) as again:
        assert again.root.inode == first
        found = report_of(again)
    assert found == expected


def test_traffic_flows_through_a_root_that_is_used_again() -> None:
    first = closed()
    settled()
    with Cluster() as again:
        assert again.root.inode == first
        server = again.add_pod("server", node="node-b")
        client = again.add_pod("client", node="node-a")
        with server.socket() as listener, client.socket() as caller:
            listener.bind(("", 80))
            listener.listen()
            caller.connect((server.ip, 80))
            _connection, (peer, _port) = listener.accept()
            _connection.close()
        assert peer == client.ip


def test_a_root_with_ports_left_waits() -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("a")
        held = os.dup(pod.node.namespace_fd)  # somebody keeps the node's namespace, and so its link
    try:
        with Cluster() as other:
            assert other.root.inode != cluster.root.inode
    finally:
        os.close(held)


def test_a_root_that_was_stepped_into_ends() -> None:
    with Cluster() as cluster, cluster.root:
        pass
    assert len(roots.waiting()) == 0


def test_a_root_that_was_changed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ferry, "later", lambda function: None)  # nobody has looked at it yet
    with Cluster() as cluster:
        inode = cluster.root.inode
    (root,) = roots.waiting()
    root.netlink.commit([link.set_link(1, mtu=1400)])
    with Cluster() as other:
        assert other.root.inode != inode


def test_clusters_of_other_ranges_have_roots_of_their_own() -> None:
    first = closed()
    settled()
    with Cluster(node_range="192.168.0.0/24") as other:
        assert other.root.inode != first


def test_the_label_is_the_new_clusters() -> None:
    closed(name="old")
    settled()
    with Cluster("new") as again:
        assert "new" in again.netns_name
        with pytest.raises(UnknownName):
            again.resolve("a")
        assert "the root of new" in repr(again._wiring.netlink(""))


def test_a_bounded_number_waits() -> None:
    many = [Cluster() for _ in range(roots.MOST_WAITING + 3)]
    for cluster in many:
        cluster.close()
    ferry.catch_up()  # which may have one in its hands
    assert len(roots.waiting()) == roots.MOST_WAITING
