"""Who pods, nodes and the root are to programs on them."""

import subprocess

import pytest

from netwarren import Cluster, Node, Pod, Root

WHO = ["/bin/sh", "-c", "cat /etc/hostname; uname -n; head -n1 /etc/resolv.conf"]


def links(machine: Pod | Node | Root) -> set[str]:
    return set(machine.check_output(["ls", "/sys/class/net"]).split())


@pytest.mark.cluster(families="dual")
def test_a_pod_is_in_its_kubernetes_namespace(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", namespace="shop")
    search = "search shop.svc.cluster.local svc.cluster.local cluster.local"
    assert pod.check_output(WHO) == f"web\nweb\n{search}\n"
    own = pod.check_output(["grep", "web", "/etc/hosts"]).splitlines()
    assert own == [f"{address}\tweb.shop.svc.cluster.local web" for address in pod.ips]


def test_a_node_and_the_root_are_themselves(cluster: Cluster) -> None:
    node = cluster.node("node-b")
    assert node.check_output(WHO) == "node-b\nnode-b\nsearch cluster.local\n"
    assert cluster.root.check_output(WHO) == "root\nroot\nsearch cluster.local\n"
    assert node.check_output(["getent", "hosts", "node-b"]).split()[0] == node.ip
    assert "br0" in links(cluster.root)
    assert links(node) == {"eth0", "lo"}


@pytest.mark.cluster(families="ipv6")
def test_in_a_cluster_of_ipv6_the_name_server_is_one_of_ipv6(cluster: Cluster) -> None:
    pod = cluster.add_pod("web")
    servers = pod.check_output(["grep", "nameserver", "/etc/resolv.conf"])
    assert servers == "nameserver fd00:169:254:20::10\n"
    assert pod.check_output(["getent", "hosts", "web"]).split()[0] == pod.ip


def test_a_name_that_is_used_again_is_a_new_machine(cluster: Cluster) -> None:
    first = cluster.add_pod("web")
    first.private_directory("/opt", files={"file": "text"})
    first.remove()
    again = cluster.add_pod("web", "node-b")
    assert again.check_output(["getent", "hosts", "web"]).split()[0] == again.ip
    assert "file" not in again.check_output(["ls", "/opt"])


def test_the_command_for_stepping_in_finds_the_pods_files_before_any_program_was_started(
    cluster: Cluster,
) -> None:
    pod = cluster.add_pod("web")
    line = f"{cluster.step_in_command('web')} -- cat /etc/hostname"
    assert pod.programs == []
    assert subprocess.check_output(line, shell=True, text=True, timeout=60) == "web\n"
