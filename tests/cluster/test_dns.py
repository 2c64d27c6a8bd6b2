"""Names in pods resolve by the system's own resolver, for every kind of code, and never leave the cluster."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import trio

from netwarren import Cluster

FAMILIES = pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
AT_ONCE = 2.0
"""Seconds; a resolver that waits for an answer waits five."""


def addresses(name: str) -> set[str]:
    return {str(entry[4][0]) for entry in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}


@FAMILIES
def test_names_resolve_for_a_thread_in_a_pod(families: str) -> None:
    with Cluster(families=families) as cluster:
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-b")
        api = cluster.add_pod("api", namespace="prod")
        with client:
            assert addresses("server") == set(server.ips)
            assert addresses("SERVER.default.svc.cluster.local") == set(server.ips)
            assert addresses("api.prod") == set(api.ips)
            assert addresses("node-a") == set(server.node.ips)
            assert addresses("root") == {str(each.ip) for each in cluster.bridge_addresses}
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo("api", 80)
            for ip in server.ips:
                assert socket.gethostbyaddr(ip)[0] == "server.default.svc.cluster.local"
                if sys.version_info >= (
                    3,
                    11,
                    7,
                ):  # older ones let no thread answer meanwhile; docs/limits.md
                    assert socket.getnameinfo((ip, 80), 0) == ("server.default.svc.cluster.local", "http")
        with api:
            assert addresses("api") == set(api.ips)
        with cluster.root:
            assert addresses("server") == set(server.ips)
        with cluster.node("node-b"):
            assert addresses("server") == set(server.ips)


@FAMILIES
def test_many_names_are_answered_and_refused_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        with cluster.add_pod("client"):
            addresses("client")  # the first question loads the codec
            start = time.monotonic()
            for number in range(20):
                addresses("client")
                for name in (f"no-{number}", f"{number}.example.com", f"x{number}.default.svc.cluster.local"):
                    with pytest.raises(socket.gaierror):
                        socket.getaddrinfo(name, 80)
            assert time.monotonic() - start < AT_ONCE
        assert {query.asker for query in cluster.dns.queries} == {"client"}


def test_names_resolve_for_asyncio_tasks_threads_and_programs(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client", node="node-b")
    code = "import socket; print(socket.gethostbyname('server'))"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with client:
            found = await loop.getaddrinfo("server", 80, type=socket.SOCK_STREAM)
            assert {entry[4][0] for entry in found} == {server.ip}
            assert await asyncio.to_thread(socket.gethostbyname, "server") == server.ip
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == server.ip

    asyncio.run(main())
    heard: list[str] = []
    with client:
        thread = threading.Thread(target=lambda: heard.append(socket.gethostbyname("server")))
        thread.start()
        thread.join()
    assert heard == [server.ip]
    assert client.check_output([sys.executable, "-c", code]).strip() == server.ip


def test_names_resolve_for_trio_tasks(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client", node="node-b")

    async def main() -> list[Any]:
        async with client:
            return await trio.socket.getaddrinfo("server", 80, type=socket.SOCK_STREAM)

    assert {entry[4][0] for entry in trio.run(main)} == {server.ip}


def test_a_connection_is_made_by_name(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client", node="node-b")
    with server:
        listener = socket.create_server(("", 80))
    with listener, client, socket.create_connection(("server", 80)) as connection:
        assert connection.getpeername()[0] == server.ip


def test_names_follow_the_pods_as_they_come_and_go(cluster: Cluster) -> None:
    client = cluster.add_pod("client")
    with client, pytest.raises(socket.gaierror):
        socket.gethostbyname("late")
    late = cluster.add_pod("late", node="node-b")
    with client:
        assert socket.gethostbyname("late") == late.ip
    late.remove()
    with client, pytest.raises(socket.gaierror):
        socket.gethostbyname("late")


def test_two_clusters_with_the_same_names_do_not_mix() -> None:
    with Cluster() as one, Cluster() as other:
        one.add_pod("first")
        here, there = one.add_pod("server"), other.add_pod("server")
        assert here.ip != there.ip
        with one.pod("first"):
            assert socket.gethostbyname("server") == here.ip
        with there:
            assert socket.gethostbyname("server") == there.ip
        assert [query.asker for query in other.dns.queries] == ["server"]


def test_a_cluster_in_a_root_that_is_used_again_answers_for_itself() -> None:
    for number in range(3):
        with Cluster() as cluster:
            cluster.add_pod("client")
            pods = [cluster.add_pod(f"server-{each}") for each in range(number + 1)]
            with cluster.pod("client"):
                assert socket.gethostbyname(pods[-1].name) == pods[-1].ip


def test_a_forked_child_asks_the_parents_server_and_does_not_hold_its_port(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    read, write = os.pipe()
    with client:
        child = os.fork()
        if child == 0:
            try:
                os.write(write, socket.gethostbyname("server").encode())
                listening = [fd for fd in os.listdir("/proc/self/fd") if _is_port_53(int(fd))]
                os.write(write, f" {listening}".encode())
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == f"{server.ip} []"


def _is_port_53(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as held:
            return bool(held.family in (socket.AF_INET, socket.AF_INET6) and held.getsockname()[1] == 53)
    except OSError:
        return False


def test_pythons_http_server_starts_at_once(cluster: Cluster) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    with cluster.add_pod("web"):
        socket.getfqdn("warm.up")
        start = time.monotonic()
        HTTPServer(("", 80), BaseHTTPRequestHandler).server_close()
        assert time.monotonic() - start < AT_ONCE


# --- what the host's resolv.conf says ---

WITH_RESOLV_CONF = """
import os, socket, sys, time
from netwarren import Cluster
from netwarren.kernel import mount
from netwarren.kernel.syscall import CLONE_NEWNS, unshare
text, families, expected = sys.argv[1:]
unshare(CLONE_NEWNS, "have mounts of its own")
mount.keep_to_ourselves()
run = os.path.realpath("/var/run")
with open(f"{run}/test-{os.getpid()}", "w") as file:
    file.write(text)
mount.bind(file.name, os.path.realpath("/etc/resolv.conf"))
below = open("/etc/resolv.conf")
with Cluster(families=families) as cluster:
    server, client = cluster.add_pod("server"), cluster.add_pod("client", node="node-b")
    with client:
        socket.getaddrinfo("server", 80)
        start = time.monotonic()
        for number in range(10):
            found = {entry[4][0] for entry in socket.getaddrinfo("server", 80)}
            assert found == set(server.ips), found
            try:
                socket.getaddrinfo(f"n{number}.example.com", 80)
            except socket.gaierror:
                pass
        taken = time.monotonic() - start
    assert taken < 4, taken  # a server that is waited for takes 5
    service = cluster.add_service("front", pods=["server"], ports=80)
    with client:
        start = time.monotonic()
        found = {entry[4][0] for entry in socket.getaddrinfo("front", 80)}
        assert found == set(service.ips), found
        assert time.monotonic() - start < 4, "the rules of services are in the way of questions for names"
    with open("/etc/resolv.conf") as file:
        assert (file.read() == text) == (expected == "unchanged")
assert below.read() == text
"""


@FAMILIES
@pytest.mark.parametrize(
    ("text", "unchanged_in"),
    [
        ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n", ()),
        ("nameserver 192.0.2.53\n", ("ipv4", "dual")),
        ("nameserver 2001:db8::53\n", ("ipv6", "dual")),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate\n", ("ipv4", "dual")),
        ("nameserver 169.254.169.254\n", ("ipv4", "dual")),
        ("nameserver 10.0.0.2\n", ("ipv4", "dual")),
        ("nameserver fe80::53%lo\n", ()),
        (
            "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
            ("ipv4", "dual"),
        ),
        ("# nothing\n", ()),
    ],
    ids=["loopback", "IPv4", "IPv6", "rotate", "metadata", "vpc", "link", "kubernetes", "empty"],
)
def test_whatever_the_host_has_names_resolve_at_once(
    text: str, unchanged_in: tuple[str, ...], families: str
) -> None:
    expected = "unchanged" if families in unchanged_in else "changed"
    subprocess.run([sys.executable, "-c", WITH_RESOLV_CONF, text, families, expected], check=True, timeout=60)
