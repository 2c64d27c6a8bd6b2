"""The name server as programs that ask it themselves see it: UDP, TCP, both of its addresses, bad clients."""

import socket
import time
from collections.abc import Callable
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from netwarren import Cluster
from netwarren.names import server
from netwarren.topology.wellknown import NAME_SERVER, NAME_SERVER_IN_PROCESS

V4 = str(NAME_SERVER[4])
Ask = Callable[..., dns.message.Message]


def udp(where: str, name: str, type: str = "A") -> dns.message.Message:
    return dns.query.udp(dns.message.make_query(name, type), where, timeout=10)


def tcp(where: str, name: str, type: str = "A") -> dns.message.Message:
    return dns.query.tcp(dns.message.make_query(name, type), where, timeout=10)


def values(response: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in response.answer for rdata in rrset]


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_both_addresses_of_each_family_answer_from_themselves(families: str, ask: Ask) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("pod")
        with pod:  # dnspython takes no answer from another address than it asked
            for family in cluster.families:
                kind = {4: "A", 6: "AAAA"}[family]
                whole = "pod.default.svc.cluster.local"
                assert values(ask(str(NAME_SERVER[family]), whole, kind)) == [
                    str(each.ip) for each in pod.spec.interfaces if each.version == family
                ]
                short = ask(str(NAME_SERVER_IN_PROCESS[family]), "pod", kind)
                assert values(short)
                assert short.answer[0].name.to_text() == "pod."
                assert ask(str(NAME_SERVER[family]), "pod", kind).rcode() == dns.rcode.NXDOMAIN
        assert {query.asker for query in cluster.dns.queries} == {"pod"}


def test_an_answer_that_is_too_long_comes_by_tcp(cluster: Cluster) -> None:
    cluster.dns.add("many.example", "A", *(ip_address("10.9.0.0") + n for n in range(200)))
    with cluster.add_pod("pod"):
        assert udp(V4, "many.example").flags & dns.flags.TC
        assert len(values(tcp(V4, "many.example"))) == 200
        assert len(socket.gethostbyname_ex("many.example")[2]) == 200


def test_queries_in_one_connection_are_all_answered_also_in_pieces(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod")
    queries = [dns.message.make_query(f"{name}.cluster.local", "A") for name in ("root", "nobody", "node-a")]
    data = b"".join(len(wire := query.to_wire()).to_bytes(2, "big") + wire for query in queries)
    with pod, socket.create_connection((V4, 53), timeout=10) as connection:
        for byte in range(5):
            connection.sendall(data[byte : byte + 1])
        connection.sendall(data[5:])
        answers = {}
        with connection.makefile("rb") as stream:
            for _ in queries:
                answer = dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big")))
                answers[answer.id] = answer.rcode()
    assert [answers[query.id] for query in queries] == [
        dns.rcode.NOERROR,
        dns.rcode.NXDOMAIN,
        dns.rcode.NOERROR,
    ]


def test_malformed_packets_do_no_harm(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod")
    with pod, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((V4, 53))
        for data in (b"", b"x", b"\x00" * 11, bytes(500)):
            client.send(data)
        client.send(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\xc0\xff")
        answers = [client.recv(512) for _ in range(2)]  # of those that have a header
        assert answers[-1][:2] == b"\x12\x34"
        assert {answer[3] & 15 for answer in answers} == {dns.rcode.FORMERR}
        with socket.create_connection((V4, 53), timeout=10) as connection:
            connection.sendall(b"\x00\x03abc" + b"\xff\xff")
        assert values(udp(V4, "pod.default.svc.cluster.local")) == [pod.ip]


def test_a_tcp_client_that_says_nothing_is_dropped(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    pod = cluster.add_pod("pod")
    with pod, socket.create_connection((V4, 53), timeout=10) as silent:
        assert silent.recv(1) == b""


def test_the_client_that_came_first_goes_when_there_are_too_many(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    pod = cluster.add_pod("pod")
    with pod:
        clients = [socket.create_connection((V4, 53), timeout=10) for _ in range(3)]
        assert clients[0].recv(1) == b""
        for client in clients:
            client.close()
        assert values(tcp(V4, "pod.default.svc.cluster.local")) == [pod.ip]


def test_names_outside_are_asked_for_where_the_cluster_has_a_way_and_nobody_waits(cluster: Cluster) -> None:
    asked: list[str] = []

    def upstream(name: str) -> list[str] | None:
        asked.append(name)
        if name == "broken.example.com":
            raise OSError("no network")
        return ["192.0.2.1", "2001:db8::1"] if name == "www.example.com" else None

    cluster.dns.upstream = upstream
    with cluster.add_pod("pod"):
        assert values(udp(V4, "www.example.com")) == ["192.0.2.1"]
        assert values(udp(V4, "www.example.com", "AAAA")) == ["2001:db8::1"]
        assert udp(V4, "no.example.com").rcode() == dns.rcode.NXDOMAIN
        assert udp(V4, "broken.example.com").rcode() == dns.rcode.SERVFAIL
        assert udp(V4, "nobody.default.svc.cluster.local").rcode() == dns.rcode.NXDOMAIN
        assert socket.gethostbyname("www.example.com") == "192.0.2.1"
    assert "nobody.default.svc.cluster.local" not in asked


def test_a_question_is_answered_in_little_time(cluster: Cluster) -> None:
    with cluster.add_pod("pod"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((V4, 53))
        query = dns.message.make_query("pod.default.svc.cluster.local", "A").to_wire()
        best = 1.0
        for _ in range(50):
            start = time.perf_counter()
            client.send(query)
            client.recv(512)
            best = min(best, time.perf_counter() - start)
        assert best < 0.003
