"""The names under which ``ip netns`` finds a cluster's namespaces, in the sandbox's own /run/netns."""

import os
import shutil
from collections.abc import Callable

import pytest

from netwarren import Cluster, UnknownName
from netwarren.runtime.machine import Machine
from netwarren.sandbox import names


def listed(cluster: Cluster) -> dict[str, int]:
    """The names of this cluster's namespaces, and which namespaces they lead to."""
    own = [name for name in os.listdir(names.directory()) if name.split(".")[-1] == cluster.netns_name]
    return {name: os.stat(os.path.join(names.directory(), name)).st_ino for name in own}


def test_every_namespace_has_a_name_that_leads_to_it(cluster: Cluster) -> None:
    pod = cluster.add_pod("server", "node-b")
    own = cluster.netns_name
    assert listed(cluster) == {
        own: cluster.root.inode,
        f"node-b.{own}": pod.node.inode,
        f"server.{own}": pod.inode,
    }
    assert pod.inode == pod.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino)


def test_the_name_goes_with_the_pod(cluster: Cluster) -> None:
    pod = cluster.add_pod("server")
    cluster.remove_pod(pod)
    assert set(listed(cluster)) == {cluster.netns_name, f"node-a.{cluster.netns_name}"}


def test_no_name_is_left_when_the_cluster_is_closed() -> None:
    with Cluster("short-lived") as cluster:
        cluster.add_pod("server")
        assert len(listed(cluster)) == 3
    assert listed(cluster) == {}


@pytest.mark.parametrize("end", [Cluster.close, lambda cluster: cluster.remove_node("node-a")])
def test_a_pod_added_under_an_old_name_is_the_one_the_name_leads_to(end: Callable[[Cluster], None]) -> None:
    with Cluster("renewed") as cluster:
        cluster.add_pod("server", "node-a").remove()
        pod = cluster.add_pod("server", "node-b")
        assert listed(cluster)[f"server.{cluster.netns_name}"] == pod.inode
        end(cluster)


def test_two_clusters_of_one_name_are_told_apart() -> None:
    with Cluster("twin") as one, Cluster("twin") as two:
        one.add_pod("server")
        two.add_pod("server")
        assert one.netns_name != two.netns_name
        assert set(listed(one).values()).isdisjoint(listed(two).values())


@pytest.mark.parametrize("name", ["a test[x-1]", "../../etc", "", ".", "ä" * 300, "tests/test_a.py::test_b"])
def test_any_cluster_name_makes_a_file_name(name: str) -> None:
    with Cluster(name) as cluster:
        cluster.add_pod("p" * 63)
        assert cluster.name == name
        assert len(listed(cluster)) == 3
        assert set(cluster.netns_name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
        )


def test_the_command_to_step_in_names_the_namespace(cluster: Cluster) -> None:
    cluster.add_pod("server")
    assert cluster.step_in_command().endswith(f" {os.getpid()} {cluster.netns_name}")
    assert cluster.step_in_command("server").endswith(f" server.{cluster.netns_name}")


def test_there_is_no_command_to_step_into_what_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(UnknownName, match="'servre'"):
        cluster.step_in_command("servre")


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed: nothing to compare with")
def test_ip_netns_lists_and_enters_the_same_namespaces(cluster: Cluster) -> None:
    pod = cluster.add_pod("server", "node-a")
    own = listed(cluster)
    lines = cluster.root.check_output(["ip", "netns", "list"]).splitlines()
    assert set(own) <= {line.split()[0] for line in lines}
    machines: dict[str, Machine] = {f"server.{cluster.netns_name}": pod, cluster.netns_name: cluster.root}
    for name, machine in machines.items():
        output = cluster.root.check_output(["ip", "netns", "exec", name, "readlink", "/proc/self/ns/net"])
        assert output.strip() == f"net:[{machine.inode}]"
