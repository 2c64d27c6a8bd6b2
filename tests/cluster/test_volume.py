"""More than a packet: whole streams both ways, and packets as large as they get."""

import errno
import os
import socket
import threading

import pytest

from netwarren import Cluster, Pod
from tests.cluster.readback import inside
from tests.cluster.traffic import Connection, connect, datagram, new_socket

FAMILIES = pytest.mark.parametrize("families", ["ipv4", "ipv6"])
PLACES = pytest.mark.parametrize("node", ["node-a", "node-b"])

_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2  # linux/in.h


def pods(cluster: Cluster, node: str) -> tuple[Pod, Pod]:
    return cluster.add_pod("client", "node-a"), cluster.add_pod("server", node)


def received(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += sock.recv(1 << 16)
    return bytes(data)


def exchange(made: Connection, data: bytes) -> tuple[bytes, bytes]:
    """Send ``data`` both ways at the same time; what arrived at the far and at the near end."""
    senders = [threading.Thread(target=end.sendall, args=(data,)) for end in (made.near, made.far)]
    for sender in senders:
        sender.start()
    arrived = []
    try:
        # One after the other: what is not read yet waits in the sender's thread.
        for end in (made.far, made.near):
            arrived.append(received(end, len(data)))
    finally:
        for sender in senders:
            sender.join()
    return arrived[0], arrived[1]


@FAMILIES
@PLACES
def test_a_megabyte_goes_both_ways_at_once_whole(families: str, node: str) -> None:
    with Cluster(families=families) as cluster:
        client, server = pods(cluster, node)
        data = os.urandom(1 << 20)
        with connect(client, server, server.ip) as made:
            assert exchange(made, data) == (data, data)


@FAMILIES
@PLACES
def test_a_datagram_that_takes_many_packets_arrives_whole(families: str, node: str) -> None:
    with Cluster(families=families) as cluster:
        client, server = pods(cluster, node)
        data = os.urandom(60_000)
        assert datagram(client, server, server.ip, data).data == data


def test_every_link_carries_packets_of_1500_bytes(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    for machine in (pod, pod.node, cluster.root):
        assert {link.mtu for link in inside(machine).links if link.name != "lo"} == {1500}


@PLACES
def test_a_packet_as_large_as_the_mtu_goes_through_unfragmented_and_one_byte_more_does_not(node: str) -> None:
    with Cluster() as cluster:
        client, server = pods(cluster, node)
        with (
            new_socket(client, client.ip, socket.SOCK_DGRAM) as near,
            new_socket(server, server.ip, socket.SOCK_DGRAM) as far,
        ):
            far.bind((server.ip, 5353))
            near.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            largest = 1500 - 20 - 8
            near.sendto(bytes(largest), (server.ip, 5353))
            assert len(far.recv(65536)) == largest
            with pytest.raises(OSError) as refused:
                near.sendto(bytes(largest + 1), (server.ip, 5353))
            assert refused.value.errno == errno.EMSGSIZE


def test_a_hundred_connections_at_once_lose_no_packet(cluster: Cluster) -> None:
    client, server = pods(cluster, "node-b")
    made = [connect(client, server, server.ip, port) for port in range(9000, 9100)]
    try:
        assert sum(each.sent_again for each in made) == 0
    finally:
        for each in made:
            each.near.close()
            each.far.close()
