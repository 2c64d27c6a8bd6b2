"""What fails half-way leaves nothing: pods that a proxy cannot carry, proxies that cannot be deployed."""

import errno
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from netwarren import Cluster
from netwarren.errors import KernelError, MeshError
from netwarren.kernel.syscall import capget, capset
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.inpod.sockets import PodSockets
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.proxy.ztunnel import Ztunnel
from tests.cluster.mesh.conftest import double, talk


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_a_pod_in_which_a_port_of_the_proxy_is_taken_is_refused_and_is_not_there(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    taken: list[socket.socket] = []
    add = NodeAgent.add

    def take_first(agent: NodeAgent, uid: str, info: WorkloadInfo, netns: int) -> None:
        host = "127.0.0.1" if port == 15053 else "0.0.0.0"
        with PodSockets(netns, reuse_port=False) as sockets:
            taken.append(sockets.listen(SocketAddress(ip_address(host), port)))
        add(agent, uid, info, netns)

    with monkeypatch.context() as patch:
        patch.setattr(NodeAgent, "add", take_first)
        with pytest.raises(MeshError, match=f"start proxy.*{port}"):
            cluster.add_pod("web", "node-a")
    taken[0].close()
    assert "web" not in cluster.pods
    assert not cluster.mesh.carried("web")
    assert [each.name for each in cluster.mesh.config.workloads] == ["ztunnel-node-a"]
    assert proxy._proxy.pods == {}
    web, client = cluster.add_pod("web", "node-a"), cluster.add_pod("client", "node-a")
    web.start(double())
    assert talk(client, web.ip) == (client.ip, b"hellohello")


def test_a_pod_that_cannot_be_redirected_is_refused_and_is_not_there(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")

    def fail(*_: object, **__: object) -> None:
        raise KernelError("redirect", errno.EPERM, where="the test")

    with monkeypatch.context() as patch:
        patch.setattr(redirection, "apply", fail)
        with pytest.raises(KernelError, match="the test"):
            cluster.add_pod("web", "node-a")
    assert "web" not in cluster.pods
    assert proxy._proxy.pods == {}
    assert cluster.mesh.carried(cluster.add_pod("web", "node-a"))


def test_a_proxy_that_cannot_start_is_not_there_and_can_be_deployed_later(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Ztunnel) -> None:
        raise MeshError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Ztunnel, "start", fail)
        with pytest.raises(MeshError, match="no"):
            cluster.deploy_ztunnel_sync("node-a")
    assert "ztunnel-node-a" not in cluster.pods
    assert cluster.mesh.proxies == {}
    assert cluster.deploy_ztunnel_sync("node-a").ready


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        (1 << 21, "the node proxy cannot enter pods"),  # CAP_SYS_ADMIN
        (1 << 12 | 1 << 13, "the node proxy cannot mark its packets"),  # CAP_NET_ADMIN, CAP_NET_RAW
    ],
)
def test_a_proxy_that_may_not_do_its_work_says_so_at_its_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, missing: int, what: str
) -> None:
    start = Ztunnel.start

    def start_without(proxy: Ztunnel) -> None:
        effective, permitted, inheritable = capget()
        capset(effective & ~missing, permitted, inheritable)
        try:
            start(proxy)  # whose thread has what this one has
        finally:
            capset(effective, permitted, inheritable)

    with monkeypatch.context() as patch:
        patch.setattr(Ztunnel, "start", start_without)
        with pytest.raises(MeshError, match=f"{what}.*CAP_SYS_ADMIN and CAP_NET_ADMIN"):
            cluster.deploy_ztunnel_sync("node-a")
    assert "ztunnel-node-a" not in cluster.pods
    assert cluster.deploy_ztunnel_sync("node-a").ready


def test_a_proxy_whose_pages_cannot_be_served_leaves_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set(threading.enumerate())
    listen = PodSockets.listen

    def refuse(sockets: PodSockets, address: SocketAddress, **options: object) -> socket.socket:
        if address.port == 15021:
            raise KernelError("listen at 15021", errno.EADDRINUSE, where="the test")
        return listen(sockets, address, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PodSockets, "listen", refuse)
        with pytest.raises(KernelError, match="15021"):
            cluster.deploy_ztunnel_sync("node-a")
    assert cluster.mesh.proxies == {}
    assert {each.name for each in set(threading.enumerate()) - threads if "ztunnel" in each.name} == set()
    assert cluster.deploy_ztunnel_sync("node-a").ready


def test_pods_come_and_go_from_many_threads(cluster: Cluster) -> None:
    proxies = [cluster.deploy_ztunnel_sync(node) for node in ("node-a", "node-b")]

    def life(number: int) -> bool:
        pod = cluster.add_pod(f"pod-{number}", f"node-{'ab'[number % 2]}")
        carried = cluster.mesh.carried(pod)
        if number % 3:
            pod.remove()
        return carried

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(life, range(40)))
    kept = {f"pod-{number}" for number in range(0, 40, 3)}
    assert {each.info.name for proxy in proxies for each in proxy._proxy.pods.values()} == kept
    for proxy in proxies:
        assert {each.name for each in proxy._proxy.state.workloads} == {
            *kept,
            "ztunnel-node-a",
            "ztunnel-node-b",
        }


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("end", ["closed", "shut down", "removed"])
def test_nothing_is_left_of_proxies_with_open_connections(end: str) -> None:
    def life() -> None:
        with Cluster() as cluster:
            proxy = cluster.deploy_ztunnel_sync("node-a", drain_deadline=0.1)
            server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
            server.start(double())
            with client:
                connection = socket.create_connection((server.ip, 8080), timeout=20)
            assert connection.recv(100)
            if end == "shut down":
                proxy.shut_down()
            elif end == "removed":
                proxy.pod.remove()
        connection.close()

    def held() -> tuple[int, set[str]]:
        from netwarren.cluster import roots
        from netwarren.runtime import ferry

        ferry.catch_up()
        roots.empty()
        return len(os.listdir("/proc/self/fd")), {
            each.name for each in threading.enumerate() if each.name.startswith("netwarren-")
        }

    life()
    descriptors, _ = held()
    for _ in range(3):
        life()
    after, names = held()
    assert after <= descriptors + 2
    assert not [name for name in names if "ztunnel" in name or "agent" in name]
