"""Node proxies that come and go, and what is left of them."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import MeshError
from netwarren.mesh.state.store import State
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import double, talk, until_refused

COMPLETE = "connection complete"


def _hold(host: str) -> Callable[[Callable[[object], None]], bytes]:
    """A client that says nothing and waits for the end."""

    def wait(ready: Callable[[object], None]) -> bytes:
        with socket.create_connection((host, 8080), timeout=60) as connection:
            said = connection.recv(100)
            ready(None)
            with contextlib.suppress(ConnectionResetError):
                said += connection.recv(100)
            return said

    return wait


def _greet_all(ready: Callable[[object], None]) -> None:
    """A server that says a word to each of its clients, and lets go of none."""
    with contextlib.ExitStack() as connections, socket.create_server(("", 8080)) as listener:
        ready(None)
        while True:
            connections.enter_context(listener.accept()[0]).sendall(b"hello")


def _pair(cluster: Cluster) -> tuple[Pod, Pod]:
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    return server, client


def test_shutting_down_cuts_what_has_not_ended_by_its_deadline(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", drain_deadline=0.2)
    server, client = _pair(cluster)
    waiting = client.start(_hold(server.ip))
    proxy.shut_down()
    assert waiting.result(20) == f"{client.ip}\n".encode()
    # Of whom is cut first, this side or that; to the other it is an end.
    expect_record_sync(proxy.log, COMPLETE, {"error": "connection closed due to connection drain"})


def test_the_proxys_own_port_closes_while_connections_of_pods_have_time_to_end(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", drain_deadline=60.0)
    server, client = _pair(cluster)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        ending = threading.Thread(target=proxy.shut_down)
        ending.start()
        with proxy.pod:
            until_refused(proxy.pod.ip, 15008)
        assert ending.is_alive()
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"xx"
        assert connection.recv(100) == b""
    ending.join(20)
    assert not ending.is_alive()


def test_a_pod_for_a_proxy_that_has_ended_is_refused_at_once(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    proxy.shut_down()
    before = time.monotonic()
    with pytest.raises(MeshError, match=r"has ended.*ztunnel-node-a"):
        cluster.add_pod("late", "node-a")
    assert time.monotonic() - before < 5
    assert "late" not in cluster.pods
    plain = cluster.add_pod("plain", "node-a", captured=False)
    assert not cluster.mesh.carried(plain)


def test_a_proxy_whose_pod_was_removed_can_be_deployed_anew(cluster: Cluster) -> None:
    first = cluster.deploy_ztunnel_sync("node-a")
    first.pod.remove()
    assert not first.running
    assert "node-a" not in cluster.mesh.proxies
    cluster.deploy_ztunnel_sync("node-a")
    server, client = _pair(cluster)
    assert talk(client, server.ip) == (client.ip, b"hellohello")


def test_a_node_goes_with_its_proxy_and_others_go_on(cluster: Cluster) -> None:
    gone = cluster.deploy_ztunnel_sync("node-b")
    cluster.deploy_ztunnel_sync("node-a")
    cluster.add_pod("neighbour", "node-b")
    server, client = _pair(cluster)
    cluster.node("node-b").remove()
    assert not gone.running
    assert set(cluster.mesh.proxies) == {"node-a"}
    assert talk(client, server.ip) == (client.ip, b"hellohello")


def test_a_pod_of_a_name_that_was_there_before_is_another(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = _pair(cluster)
    for _ in range(3):
        server.remove()
        server = cluster.add_pod("server", "node-a")
        server.start(double())
        assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert proxy.ready


def test_a_removed_pod_is_no_endpoint_any_more(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    pods = [cluster.add_pod(name, "node-a", labels={"app": "web"}) for name in ("one", "two")]
    for pod in pods:
        pod.start(double())
    pods[0].remove()
    for _ in range(10):
        assert talk(client, service.ip, 80) == (client.ip, b"hellohello")
    service.remove()
    assert not cluster.mesh.config.services


@pytest.mark.parametrize("captured", [True, False])
def test_a_cluster_closes_soon_with_connections_open(captured: bool) -> None:
    with Cluster() as cluster:
        cluster.deploy_ztunnel_sync("node-a", drain_deadline=60.0)
        server = cluster.add_pod("server", "node-a")
        client = cluster.add_pod("client", "node-a", captured=captured)
        server.start(_greet_all)
        with client:
            connections = [socket.create_connection((server.ip, 8080), timeout=20) for _ in range(20)]
        for connection in connections:
            assert connection.recv(100)
        before = time.monotonic()
    assert time.monotonic() - before < 5
    for connection in connections:
        connection.close()


def test_many_connections_at_a_time_come_through(cluster: Cluster) -> None:
    for node in ("node-a", "node-b"):
        cluster.deploy_ztunnel_sync(node)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-b")

    def serve(ready: Callable[[object], None]) -> None:
        connections = []
        with socket.create_server(("", 8080), backlog=300) as listener:
            ready(None)
            for _ in range(250):
                connections.append(listener.accept()[0])
            for connection in connections:
                with connection:
                    connection.sendall(connection.recv(10) * 2)

    server.start(serve)
    with client:
        connections = [socket.create_connection((server.ip, 8080), timeout=30) for _ in range(250)]
    for number, connection in enumerate(connections):
        connection.sendall(str(number).encode())
    for number, connection in enumerate(connections):
        with connection:
            assert connection.recv(10) == str(number).encode() * 2


def test_the_log_is_json_where_that_is_asked_for(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", log_format="json")
    server, client = _pair(cluster)
    talk(client, server.ip)
    expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    lines = [json.loads(line) for line in proxy.log.lines()]
    assert any(each["scope"] == "access" and each["message"] == COMPLETE for each in lines)


def test_who_asks_a_proxy_that_is_just_ending_gets_an_error_and_not_stuck(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")._proxy
    loop = proxy._loop

    async def forever() -> None:
        await asyncio.Event().wait()

    async def end() -> None:
        proxy._ending.set()

    asked = threading.Thread(target=lambda: outcomes.append(_outcome(lambda: proxy.call(forever))))
    outcomes: list[str] = []
    asked.start()
    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    asked.join(10)
    assert outcomes == ["ClosedError"]
    assert _outcome(lambda: proxy.call(forever)) == "ClosedError"


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    except BaseException as error:
        return type(error).__name__
    return "done"


def test_a_cluster_goes_on_when_a_proxy_ends_while_it_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    tell = proxy._proxy.change

    def end_first(change: Callable[[State], None]) -> None:
        proxy.shut_down()
        tell(change)

    monkeypatch.setattr(proxy._proxy, "change", end_first)
    cluster.add_pod("pod", "node-b")
    assert not proxy.running
    assert cluster.mesh.workload("pod").name == "pod"
