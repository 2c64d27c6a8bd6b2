"""``pod.socket``: a socket that lives in the pod and works from anywhere."""

import asyncio
import socket
import threading

import pytest

from netwarren import ClosedError, Cluster, Pod
from tests.runtime.conftest import where

DUAL = pytest.mark.cluster(families=("ipv4", "ipv6"))


def test_tcp_is_the_default(pod: Pod) -> None:
    with pod.socket() as made:
        assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_STREAM)


def test_the_thread_stays_where_it_is(pod: Pod) -> None:
    before = where()
    pod.socket().close()
    assert where() == before


def test_tcp_between_pods(pod: Pod, other: Pod) -> None:
    with pod.socket() as server, other.socket() as client:
        server.bind((pod.ip, 80))
        server.listen()
        client.settimeout(10)
        client.connect((pod.ip, 80))
        accepted, (peer, _) = server.accept()
        with accepted:
            assert peer == other.ip


def test_udp_between_pods(pod: Pod, other: Pod) -> None:
    with pod.socket(type=socket.SOCK_DGRAM) as server, other.socket(type=socket.SOCK_DGRAM) as client:
        server.settimeout(10)
        server.bind(("", 53))
        client.sendto(b"ask", (pod.ip, 53))
        data, (peer, port) = server.recvfrom(10)
        assert (data, peer, port) == (b"ask", other.ip, client.getsockname()[1])


@DUAL
def test_ipv6_between_pods(pod: Pod, other: Pod) -> None:
    with pod.socket(socket.AF_INET6) as server, other.socket(socket.AF_INET6) as client:
        server.bind(("::", 80))
        server.listen()
        client.settimeout(10)
        client.connect((pod.ips[1], 80))
        accepted, address = server.accept()
        with accepted:
            assert address[0] == other.ips[1]


def test_accepted_connections_live_in_the_pod_too(pod: Pod, other: Pod) -> None:
    with pod.socket() as server, other.socket() as client:
        server.bind(("", 80))
        server.listen()
        client.connect((pod.ip, 80))
        accepted, _ = server.accept()
        with accepted:
            assert accepted.getsockname() == (pod.ip, 80)


def test_other_threads_may_use_it(pod: Pod) -> None:
    with pod.socket() as server:
        server.bind((pod.ip, 80))
        server.listen()
        peers = []

        def connect() -> None:
            with pod.socket() as client:
                client.connect((pod.ip, 80))
                peers.append(client.getpeername())

        thread = threading.Thread(target=connect)
        thread.start()
        server.accept()[0].close()
        thread.join()
        assert peers == [(pod.ip, 80)]


async def test_asyncio_serves_many_pods_from_one_loop(cluster: Cluster) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("sockname")[0].encode())
        writer.close()

    pods = [cluster.add_pod(f"p{number}") for number in range(4)]
    servers = []
    for pod in pods:
        listening = pod.socket()
        listening.bind((pod.ip, 80))
        servers.append(await asyncio.start_server(greet, sock=listening))
    loop = asyncio.get_running_loop()
    for pod in pods:
        client = pods[0].socket()
        client.setblocking(False)
        await loop.sock_connect(client, (pod.ip, 80))
        reader, writer = await asyncio.open_connection(sock=client)
        assert await reader.read() == pod.ip.encode()
        writer.close()
        await writer.wait_closed()
    for server in servers:
        server.close()
        await server.wait_closed()


def test_a_raw_socket_can_be_made(pod: Pod) -> None:
    pod.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def test_what_the_kernel_does_not_know_is_an_oserror(pod: Pod) -> None:
    with pytest.raises(OSError, match="not supported"):
        pod.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP)
    assert where() != pod.inode


def test_inside_a_block_of_another_pod_it_is_still_this_pods(pod: Pod, other: Pod) -> None:
    with other, pod.socket() as made:
        made.bind((pod.ip, 0))
        assert where() == other.inode


def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError):
        pod.socket()
