"""Records and faults that a test adds, the log of questions, and the report."""

import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from netwarren import AddressError, ClosedError, Cluster, ConfigurationError, UnknownName
from netwarren.names import Query


def test_added_records_resolve_until_they_are_removed(cluster: Cluster) -> None:
    client = cluster.add_pod("client")
    cluster.dns.add("db.example.com", "A", "10.9.0.1", ip_address("10.9.0.2"), ttl=60)
    cluster.dns.add("Alias.example.com.", "cname", "client.default.svc.cluster.local")
    with client:
        assert sorted(socket.gethostbyname_ex("db.example.com")[2]) == ["10.9.0.1", "10.9.0.2"]
        assert socket.gethostbyname("alias.example.com") == client.ip
        cluster.dns.remove("DB.example.com", "a")
        cluster.dns.remove("db.example.com")  # again is fine
        cluster.dns.remove("alias.example.com")
        for name in ("db.example.com", "alias.example.com"):
            with pytest.raises(socket.gaierror):
                socket.gethostbyname(name)


def test_what_cannot_be_added_is_refused(cluster: Cluster) -> None:
    dns: Any = cluster.dns
    cluster.add_pod("there")
    refused: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: dns.add("x", "A", "10.0.0"), AddressError, "'10.0.0' is not"),
        (lambda: dns.add("x", "A"), ConfigurationError, "at least one"),
        (lambda: dns.add("x", "WEB", "1"), ConfigurationError, "not a type"),
        (lambda: dns.add("x", "A", "10.0.0.1", ttl=-1), ConfigurationError, "ttl=-1"),
        (lambda: dns.add("a..b", "A", "10.0.0.1"), ConfigurationError, "is not a name"),
        (lambda: dns.slow(-1), ConfigurationError, "-1 seconds"),
        (lambda: dns.fail("BROKEN"), ConfigurationError, "SERVFAIL"),
        (lambda: dns.wrong("10.0.0"), AddressError, "'10.0.0' is not an address"),
        (lambda: dns.wrong(), ConfigurationError, "no address is given"),
        (lambda: dns.add(5, "A", "10.0.0.1"), ConfigurationError, "the name of a record 5 is no text"),
        (lambda: dns.add("x", 5, "10.0.0.1"), ConfigurationError, "the type of a record 5 is no text"),
        (lambda: dns.add("x", "A", "10.0.0.1", ttl=1.5), ConfigurationError, r"ttl=1\.5"),
        (lambda: dns.remove(5), ConfigurationError, "the name of a record 5 is no text"),
        (lambda: dns.fail(3), ConfigurationError, "rcode 3 is no text"),
        (lambda: dns.slow("x"), ConfigurationError, "cannot be 'x' seconds late"),
        (lambda: dns.slow(1, name=5), ConfigurationError, "the pattern of names 5 is no text"),
        (
            lambda: dns.slow(1, pod="nobody"),
            UnknownName,
            "no pod or node is called 'nobody'; there are: .*there",
        ),
        (lambda: dns.silent(pod=3), UnknownName, "no pod or node is called 3"),
        (lambda: dns.fail(pod="tere"), UnknownName, "'tere'"),
        (lambda: dns.wrong("10.0.0.1", pod="tere"), UnknownName, "'tere'"),
    ]
    for call, error, says in refused:
        with pytest.raises(error, match=says):
            call()
    assert repr(dns) == "<ClusterDNS: 0 records added, 0 faults, 0 queries>"


def test_a_fault_is_for_whoever_is_there_by_name_or_handle(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod", "node-a")
    for whose in (
        pod,
        "pod",
        pod.node,
        "node-a",
        "node-b",
        cluster.root,
        "root",
        None,
    ):  # node-b is not built yet
        with cluster.dns.silent(pod=whose):
            pass
    pod.remove()
    with pytest.raises(ClosedError, match="was removed"):
        cluster.dns.silent(pod=pod)
    with Cluster() as other, pytest.raises(ClosedError, match="use the cluster it was made by"):
        cluster.dns.silent(pod=other.node("node-a"))


def test_a_text_is_one_string_with_its_spaces(cluster: Cluster) -> None:
    from dns import message, query

    cluster.dns.add("note.example", "TXT", 'say "hello" now')
    with cluster.add_pod("pod"):
        answer = query.udp(message.make_query("note.example", "TXT"), "169.254.20.10", timeout=10).answer
    assert answer[0][0].strings == (b'say "hello" now',)


def test_wrong_failing_and_empty_answers_end_with_their_block(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    with client:
        with cluster.dns.wrong("10.9.9.9", name="server"):
            assert socket.gethostbyname("server") == "10.9.9.9"
            assert socket.gethostbyname("client") == client.ip
        with cluster.dns.fail("NXDOMAIN", name="serv*"), pytest.raises(socket.gaierror) as refused:
            socket.gethostbyname("server")
        assert refused.value.errno == socket.EAI_NONAME
        with cluster.dns.fail(name="server"), pytest.raises(socket.gaierror) as refused:
            socket.gethostbyname("server")
        assert refused.value.errno == socket.EAI_AGAIN
        assert socket.gethostbyname("server") == server.ip


def test_a_fault_of_one_pod_leaves_the_others_alone(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    with cluster.dns.wrong("10.9.9.9", pod=client):
        with client:
            assert socket.gethostbyname("server") == "10.9.9.9"
        with server:
            assert socket.gethostbyname("server") == server.ip


def test_a_slow_answer_is_late_and_holds_up_nobody_else(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    late: list[float] = []

    def ask() -> None:
        start = time.monotonic()
        socket.gethostbyname("server")
        late.append(time.monotonic() - start)

    with server:
        socket.gethostbyname("server")
    with cluster.dns.slow(1.5, name="server", pod="client"):
        with client:
            thread = threading.Thread(target=ask)
            thread.start()
        with server:
            start = time.monotonic()
            assert socket.gethostbyname("server") == server.ip
            assert time.monotonic() - start < 1
        thread.join()
    assert 1.5 <= late[0] < 5


def test_a_silent_server_does_not_answer(cluster: Cluster) -> None:
    from dns import exception, message, query

    question = message.make_query("client.default.svc.cluster.local", "A")
    with cluster.add_pod("client"):
        query.udp(question, "169.254.20.10", timeout=10)
        with cluster.dns.silent(name="client"), pytest.raises(exception.Timeout):
            query.udp(question, "169.254.20.10", timeout=0.3)
        assert query.udp(question, "169.254.20.10", timeout=10).answer
    assert cluster.dns.queries[1].rcode == ""


def test_what_was_asked_is_in_the_log_and_in_the_report(cluster: Cluster) -> None:
    assert "questions for names" not in cluster.report()
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    with client:
        socket.gethostbyname("server")
        with pytest.raises(socket.gaierror):
            socket.gethostbyname("srever")
    first, last = cluster.dns.queries[0], cluster.dns.queries[-1]
    assert first == Query("client", "server", "A", "udp", "NOERROR", (server.ip,))
    assert last == Query("client", "srever", "A", "udp", "NXDOMAIN", ())
    report = cluster.report()
    assert f"  client asks A server: {server.ip}\n" in report
    assert report.endswith("  client asks A srever: NXDOMAIN")


def test_what_upstream_raises_is_in_the_log_and_in_the_report(cluster: Cluster) -> None:
    def broken(name: str) -> list[str]:
        if name == "text.example":
            return ["no address"]
        raise ValueError(f"nothing is known of {name}")

    cluster.dns.upstream = broken
    with cluster.add_pod("client"):
        for name in ("db.example", "text.example"):
            with pytest.raises(socket.gaierror):
                socket.gethostbyname(name)
    mine = {query.name: query for query in cluster.dns.queries}
    assert mine["db.example"].rcode == "SERVFAIL"
    assert repr(mine["db.example"].error) == "ValueError('nothing is known of db.example')"
    assert isinstance(mine["text.example"].error, AddressError)
    told = "client asks A db.example: SERVFAIL, because upstream raised ValueError('nothing is known of db.example')"
    assert told in cluster.report()


def test_the_log_is_bounded(cluster: Cluster) -> None:
    with cluster.add_pod("client"):
        for _ in range(250):
            socket.gethostbyname("client")
    assert len(cluster.dns.queries) == 200
    assert len(cluster.report().split("the last 20 questions for names:")[1].splitlines()) == 21
