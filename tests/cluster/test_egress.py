"""What pods reach of the host: the ports that were named, by thread, task and program, and nothing else."""

import asyncio
import errno
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster import roots
from netwarren.errors import ConfigurationError
from netwarren.kernel import nftables
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink
from tests.cluster.outside import datagram_server, echo, free_port, has_ipv6, server
from tests.cluster.traffic import connect_refusal, new_socket, refusal

pytestmark = pytest.mark.usefixtures("_netwarren_sandbox")

ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).recv(5).decode())"


def hello(connection: socket.socket) -> None:
    connection.sendall(b"hello")


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.fixture
def open_port() -> Iterator[int]:
    """A port of the host, whose server says hello."""
    with server(hello) as port:
        yield port


# --- reached ------------------------------------------------------------------------------------------


def test_a_thread_in_a_pod_reaches_the_hosts_port(open_port: int) -> None:
    with (
        Cluster(egress=f"localhost:{open_port}") as cluster,
        cluster.add_pod("a"),
        socket.create_connection((cluster.host, open_port), 20) as connection,
    ):
        assert all_of(connection) == b"hello"
        assert connection.getpeername() == (cluster.host, open_port)


async def test_a_task_in_a_pod_reaches_the_hosts_port(open_port: int) -> None:
    with Cluster(egress=f"localhost:{open_port}") as cluster:
        async with cluster.add_pod("a"):
            reader, writer = await asyncio.open_connection(cluster.host, open_port)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


def test_a_program_in_a_pod_reaches_the_hosts_port(open_port: int) -> None:
    with Cluster(egress=f"127.0.0.1:{open_port}") as cluster:
        pod = cluster.add_pod("a", node="node-b")
        assert pod.check_output([sys.executable, "-c", ASK, cluster.host, str(open_port)]) == "hello\n"


def test_nodes_and_the_root_reach_the_hosts_port_too(open_port: int) -> None:
    with Cluster(egress=f"localhost:{open_port}") as cluster:
        for machine in (cluster.node("node-a"), cluster.root):
            with new_socket(machine, cluster.host) as connection:
                connection.connect((cluster.host, open_port))
                assert all_of(connection) == b"hello"


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_every_family_of_the_cluster_reaches_it(families: str, open_port: int) -> None:
    with Cluster(families=families, egress=f"localhost:{open_port}") as cluster:
        pod = cluster.add_pod("a")
        for interface in cluster.bridge_addresses:
            with new_socket(pod, str(interface.ip)) as connection:
                connection.connect((str(interface.ip), open_port))
                assert all_of(connection) == b"hello"


def test_localhost_is_ipv6_where_nobody_listens_in_ipv4() -> None:
    if not has_ipv6():
        pytest.skip("the host has no ::1")
    with (
        server(hello, address="::1") as port,
        Cluster(egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        assert all_of(connection) == b"hello"


def test_a_loopback_address_that_is_not_the_usual_one_may_be_named() -> None:
    with (
        server(hello, address="127.1.2.3") as port,
        Cluster(egress=f"127.1.2.3:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        assert all_of(connection) == b"hello"


# --- not reached --------------------------------------------------------------------------------------


def test_without_egress_nothing_is_laid_and_nothing_is_reached(open_port: int) -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("a")
        assert connect_refusal(pod, cluster.host, open_port) == "ECONNREFUSED"
        assert connect_refusal(pod, "198.51.100.1", open_port) == "ENETUNREACH"
        with cluster.root._stepped(), Netlink("root", NETLINK_NETFILTER) as netlink:
            assert nftables.tables(netlink) == []


def test_what_was_not_named_is_refused_as_ever(open_port: int) -> None:
    with Cluster(families="dual", egress=f"localhost:{open_port}") as cluster:
        pod = cluster.add_pod("a")
        for address in ("172.18.0.1", "fd00:172:18::1"):
            other = free_port()
            assert connect_refusal(pod, address, other) == "ECONNREFUSED"
            assert refusal(pod, address, other) == "ECONNREFUSED"
        assert refusal(pod, "198.51.100.1", open_port) == "ENETUNREACH"
        assert refusal(pod, "2001:db8::1", open_port) == "ENETUNREACH"


def test_the_sockets_that_take_connections_are_not_dialled_themselves(open_port: int) -> None:
    with Cluster(egress=f"localhost:{open_port}") as cluster:
        assert cluster._outlet is not None
        (taking,) = cluster._outlet._taking.values()
        assert connect_refusal(cluster.add_pod("a"), cluster.host, taking) == "ECONNREFUSED"


def test_a_port_where_nobody_listens_is_reset() -> None:
    port = free_port()
    with Cluster(egress=f"localhost:{port}") as cluster:
        connection = new_socket(cluster.add_pod("a"), cluster.host)
        with connection, pytest.raises(ConnectionResetError):  # by either, as it comes in time
            connection.connect((cluster.host, port))
            connection.recv(1)
        assert f"localhost:{port}: 0 connections, 1 refused" in cluster.report()


def test_traffic_between_pods_is_not_caught_with_everything_open() -> None:
    with Cluster(egress="*") as cluster:
        one, other = cluster.add_pod("a"), cluster.add_pod("b", node="node-b")
        with new_socket(one, one.ip) as listening, new_socket(other, one.ip) as connection:
            listening.bind((one.ip, 80))
            listening.listen()
            connection.connect((one.ip, 80))
            listening.accept()[0].close()
        assert connect_refusal(one, "10.0.3.3") == "ENETUNREACH"  # no node's: the cluster's own, all the same
        assert "*: 0 connections, 0 refused" in cluster.report()


# --- bytes --------------------------------------------------------------------------------------------


def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on() -> None:
    with (
        server(echo) as port,
        Cluster(egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        connection.sendall(b"to the ")
        connection.shutdown(socket.SHUT_WR)
        assert all_of(connection) == b"to the end"


def test_much_goes_through_unchanged_both_ways() -> None:
    data = os.urandom(1 << 20) * 64

    def swap(connection: socket.socket) -> None:
        digest = hashlib.sha256()
        while chunk := connection.recv(1 << 16):
            digest.update(chunk)
        connection.sendall(digest.digest() + data)

    with (
        server(swap) as port,
        Cluster(egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert all_of(connection) == hashlib.sha256(data).digest() + data


def test_a_reader_that_waits_makes_the_writer_wait_and_nothing_is_lost() -> None:
    go_on = threading.Event()
    received: list[int] = []

    def slow(connection: socket.socket) -> None:
        go_on.wait(60)
        received.append(len(all_of(connection)))

    sent, chunk = 0, bytes(1 << 20)
    with (
        server(slow) as port,
        Cluster(egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            while sent < 1 << 30:
                sent += connection.send(chunk)
        assert sent < 100 << 20  # four socket buffers, and one chunk of ours
        go_on.set()
        connection.shutdown(socket.SHUT_WR)
        assert all_of(connection) == b""
    assert received == [sent]


def test_a_reset_on_the_host_is_a_reset_in_the_pod() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with (
        server(reset) as port,
        Cluster(egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host) as connection,
    ):
        connection.connect((cluster.host, port))
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_hundreds_of_connections_are_open_at_once() -> None:
    with server(echo) as port, Cluster(egress=f"localhost:{port}") as cluster:
        pod = cluster.add_pod("a")
        made = [new_socket(pod, cluster.host) for _ in range(300)]
        try:
            for connection in made:
                connection.connect((cluster.host, port))
            for number, connection in enumerate(made):
                connection.sendall(b"%5d" % number)
            for number, connection in enumerate(made):
                assert connection.recv(5) == b"%5d" % number
        finally:
            for connection in made:
                connection.close()


# --- datagrams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
@pytest.mark.parametrize("size", [1, 1400, 20_000])
def test_datagrams_go_there_and_back_whole(families: str, size: int) -> None:
    data = os.urandom(size)
    with (
        datagram_server() as port,
        Cluster(families=families, egress=f"localhost:{port}") as cluster,
        new_socket(cluster.add_pod("a"), cluster.host, socket.SOCK_DGRAM) as client,
    ):
        for _ in range(3):
            client.sendto(data, (cluster.host, port))
            answer, (address, answering, *_) = client.recvfrom(65535)
            assert (answer, address, answering) == (data[::-1], cluster.host, port)


def test_each_client_gets_its_own_answers() -> None:
    with datagram_server() as port, Cluster(egress=f"localhost:{port}") as cluster:
        clients = [
            new_socket(cluster.add_pod(name), cluster.host, socket.SOCK_DGRAM) for name in ("a", "b", "c")
        ]
        for number, client in enumerate(clients):
            client.connect((cluster.host, port))
            client.send(b"ab%d" % number)
        for number, client in enumerate(clients):
            assert client.recv(10) == b"%dba" % number
            client.close()
        assert cluster._outlet is not None
        assert cluster._outlet._flows is not None
        assert len(cluster._outlet._flows) == 3


# --- the end ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_kept")
def test_connections_end_with_the_cluster() -> None:
    ended: list[bytes | str] = []

    def wait(connection: socket.socket) -> None:
        connection.sendall(b"x")
        try:
            ended.append(connection.recv(1))
        except OSError as error:
            ended.append(errno.errorcode[error.errno or 0])

    with server(wait) as port:
        cluster = Cluster(egress=f"localhost:{port}")
        with new_socket(cluster.add_pod("a"), cluster.host) as connection:
            connection.connect((cluster.host, port))
            assert connection.recv(1) == b"x"
            before = len(os.listdir("/proc/self/fd"))
            cluster.close()
            assert len(os.listdir("/proc/self/fd")) < before - 3
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    assert ended == ["ECONNRESET"]


def test_a_root_with_ways_out_is_no_other_clusters() -> None:
    with Cluster(egress="localhost:1") as first:
        pass
    assert first.root.inode not in [root.namespace.inode for root in roots.waiting()]


def test_an_egress_that_means_nothing_makes_no_cluster() -> None:
    with pytest.raises(ConfigurationError, match="names no port"):
        Cluster(egress="localhost")
    with pytest.raises(ConfigurationError, match="the cluster's own"):
        Cluster(egress="10.0.0.0/16")


def test_the_report_tells_what_is_open_and_how_often_it_was_used(open_port: int) -> None:
    with Cluster(egress=[f"localhost:{open_port}", "198.51.100.0/24"]) as cluster:
        pod: Pod = cluster.add_pod("a")
        with new_socket(pod, cluster.host) as connection:
            connection.connect((cluster.host, open_port))
            all_of(connection)
        assert (
            f"egress, the host's ports at 172.18.0.1:\n  localhost:{open_port}: 1 connections, 0 refused\n"
            "  198.51.100.0/24: 0 connections, 0 refused\n"
        ) in cluster.report()
