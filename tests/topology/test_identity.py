"""Who a machine is, as text: the files that its programs find in /etc."""

import pytest

from netwarren.topology.identity import (
    Identity,
    hosts,
    node_identity,
    nsswitch_conf,
    pod_identity,
    root_identity,
)
from netwarren.topology.model import ClusterModel


def pod(families: object = 4, namespace: str = "shop") -> Identity:
    model = ClusterModel(families)  # type: ignore[arg-type]
    model.add_node("node-a")
    return pod_identity(model.add_pod("web", "node-a", namespace=namespace), None)


def resolver(identity: Identity) -> list[str]:
    return identity.files["/etc/resolv.conf"].splitlines()


def own_lines(identity: Identity) -> list[str]:
    lines = identity.files["/etc/hosts"].splitlines()
    return [line for line in lines if "\tweb" in line or "\tnode" in line or "\troot" in line]


def test_a_pod_searches_its_kubernetes_namespace_first() -> None:
    assert resolver(pod()) == [
        "search shop.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 169.254.20.10",
        "options ndots:5",
    ]


def test_a_pod_without_a_namespace_of_its_own_is_in_the_default_one() -> None:
    assert resolver(pod(namespace="default"))[0].startswith("search default.svc.cluster.local ")


@pytest.mark.parametrize(
    ("families", "servers"),
    [
        (6, ["nameserver fd00:169:254:20::10"]),
        ("dual", ["nameserver 169.254.20.10", "nameserver fd00:169:254:20::10"]),
        ((6, 4), ["nameserver fd00:169:254:20::10", "nameserver 169.254.20.10"]),
    ],
)
def test_there_is_a_name_server_for_each_family_in_the_clusters_order(
    families: object, servers: list[str]
) -> None:
    assert resolver(pod(families))[1:-1] == servers


def test_a_pods_addresses_have_its_name_with_and_without_the_domain() -> None:
    assert own_lines(pod("dual")) == [
        "10.0.1.2\tweb.shop.svc.cluster.local web",
        "fd00:10:0:1::2\tweb.shop.svc.cluster.local web",
    ]


@pytest.mark.parametrize("families", [4, 6])
def test_localhost_is_in_both_families_whatever_the_clusters(families: int) -> None:
    lines = pod(families).files["/etc/hosts"].splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert any(line.startswith("::1\tlocalhost") for line in lines)


def test_the_host_name_is_the_pods() -> None:
    assert (pod().hostname, pod().files["/etc/hostname"]) == ("web", "web\n")


def test_a_node_and_the_root_are_in_the_cluster_domain() -> None:
    model = ClusterModel()
    node = node_identity(model.add_node("node-a"), None)
    root = root_identity("root", model.root, None)
    assert resolver(node)[0] == resolver(root)[0] == "search cluster.local"
    assert own_lines(node) == ["172.18.0.2\tnode-a.cluster.local node-a"]
    assert own_lines(root) == ["172.18.0.1\troot.cluster.local root"]
    assert (node.hostname, root.hostname) == ("node-a", "root")


def test_every_file_ends_with_a_line_end() -> None:
    assert all(text.endswith("\n") for text in pod().files.values())


def test_without_addresses_there_is_localhost_alone() -> None:
    assert "web" not in hosts("web", (), "cluster.local")


# --- nsswitch.conf --------------------------------------------------------------------------------


def test_of_the_hosts_nsswitch_only_the_line_for_hosts_is_replaced() -> None:
    host = "# hosts: are below\npasswd: files sss\nhosts:\tfiles resolve [!UNAVAIL=return] dns\nnetworks: files\n"
    assert nsswitch_conf(host) == (
        "# hosts: are below\npasswd: files sss\nhosts: files dns\nnetworks: files\n"
    )


def test_a_host_without_the_line_gets_it() -> None:
    assert nsswitch_conf("passwd: files") == "passwd: files\nhosts: files dns\n"
    assert nsswitch_conf("") == "hosts: files dns\n"


def test_a_host_without_the_file_gets_a_small_one() -> None:
    lines = nsswitch_conf(None).splitlines()
    assert "hosts: files dns" in lines
    assert "passwd: files" in lines
