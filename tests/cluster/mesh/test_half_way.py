"""What fails half-way leaves nothing: pods that a proxy cannot carry, proxies that cannot be deployed."""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import pytest

from netwarren import Cluster
from netwarren.cluster import mesh
from netwarren.cluster.mesh import Mesh
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.errors import KernelError, MeshError
from netwarren.kernel.syscall import capget, capset
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.inpod.sockets import PodSockets
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.proxy.ztunnel import Ztunnel
from tests.cluster.mesh.conftest import double, talk
from tests.kept import let_go


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_a_pod_in_which_a_port_of_the_proxy_is_taken_is_refused_and_is_not_there(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    taken: list[socket.socket] = []
    add = NodeAgent.begin_addition

    def take_first(agent: NodeAgent, uid: str, info: WorkloadInfo, netns: int) -> Callable[[], None]:
        host = "127.0.0.1" if port == 15053 else "0.0.0.0"
        with PodSockets(netns, reuse_port=False) as sockets:
            taken.append(sockets.listen(SocketAddress(ip_address(host), port)))
        return add(agent, uid, info, netns)

    with monkeypatch.context() as patch:
        patch.setattr(NodeAgent, "begin_addition", take_first)
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


class Clinging:
    """What becomes of pods whose proxy does not let go of them before it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = threading.Event()
        self.may = threading.Event()
        stop = Ztunnel.stop_pod

        async def cling(proxy: Ztunnel, uid: str, *, graceful: bool) -> None:
            self.asked.set()
            await asyncio.get_running_loop().run_in_executor(None, self.may.wait)
            await stop(proxy, uid, graceful=graceful)

        monkeypatch.setattr(Ztunnel, "stop_pod", cling)


@pytest.fixture
def clinging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinging]:
    made = Clinging(monkeypatch)
    yield made
    made.may.set()


def test_a_pod_that_its_proxy_does_not_let_go_of_holds_up_nobody_else(
    cluster: Cluster, clinging: Clinging
) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    web = cluster.add_pod("web", "node-a")
    with ThreadPoolExecutor(2) as threads:
        removing = threads.submit(web.remove)
        assert clinging.asked.wait(20)
        try:
            assert threads.submit(cluster.add_pod, "other", "node-b").result(5).name == "other"
            assert not removing.done()
        finally:
            clinging.may.set()
        removing.result(20)
    assert "web" not in cluster.pods


def test_a_pod_that_its_proxy_never_lets_go_of_is_gone_all_the_same(
    cluster: Cluster, clinging: Clinging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "LET_GO_SECONDS", 0.1)
    cluster.deploy_ztunnel_sync("node-a")
    web = cluster.add_pod("web", "node-a")
    with pytest.raises(MeshError, match=r"the end of pod .*/web: the proxy has not acknowledged it within"):
        web.remove()
    assert "web" not in cluster.pods
    assert "was removed" in web.gone
    assert not cluster.mesh.carried("web")
    clinging.may.set()
    assert cluster.mesh.carried(cluster.add_pod("web", "node-a"))


def test_pods_whose_end_a_proxy_is_not_told_are_gone_with_their_node(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("node-a", "node-b"):
        cluster.deploy_ztunnel_sync(node)
    for number in range(3):
        cluster.add_pod(f"web-{number}", "node-b")

    def fail(*_: object) -> None:
        raise MeshError("it does not listen")

    with monkeypatch.context() as patch:
        patch.setattr(Ztunnel, "change", fail)
        with pytest.raises(MeshError, match="it does not listen"):
            cluster.node("node-b").remove()
    assert list(cluster.pods) == ["ztunnel-node-a"]
    assert list(cluster.mesh.proxies) == ["node-a"]
    assert [each.name for each in cluster.mesh.config.workloads] == ["ztunnel-node-a"]


def test_a_pod_is_carried_no_more_when_it_goes_after_its_proxy(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    web = cluster.add_pod("web", "node-a")
    proxy.pod.remove()
    web.remove()
    assert not cluster.mesh.carried(cluster.add_pod("web", "node-a"))


async def test_others_go_on_while_a_proxy_is_deployed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    deploy = Mesh.deploy

    def slow(*args: Any) -> NodeProxy:
        assert going_on.wait(5)
        return deploy(*args)

    monkeypatch.setattr(Mesh, "deploy", slow)
    deploying = asyncio.ensure_future(cluster.deploy_ztunnel("node-a"))
    await asyncio.sleep(0)
    going_on.set()
    assert (await deploying).ready


async def test_a_proxy_that_nobody_waits_for_any_more_is_not_deployed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may = threading.Event(), threading.Event()
    deploy = Mesh.deploy

    def slow(*args: Any) -> NodeProxy:
        begun.set()
        assert may.wait(20)
        return deploy(*args)

    monkeypatch.setattr(Mesh, "deploy", slow)
    deploying = asyncio.ensure_future(cluster.deploy_ztunnel("node-a"))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait)
    deploying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploying
    may.set()
    for thread in threading.enumerate():
        if thread.name == "netwarren-wait":
            thread.join(20)
    assert cluster.mesh.proxies == {}
    assert "ztunnel-node-a" not in cluster.pods


async def test_who_lives_in_a_pod_may_deploy_a_proxy(cluster: Cluster) -> None:
    async with cluster.add_pod("pod", "node-b"):
        assert (await cluster.deploy_ztunnel("node-a")).ready


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
        let_go()
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
