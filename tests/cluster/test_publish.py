"""A port of a pod on the host: reached by programs of the host, closed with the pod and the cluster."""

import contextlib
import http.server
import os
import socket
import threading
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import AddressError, AddressTaken, ClosedError, ConfigurationError
from netwarren.runtime.machine import Machine
from tests.cluster.outside import connect, echo, has_ipv6, listen, on_host, run_on_host

pytestmark = pytest.mark.usefixtures("_netwarren_sandbox")

ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def pages(address: str, ready: Callable[[int], None]) -> None:
    class Server(http.server.HTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)  # without looking up the machine's name
            self.server_name, self.server_port = address, self.socket.getsockname()[1]

    with Server((address, 0), Hello) as server:
        ready(server.server_port)
        server.serve_forever()


def echoes(ready: Callable[[int], None]) -> None:
    """Serve `echo` in a pod, one connection at a time."""
    with socket.create_server(("", 0)) as listening:
        ready(listening.getsockname()[1])
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(ConnectionError):
                echo(connection)


def asked(url: str) -> str:
    return run_on_host(ASK, url).strip()


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    return cluster.add_pod("a")


# --- reached ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
def test_a_program_on_the_host_reaches_a_server_in_a_pod(pod: Pod, address: str) -> None:
    port = pod.start(pages, address).value
    published = pod.publish(port)
    assert published.url == f"http://127.0.0.1:{published.port}"
    assert asked(published.url) == "hello"


def test_a_server_that_listens_on_the_pods_address_alone_is_reached(pod: Pod) -> None:
    assert asked(pod.publish(pod.start(pages, pod.ip).value).url) == "hello"


@pytest.mark.cluster(families="ipv6")
@pytest.mark.parametrize("own", [False, True])
def test_a_server_in_an_ipv6_pod_is_reached(pod: Pod, own: bool) -> None:
    assert asked(pod.publish(pod.start(pages, pod.ip if own else "::1").value).url) == "hello"


@pytest.mark.parametrize("kind", ["node", "root"])
def test_ports_of_nodes_and_of_the_root_are_published_too(cluster: Cluster, kind: str) -> None:
    machine: Machine = cluster.node("node-a") if kind == "node" else cluster.root
    assert asked(machine.publish(machine.start(pages, "").value).url) == "hello"


def test_it_may_be_at_the_hosts_ipv6_loopback(pod: Pod) -> None:
    if not has_ipv6():
        pytest.skip("the host has no ::1")
    published = pod.publish(pod.start(pages, "").value, address="::1")
    assert published.url == f"http://[::1]:{published.port}"
    assert asked(published.url) == "hello"


def test_the_port_on_the_host_may_be_chosen(pod: Pod) -> None:
    with on_host(lambda: listen("127.0.0.1")) as listening:
        port = listening.getsockname()[1]
    assert pod.publish(8080, port).port == port


def test_it_is_published_while_this_thread_is_in_another_pod(cluster: Cluster, pod: Pod) -> None:
    port = pod.start(pages, "").value
    with cluster.add_pod("b", node="node-b"):
        published = pod.publish(port)
    assert asked(published.url) == "hello"


def test_bytes_go_both_ways_and_ends_one_by_one(pod: Pod) -> None:
    published = pod.publish(pod.start(echoes).value)
    data = os.urandom(1 << 20)
    with connect("127.0.0.1", published.port) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        sender.join()
    assert answer == data + b"end"


# --- not reached --------------------------------------------------------------------------------------


def test_nobody_listening_in_the_pod_is_a_reset(pod: Pod) -> None:
    published = pod.publish(8080)
    # It may come as early as in connecting.
    with pytest.raises(ConnectionResetError), connect("127.0.0.1", published.port) as connection:
        connection.recv(1)
    assert published.refused == 1
    assert published.connections == 0


def test_a_port_of_the_host_that_is_taken_is_refused(pod: Pod) -> None:
    with on_host(lambda: listen("127.0.0.1")) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressTaken, match=rf"127\.0\.0\.1:{port} is taken by another program"):
            pod.publish(8080, port)
    assert pod.published == []


def test_an_address_the_host_has_not_is_refused(pod: Pod) -> None:
    with pytest.raises(AddressError, match=r"198\.51\.100\.1 is not an address of the host"):
        pod.publish(8080, address="198.51.100.1")


@pytest.mark.parametrize("address", ["", "localhost", "*"])
def test_an_address_that_is_none_is_refused(pod: Pod, address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address of the host"):
        pod.publish(8080, address=address)


@pytest.mark.parametrize(("port", "host_port"), [(0, 0), (65536, 0), (80, -1), (80, 65536), ("80", 0)])
def test_a_port_that_is_none_is_refused(pod: Pod, port: int, host_port: int) -> None:
    with pytest.raises(ConfigurationError, match="is no port"):
        pod.publish(port, host_port)


def test_a_pod_that_is_gone_publishes_nothing(pod: Pod) -> None:
    pod.remove()
    with pytest.raises(ClosedError):
        pod.publish(8080)


# --- the end ------------------------------------------------------------------------------------------


def assert_closed(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", port)


def test_closing_gives_the_port_back_and_resets_connections(pod: Pod) -> None:
    published = pod.publish(pod.start(echoes).value)
    with connect("127.0.0.1", published.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        published.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert published.closed
    assert_closed(published.port)
    published.close()
    assert pod.publish(80, published.port).port == published.port


def test_the_end_of_a_with_block_closes_it(pod: Pod) -> None:
    with pod.publish(8080) as published:
        assert not published.closed
    assert_closed(published.port)


@pytest.mark.parametrize("end", ["pod", "node", "cluster"])
def test_it_ends_with_its_pod(cluster: Cluster, pod: Pod, end: str) -> None:
    published = pod.publish(pod.start(echoes).value)
    with connect("127.0.0.1", published.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        {"pod": pod.remove, "node": pod.node.remove, "cluster": cluster.close}[end]()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert published.closed
    assert_closed(published.port)


def test_what_was_published_says_so(cluster: Cluster, pod: Pod) -> None:
    published = pod.publish(pod.start(echoes).value)
    at = f"127.0.0.1:{published.port}"
    assert repr(published) == f"<Published pod 'a' port {published.pod_port} at {at}>"
    assert pod.published == [published]
    connect("127.0.0.1", published.port).close()
    with connect("127.0.0.1", published.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    assert f"published at {at} -> {published.pod_port}: 2 connections, 0 refused" in cluster.report()
    published.close()
    assert repr(published).endswith(f"at {at}, closed>")


def test_many_connect_at_once(pod: Pod) -> None:
    def serve(ready: Callable[[int], None]) -> None:
        made = []
        with socket.create_server(("", 0), backlog=256) as listening:
            ready(listening.getsockname()[1])
            for _ in range(200):
                connection, _ = listening.accept()
                connection.sendall(b"hello")
                made.append(connection)
        for connection in made:
            connection.close()

    background = pod.start(serve)
    published = pod.publish(background.value)
    made = on_host(lambda: [socket.create_connection(("127.0.0.1", published.port), 20) for _ in range(200)])
    for connection in made:
        with connection:
            assert connection.recv(5) == b"hello"
    background.result(20)
    assert published.connections == 200
