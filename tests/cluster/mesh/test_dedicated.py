"""Proxies that are dedicated to one pod, in which they live beside the application."""

import errno
import shutil
import socket

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.errors import ClosedError, ConfigurationError, DuplicateName, KernelError, UnknownName
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.rules import as_text
from netwarren.mesh.model import Match, Policy
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh.test_pages import get

IDENTITY = "spiffe://cluster.local/ns/default/sa/{}"
COMPLETE = "connection complete"


def dedicated(cluster: Cluster, name: str = "web", node: str = "node-a") -> tuple[Pod, NodeProxy]:
    """A pod with a proxy of its own."""
    pod = cluster.add_pod(name, node)
    return pod, cluster.deploy_ztunnel_sync(pod, mode="dedicated")


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_what_a_pod_opens_goes_by_its_own_proxy_to_the_proxy_of_another_node(families: str) -> None:
    with Cluster(families=families) as cluster:
        far = cluster.deploy_ztunnel_sync("node-b")
        server = cluster.add_pod("server", "node-b")
        server.start(double(family=socket.AF_INET6 if families == "ipv6" else socket.AF_INET))
        client, own = dedicated(cluster, "client")
        assert talk(client, server.ip) == (client.ip, b"hellohello")
        outbound = expect_record_sync(own.log, COMPLETE, {"direction": "outbound"})
        assert str(outbound.fields["dst.addr"]).endswith(":15008")
        assert outbound.fields["dst.identity"] == IDENTITY.format("server")
        inbound = expect_record_sync(far.log, COMPLETE, {"direction": "inbound"})
        assert inbound.fields["src.identity"] == IDENTITY.format("client")


def test_what_a_pod_opens_to_who_has_no_proxy_goes_in_plain_text(cluster: Cluster) -> None:
    server = cluster.add_pod("server", "node-b")
    server.start(double())
    client, own = dedicated(cluster, "client")
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    outbound = expect_record_sync(own.log, COMPLETE, {"direction": "outbound"})
    assert outbound.fields["dst.addr"] == f"{server.ip}:8080"
    assert "dst.identity" not in outbound.fields


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
@pytest.mark.parametrize("client_node", ["node-a", "node-b"])
def test_hbone_from_a_shared_proxy_reaches_the_application_from_the_pods_own_address(
    families: str, client_node: str
) -> None:
    with Cluster(families=families) as cluster:
        cluster.deploy_ztunnel_sync(client_node)
        client = cluster.add_pod("client", client_node)
        server = cluster.add_pod("web", "node-a", captured=False)
        own = cluster.deploy_ztunnel_sync("web", mode="dedicated")
        server.start(double(family=socket.AF_INET6 if families == "ipv6" else socket.AF_INET))
        assert talk(client, server.ip) == (server.ip, b"hellohello")
        inbound = expect_record_sync(own.log, COMPLETE, {"direction": "inbound"})
        assert inbound.fields["src.identity"] == IDENTITY.format("client")
        assert inbound.fields["dst.identity"] == IDENTITY.format("web")


def test_two_pods_with_proxies_of_their_own_speak_by_both(cluster: Cluster) -> None:
    client, near = dedicated(cluster, "client")
    server, far = dedicated(cluster, "server")
    server.start(double())
    assert talk(client, server.ip) == (server.ip, b"hellohello")
    for proxy, direction in ((near, "outbound"), (far, "inbound")):
        record = expect_record_sync(proxy.log, COMPLETE, {"direction": direction})
        assert record.fields["src.identity"] == IDENTITY.format("client")
    assert set(cluster.mesh.dedicated) == {"client", "server"}
    assert cluster.mesh.proxies == {}


def test_what_comes_in_plain_text_is_not_captured(cluster: Cluster) -> None:
    server, own = dedicated(cluster)
    client = cluster.add_pod("client", "node-b")
    server.start(double())
    before = own.log.count
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert own.log.records(before) == []


def test_what_a_pod_says_to_itself_is_not_captured(cluster: Cluster) -> None:
    pod, own = dedicated(cluster)
    pod.start(double())
    before = own.log.count
    for host in ("127.0.0.1", pod.ip):
        assert talk(pod, host) == (host, b"hellohello")
    assert own.log.records(before) == []


def test_a_policy_keeps_out_who_comes_by_hbone(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-b")
    client = cluster.add_pod("client", "node-b")
    server, own = dedicated(cluster)
    server.start(double())
    assert talk(client, server.ip) == (server.ip, b"hellohello")
    rules = (((Match(destination_ports=(8080,)),),),)
    cluster.mesh.add_policy(Policy("closed", "default", "Namespace", "Deny", rules=rules))
    assert ended(client, server.ip, 8080)
    record = expect_record_sync(
        own.log, COMPLETE, {"direction": "inbound"}, where=lambda each: "error" in each.fields
    )
    assert "explicitly denied by: default/closed" in str(record.fields["error"])


def test_a_proxy_of_its_own_knows_the_clusters_services(cluster: Cluster) -> None:
    client, own = dedicated(cluster, "client")
    pod = cluster.add_pod("pod", "node-b", labels={"app": "web"})
    pod.start(double())
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    assert talk(client, service.ip, 80) == (client.ip, b"hellohello")
    record = expect_record_sync(own.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.service"] == "web.default.svc.cluster.local"


def test_its_one_rule_is_that_of_ztunnels_script(cluster: Cluster) -> None:
    pod, _ = dedicated(cluster)
    found = redirection.read(pod.namespace_fd, pod.label)
    assert found.is_that_of("dedicated", (4, 6))
    assert len(found.rules) == 2
    assert (found.policies, found.routes) == ((), ())


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed, which lists the rules here")
def test_nft_lists_its_one_rule(cluster: Cluster) -> None:
    pod, _ = dedicated(cluster)
    other = cluster.add_pod("other", "node-a")
    for family in (4, 6):
        other.check_output(["nft", "-f", "-"], input=as_text("dedicated", family))
    listed = pod.check_output(["nft", "list", "ruleset"])
    assert listed == other.check_output(["nft", "list", "ruleset"])
    rule = 'meta l4proto tcp oifname != "lo" meta mark & 0x00000fff != 0x00000539 redirect to :15001'
    assert listed.count(rule) == 2


def test_its_pages_are_in_the_pod(cluster: Cluster) -> None:
    server = cluster.add_pod("server", "node-b")
    server.start(double())
    pod, own = dedicated(cluster)
    assert cluster.root.run(lambda: get(f"http://{pod.ip}:15021/healthz/ready"))[::2] == (200, b"ready\n")
    talk(pod, server.ip)
    expect_record_sync(own.log, COMPLETE, {"direction": "outbound"})
    status, _, body = cluster.root.run(lambda: get(f"http://{pod.ip}:15020/metrics"))
    assert status == 200
    assert b'istio_tcp_connections_opened_total{reporter="source"' in body
    assert b"workload_manager" not in body  # there is no agent that would tell it of pods
    _, _, dump = pod.run(lambda: get("http://127.0.0.1:15000/config_dump"))
    assert b"cluster1//v1/Pod/default/web" in dump


def test_its_metrics_count_what_it_carries(cluster: Cluster) -> None:
    server = cluster.add_pod("server", "node-b")
    server.start(double())
    pod, own = dedicated(cluster)
    before = snapshot(own.metrics)
    talk(pod, server.ip)
    labels = {"reporter": "source", "source_workload": "web", "connection_security_policy": "unknown"}
    expect_sync(before, "istio_tcp_connections_opened_total", labels, 1)


def test_a_pod_with_a_proxy_of_its_own_says_that_it_is_carried(cluster: Cluster) -> None:
    pod, own = dedicated(cluster)
    assert cluster.mesh.carried(pod)
    assert cluster.mesh.workload(pod).protocol == "HBONE"
    assert own.pod is pod
    assert repr(own) == "<NodeProxy in pod 'web': ready>"


def test_it_goes_with_its_pod(cluster: Cluster) -> None:
    pod, own = dedicated(cluster)
    other, _ = dedicated(cluster, "other")
    pod.remove()
    assert not own.running
    assert set(cluster.mesh.dedicated) == {"other"}
    again, _ = dedicated(cluster)
    again.start(double())
    assert talk(other, again.ip) == (again.ip, b"hellohello")


def test_it_goes_with_its_node_and_with_the_cluster() -> None:
    with Cluster() as cluster:
        _, gone = dedicated(cluster, "one", "node-b")
        _, last = dedicated(cluster, "two")
        cluster.node("node-b").remove()
        assert not gone.running
        assert last.running
    assert not last.running


def test_one_that_has_ended_can_be_deployed_anew_in_its_pod(cluster: Cluster) -> None:
    server = cluster.add_pod("server", "node-b")
    server.start(double())
    pod, first = dedicated(cluster)
    first.shut_down()
    with pytest.raises(ConnectionRefusedError):
        talk(pod, server.ip)
    second = cluster.deploy_ztunnel_sync(pod, mode="dedicated")
    assert talk(pod, server.ip) == (pod.ip, b"hellohello")
    assert cluster.mesh.dedicated == {"web": second}


# --- what is refused --------------------------------------------------------------------------------


def test_a_mode_that_is_none_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match=r"'sidecar'.*'shared'.*'dedicated'"):
        cluster.deploy_ztunnel_sync("node-a", mode="sidecar")


def test_it_is_for_a_pod_and_not_for_a_node(cluster: Cluster) -> None:
    for node in ("node-a", cluster.node("node-a")):
        with pytest.raises(ConfigurationError, match=r"'node-a' is a node.*one pod"):
            cluster.deploy_ztunnel_sync(node, mode="dedicated")
    with pytest.raises(UnknownName, match="web"):
        cluster.deploy_ztunnel_sync("web", mode="dedicated")


def test_a_shared_one_is_for_a_node_and_not_for_a_pod(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", "node-a")
    with pytest.raises(ConfigurationError, match="mode='dedicated'"):
        cluster.deploy_ztunnel_sync(pod)


def test_a_pod_has_one_proxy(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    carried = cluster.add_pod("carried", "node-a")
    with pytest.raises(DuplicateName, match="captured=False"):
        cluster.deploy_ztunnel_sync(carried, mode="dedicated")
    with pytest.raises(DuplicateName, match="ztunnel-node-a"):
        cluster.deploy_ztunnel_sync(proxy.pod, mode="dedicated")
    pod, _ = dedicated(cluster, node="node-b")
    with pytest.raises(DuplicateName, match="web"):
        cluster.deploy_ztunnel_sync(pod, mode="dedicated")


def test_a_pod_of_another_cluster_or_one_that_is_gone_is_refused(cluster: Cluster) -> None:
    with Cluster() as other:
        foreign = other.add_pod("web", "node-a")
        with pytest.raises(ClosedError, match="is not of cluster"):
            cluster.deploy_ztunnel_sync(foreign, mode="dedicated")
    gone = cluster.add_pod("web", "node-a")
    gone.remove()
    with pytest.raises(ClosedError, match="was removed"):
        cluster.deploy_ztunnel_sync(gone, mode="dedicated")


def test_it_keeps_no_clients_addresses(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", "node-a")
    with pytest.raises(ConfigurationError, match="require_original_source"):
        cluster.deploy_ztunnel_sync(pod, mode="dedicated", require_original_source=True)


@pytest.mark.parametrize("port", [15001, 15008, 15020, 15021])
def test_a_port_of_its_own_that_the_application_has_is_one_error_and_nothing_has_changed(
    cluster: Cluster, port: int
) -> None:
    pod = cluster.add_pod("web", "node-a")
    with pod:
        taken = socket.create_server(("", port))
    with taken, pytest.raises(KernelError, match=str(port)):
        cluster.deploy_ztunnel_sync(pod, mode="dedicated")
    _untouched(cluster, pod)
    assert cluster.deploy_ztunnel_sync(pod, mode="dedicated").ready


def test_a_pod_that_cannot_be_redirected_is_as_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KernelError("redirect", errno.EPERM, where="the test")

    pod = cluster.add_pod("web", "node-a")
    with monkeypatch.context() as patch:
        patch.setattr(redirection, "apply", fail)
        with pytest.raises(KernelError, match="the test"):
            cluster.deploy_ztunnel_sync(pod, mode="dedicated")
    _untouched(cluster, pod)
    with pod, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 15008))


def _untouched(cluster: Cluster, pod: Pod) -> None:
    assert cluster.mesh.dedicated == {}
    assert not cluster.mesh.carried(pod)
    assert cluster.mesh.workload(pod).protocol == "TCP"
    assert redirection.read(pod.namespace_fd, pod.label) == ((), (), (), ())
