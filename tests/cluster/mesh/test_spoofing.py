"""Clients of HBONE that say they are others, or want to be led elsewhere: what they say of themselves proves nothing."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from netwarren import Cluster
from netwarren.mesh.model import GatewayAddress, Match, NetworkAddress, Policy, StringMatch
from netwarren.mesh.telemetry.expect import expect_record_sync
from netwarren.topology.addresses import parse_address
from tests.cluster.mesh_peers.conftest import Mesh, echo, identity

COMPLETE, FAILED = "connection complete", "connection failed"


@pytest.fixture
def mesh(cluster: Cluster) -> Iterator[Mesh]:
    """``server`` is carried and echoes; ``friend`` is somebody else, and ``stranger`` is who spoofs."""
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a", labels={"app": "web"})
    cluster.add_pod("friend", "node-a")
    stranger = cluster.add_pod("stranger", "node-b", captured=False)
    server.start(echo)
    made = Mesh(cluster, proxy, server, stranger)
    yield made
    assert proxy.ready


def allow(mesh: Mesh, **match: object) -> None:
    rules = (((Match(**match),),),)  # type: ignore[arg-type]
    mesh.cluster.mesh.add_policy(Policy("some", "default", "Namespace", "Allow", rules=rules))


def test_who_says_whom_it_forwards_for_is_judged_by_its_own_address(mesh: Mesh) -> None:
    friend = mesh.cluster.pod("friend")
    allow(mesh, source_ips=(ip_network(friend.ip),))
    with mesh.peer() as peer:
        forwarded = ("forwarded", f'for="{friend.ip}:4711"')
        assert peer.status(f"{mesh.server.ip}:8080", forwarded) == "401"
        assert peer.status(f"{mesh.server.ip}:8080", ("x-forwarded-for", friend.ip), forwarded) == "401"
    record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    assert str(record.fields["src.addr"]).startswith(f"{mesh.stranger.ip}:")


@pytest.mark.parametrize("network", [None, "elsewhere"])
def test_who_says_what_workload_it_is_is_judged_by_its_certificate(mesh: Mesh, network: str | None) -> None:
    allow(mesh, principals=(StringMatch("Exact", str(identity("friend")).removeprefix("spiffe://")),))
    said = [
        ("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=friend"),
        *([("x-forwarded-network", network)] if network else []),
    ]
    with mesh.peer() as peer:
        assert peer.status(f"{mesh.server.ip}:8080", *said) == "401"
    record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.identity"] == str(identity("stranger"))


def test_what_one_says_of_itself_is_not_believed_where_its_address_is_known(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        said = ("baggage", "k8s.namespace.name=default,k8s.pod.name=friend,service.name=friend")
        stream = peer.ask(f"{mesh.server.ip}:8080", said, end=True)
        assert peer.answer(stream)[":status"] == "200"
        record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.workload"] == "stranger"


def test_headers_that_are_there_twice_are_judged_like_one(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        twice = [("forwarded", "for=1.2.3.4:1"), ("forwarded", "for=5.6.7.8:1;host=web")]
        assert peer.status(f"{mesh.server.ip}:8080", *twice, ("baggage", "a=b"), ("baggage", "a=c")) == "200"


@pytest.mark.parametrize(
    "authority",
    [
        "{friend}:8080",
        "{vip}:80",
        "[fd00::1]:8080",
        "169.254.169.254:80",
        "0.0.0.0:8080",
        "[::]:8080",
        "127.0.0.1:8080",
    ],
)
def test_an_address_that_is_not_the_pods_is_a_mismatch(mesh: Mesh, authority: str) -> None:
    service = mesh.cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    asked = authority.format(friend=mesh.cluster.pod("friend").ip, vip=service.ip)
    with mesh.peer() as peer:
        assert peer.status(asked) == "400"
    expect_record_sync(
        mesh.proxy.log, FAILED, where=lambda record: "ip mismatch" in str(record.fields["error"])
    )


@pytest.mark.parametrize("form", ["[::ffff:{}]:8080", "{}:8080"])
def test_the_pods_own_address_may_be_written_as_one_of_ipv6(mesh: Mesh, form: str) -> None:
    with mesh.peer() as peer:
        assert peer.echoed(form.format(mesh.server.ip), b"hello") == b"hello"


def test_who_has_another_waypoint_is_not_reached_through_this_pod(mesh: Mesh) -> None:
    friend = mesh.cluster.pod("friend")
    waypoint = GatewayAddress(NetworkAddress("", parse_address(friend.ip)))
    other = mesh.cluster.add_pod("other", "node-a", workload={"waypoint": waypoint})
    with mesh.peer() as peer:
        assert peer.status(f"{other.ip}:8080") == "400"


@pytest.mark.parametrize(
    "authority",
    [
        "server@{ip}:8080",
        "{ip}:8080/path",
        "{ip}:8080?x",
        "{ip}:8080#x",
        "{ip}:+8080",
        "{ip}:0x1f90",
        "{ip}:\uff18\uff10\uff18\uff10",
        " {ip}:8080",
        "{ip} :8080",
        "{ip}:8080\t",
        "{ip}%eth0:8080",
        "https://{ip}:8080",
        "{ip}:8080,{ip}:8081",
        "0{ip}:8080",
        "[{ip}]:8080",
        "%31%30.0.1.3:8080",
        "a" * 300 + ":80",
        ":8080",
        ".:80",
        "-:80",
    ],
)
def test_an_authority_that_others_may_read_in_another_way_leads_nowhere(mesh: Mesh, authority: str) -> None:
    with mesh.peer() as peer:
        try:
            assert peer.status(authority.format(ip=mesh.server.ip)) in ("400", "503")
        except ConnectionError:  # one that HTTP/2 has no room for
            pass
    mesh.assert_it_lives()
