"""What a service does not serve is refused at once, and so is a service that cannot be."""

import errno
import socket
import time
from collections.abc import Callable

import pytest

from netwarren import (
    AddressError,
    AddressTaken,
    ClosedError,
    Cluster,
    ConfigurationError,
    DuplicateName,
    InvalidName,
    NetwarrenError,
    RangeExhausted,
    UnknownName,
)
from netwarren.runtime.machine import Machine
from tests.cluster.servers import Servers
from tests.cluster.traffic import connect_refusal, new_socket, refusal

AT_ONCE = 0.9  # before anything is sent a second time


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_service_without_ready_endpoints_and_a_port_without_service_refuse_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("web", labels={"app": "web"})
        client = cluster.add_pod("client", "node-b")
        service = cluster.add_service("web", selector={"app": "web"}, ports=["80", "80/udp"], node_ports=True)
        pod.ready = False
        number = service.ports[0].node_port
        assert number is not None
        node = cluster.node("node-b").ip
        # Many, because the kernel's usual limit would let the first few pass.
        for _ in range(20):
            for address, port in ((service.ip, 80), (service.ip, 81), (node, number)):
                for ask in (connect_refusal, refusal):
                    began = time.monotonic()
                    assert ask(client, address, port) == "ECONNREFUSED"
                    assert time.monotonic() - began < AT_ONCE
        assert connect_refusal(cluster.node("node-a"), service.ip, 80) == "ECONNREFUSED"
        assert refusal(cluster.node("node-a"), service.ip, 80) == "EPERM"


def test_a_service_with_ready_endpoints_elsewhere_only_drops_what_may_not_go_there(cluster: Cluster) -> None:
    cluster.add_pod("web", "node-a", labels={"app": "web"})
    client = cluster.add_pod("client", "node-b")
    service = cluster.add_service("web", selector={"app": "web"}, ports=8080, internal_traffic_policy="Local")
    with new_socket(client, service.ip) as near:
        near.settimeout(0.3)
        assert near.connect_ex((service.ip, 8080)) == errno.EAGAIN


def test_a_pod_that_listens_nowhere_refuses_for_its_service(cluster: Cluster) -> None:
    pod = cluster.add_pod("web", labels={"app": "web"})
    service = cluster.add_service("web", pods=[pod], ports=["80", "80/udp"])
    client = cluster.add_pod("client", "node-b")
    assert connect_refusal(client, service.ip, 80) == "ECONNREFUSED"
    assert refusal(client, service.ip, 80) == "ECONNREFUSED"


def add(cluster: Cluster, name: str = "late", **options: object) -> object:
    return cluster.add_service(name, **{"ports": 80, "pods": (), **options})  # type: ignore[arg-type]


REFUSED: dict[str, tuple[type[NetwarrenError], str, Callable[[Cluster], object]]] = {
    "name taken": (DuplicateName, r"service 'web\.default' exists already \(10\.96\.0\.1\)", lambda c: add(c, "web")),
    "digit first": (InvalidName, "service name '1st' starts with a digit.*RFC 1035", lambda c: add(c, "1st")),
    "capital": (InvalidName, "service name 'Web' contains the capital letter", lambda c: add(c, "Web")),
    "namespace": (InvalidName, "namespace name 'A'", lambda c: add(c, namespace="A")),
    "unknown pod": (UnknownName, "no pod is called 'wbe'; there are: pod", lambda c: add(c, pods=["pod", "wbe"])),
    "address taken": (AddressTaken, "cluster IP 10.96.0.1 is taken by service web.default", lambda c: add(c, cluster_ip="10.96.0.1")),
    "address outside": (AddressError, "cluster IP 10.0.1.9 is outside 10.96.0.0/12", lambda c: add(c, cluster_ip="10.0.1.9")),
    "first address": (AddressError, "10.96.0.0 is the address of the network itself", lambda c: add(c, cluster_ip="10.96.0.0")),
    "other family": (AddressError, "IPv6, which this cluster does not have", lambda c: add(c, cluster_ip="fd00::1")),
    "node port taken": (AddressTaken, "tcp node port 30080 is taken by service web.default", lambda c: add(c, node_ports={80: 30080})),
    "node port outside": (AddressError, "node port 8080 is none; ask for one from 30000 to 32767", lambda c: add(c, node_ports={80: 8080})),
    "node port of no port": (ConfigurationError, r"port 81/tcp.*its ports are: 80/tcp", lambda c: add(c, node_ports={81: 30081})),
    "sctp": (ConfigurationError, "'sctp' is no protocol that services carry here", lambda c: add(c, ports="80/sctp")),
    "port 0": (ConfigurationError, "0 is no port; one is a number from 1 to 65535", lambda c: add(c, ports=0)),
    "port twice": (ConfigurationError, "two ports of the service are 80/tcp", lambda c: add(c, ports=[80, "80"])),
    "no ports": (ConfigurationError, "has no ports", lambda c: add(c, ports=())),
    "no pods": (ConfigurationError, "says nothing of its pods", lambda c: add(c, pods=None)),
    "pods of another kind": (ConfigurationError, "pods=5 are no pods", lambda c: add(c, pods=5)),
    "both": (ConfigurationError, "both a selector and a list of pods", lambda c: add(c, selector={"a": "b"})),
    "empty selector": (ConfigurationError, "selector of service 'late' is empty", lambda c: add(c, pods=None, selector={})),
    "headless with address": (ConfigurationError, "is headless and asks for", lambda c: add(c, headless=True, cluster_ip="10.96.0.9")),
    "headless with node ports": (ConfigurationError, "need a cluster IP", lambda c: add(c, headless=True, node_ports=True)),
    "policy": (ConfigurationError, "internal_traffic_policy='Here'", lambda c: add(c, internal_traffic_policy="Here")),
    "affinity": (ConfigurationError, "session_affinity=0.5", lambda c: add(c, session_affinity=0.5)),
    "no such service": (UnknownName, r"no service is called 'late\.default'; there are: web\.default", lambda c: c.service("late")),
    "no such name": (UnknownName, "no service, pod or node is called 'late'", lambda c: c.resolve("late")),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence_and_changes_nothing(cluster: Cluster, what: str) -> None:
    kind, sentence, change = REFUSED[what]
    pod = cluster.add_pod("pod")
    cluster.add_service("web", pods=[pod], ports=80, node_ports={80: 30080})
    with pytest.raises(kind, match=sentence):
        change(cluster)
    assert list(cluster.services) == ["web"]
    after = cluster.add_service("after", pods=[pod], ports=80, node_ports=True)
    assert (after.ip, after.ports[0].node_port) == ("10.96.0.2", 30000)


def test_a_cluster_without_services_lists_none(cluster: Cluster) -> None:
    assert cluster.services == {}
    with pytest.raises(UnknownName, match=r"no service is called 'web\.default'; there are none"):
        cluster.service("web")


def test_a_full_range_is_refused_until_a_service_is_removed() -> None:
    with Cluster(service_range="10.8.0.0/30") as cluster:
        for name in ("one", "two"):
            cluster.add_service(name, pods=(), ports=80)
        with pytest.raises(
            RangeExhausted, match=r"no cluster IP is left in 10\.8\.0\.0/30.*remove a service"
        ):
            cluster.add_service("three", pods=(), ports=80)
        cluster.remove_service("one")
        assert cluster.add_service("three", pods=(), ports=80).ip == "10.8.0.1"


@pytest.mark.parametrize(
    ("service_range", "sentence"),
    [
        ("10.0.0.0/8", "overlap.*such as 10.96.0.0/12"),
        ("172.18.9.0/24", "the node range 172.18.0.0/16 overlap"),
        ("10.96.0.0/31", "has no room for services; /30 or wider would do"),
        ("127.0.0.0/16", "loopback"),
    ],
)
def test_a_range_for_services_that_cannot_work_makes_no_cluster(service_range: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        Cluster(service_range=service_range)


def test_a_pod_range_over_the_default_service_range_is_refused_with_the_first_service() -> None:
    with Cluster(pod_range="10.0.0.0/8") as cluster:
        cluster.add_pod("pod")
        with pytest.raises(AddressError, match=r"service_range=, one apart.*such as 192\.168\.0\.0/16"):
            cluster.add_service("web", pods=["pod"], ports=80)
        assert cluster.services == {}


def test_a_service_that_is_gone_says_so() -> None:
    with Cluster("one") as cluster, Cluster("other") as other:
        service = cluster.add_service("web", pods=(), ports=80)
        with pytest.raises(ClosedError, match=r"service 'web\.default' is not of cluster 'other'"):
            other.remove_service(service)
        service.remove()
        assert repr(service) == "<Service web.default 10.96.0.1 80/tcp, was removed>"
        for again in (service.remove, service.check, lambda: cluster.remove_service(service)):
            with pytest.raises(ClosedError, match=r"service 'web\.default' was removed"):
                again()
        last = cluster.add_service("web", pods=(), ports=80)
    assert repr(last) == "<Service web.default 10.96.0.1 80/tcp, is in a closed cluster>"
    with pytest.raises(ClosedError, match="is closed"):
        cluster.add_service("late", pods=(), ports=80)


def test_a_removed_service_refuses_and_leaves_its_connections_alone(cluster: Cluster) -> None:
    pod, client = cluster.add_pod("web"), cluster.add_pod("client", "node-b")
    service = cluster.add_service("web", pods=[pod], ports=["80", "8080/udp"])
    with Servers([pod], port=80) as servers:
        session = servers.session(client, service.ip)
        service.remove()
        assert connect_refusal(client, service.ip, 80) == "ECONNREFUSED"
        assert session.works()
        session.close()


def test_a_flow_of_datagrams_to_a_removed_service_is_refused(cluster: Cluster) -> None:
    pod, client = cluster.add_pod("web"), cluster.add_pod("client", "node-b")
    service = cluster.add_service("web", pods=[pod], ports="8080/udp")
    with Servers([pod]) as servers, flow(client, service.ip, 8080) as near:
        assert servers.exchange(near).server == "web"
        service.remove()
        near.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            near.recv(100)


def flow(client: Machine, address: str, port: int) -> socket.socket:
    near = new_socket(client, address, socket.SOCK_DGRAM)
    near.connect((address, port))
    return near
