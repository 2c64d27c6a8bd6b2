"""Many at once through a pair of proxies: nothing is lost, nothing is mixed up, nothing stays."""

import asyncio
import os
import socket

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from tests.cluster.mesh.conftest import double, talk

AT_ONCE = 100


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def conversations(client: Pod, server: Pod, first: int) -> int:
    """`AT_ONCE` connections, all open before the first of them says anything; how many were answered right."""
    async with client:
        opened = await asyncio.gather(
            *(asyncio.open_connection(str(server.ip), 8080) for _ in range(AT_ONCE))
        )
    right = 0
    for number, (_reader, writer) in enumerate(opened, first):
        writer.write(b"%08d\n" % number)
    for number, (reader, writer) in enumerate(opened, first):
        right += await asyncio.wait_for(reader.readline(), 60) == b"%08d\n" % number
        writer.close()
    for _reader, writer in opened:
        await writer.wait_closed()
    return right


def still_open(proxy: NodeProxy) -> float:
    open_now = 0.0
    for sample in proxy.metrics.registry.samples():
        open_now += sample.value * (sample.name == "istio_tcp_connections_opened_total")
        open_now -= sample.value * (sample.name == "istio_tcp_connections_closed_total")
    return open_now


@pytest.mark.usefixtures("nothing_kept")
def test_connections_by_the_hundred_lose_nothing_and_leave_nothing(cluster: Cluster) -> None:
    proxies = [cluster.deploy_ztunnel_sync(node) for node in ("node-a", "node-b")]
    client, server = cluster.add_pod("client", "node-a"), cluster.add_pod("server", "node-b")

    async def all_rounds() -> None:
        async with server:
            served = await asyncio.start_server(echo, "0.0.0.0", 8080, backlog=AT_ONCE)
        held = 0
        for first in range(0, 5 * AT_ONCE, AT_ONCE):
            since = [proxy.log.count for proxy in proxies]
            assert await conversations(client, server, first) == AT_ONCE
            for proxy, before in zip(proxies, since, strict=True):
                await asyncio.to_thread(all_told, proxy, before)
            held = held or len(os.listdir("/proc/self/fd"))  # with what is kept, like tunnels
        assert len(os.listdir("/proc/self/fd")) <= held + 4
        served.close()

    asyncio.run(all_rounds())
    assert [still_open(proxy) for proxy in proxies] == [0.0, 0.0]


def all_told(proxy: NodeProxy, since: int) -> None:
    """Wait until the proxy has logged the end of `AT_ONCE` more connections, each without an error."""

    def complete() -> bool | None:
        ends = [each for each in proxy.log.records(since) if each.message == "connection complete"]
        assert not [each for each in ends if "error" in each.fields]
        return len(ends) >= AT_ONCE or None

    assert proxy.log.changes.wait(complete, 60)


def test_fifty_pods_of_a_node_are_carried(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    pods = [cluster.add_pod(f"pod-{number}", "node-a") for number in range(50)]
    pods[0].start(double())
    for pod in pods[1:]:
        assert cluster.mesh.carried(pod)
    for pod in pods[1::7]:
        assert talk(pod, pods[0].ip) == (str(pod.ip), b"hellohello")


@pytest.mark.usefixtures("nothing_kept")
def test_a_pod_that_comes_and_goes_a_hundred_times_leaves_nothing(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    held = 0
    for number in range(100):
        pod = cluster.add_pod("short", "node-a")
        pod.socket(type=socket.SOCK_DGRAM).close()
        pod.remove()
        if number == 20:
            held = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) <= held + 8
    assert not cluster.mesh.carried("short")
