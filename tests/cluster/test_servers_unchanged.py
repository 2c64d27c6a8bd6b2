"""Servers as distributions package them, several of a kind, at the paths that were built into them."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from netwarren import Cluster, Pod
from tests.runtime.conftest import eventually


def program(name: str) -> str:
    """Where ``name`` is; the test is skipped where it is not installed."""
    places = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/sbin", os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ask(client: Pod, address: str, port: int, request: bytes, size: int = 65536) -> str:
    with client.socket() as connection:
        connection.settimeout(20)
        connection.connect((address, port))
        connection.sendall(request)
        return connection.recv(size).decode()


NGINX = """
events {}
http {
    server { listen 80; location / { return 200 "this is %s\\n"; } }
}
"""


def test_two_pods_run_nginx_with_the_paths_of_the_distribution(cluster: Cluster) -> None:
    nginx = program("nginx")
    client = cluster.add_pod("client")
    for name in ("blue", "green"):
        pod = cluster.add_pod(name)
        pod.private_directory("/etc/nginx", files={"nginx.conf": NGINX % name})
        run = pod.private_directory("/run")
        log = pod.private_directory("/var/log/nginx")
        pod.private_directory("/var/lib/nginx")
        pod.check_output([nginx])  # which returns once the server in the background listens
        answer = ask(client, pod.ip, 80, b"GET / HTTP/1.0\r\n\r\n")
        assert answer.endswith(f"this is {name}\n")
        assert int((run / "nginx.pid").read_text()) in processes(pod)
        assert (log / "access.log").exists()


def processes(pod: Pod) -> set[int]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino == pod.inode:
                found.add(int(pid))
        except OSError:
            continue
    return found


def test_redis_keeps_its_data_in_a_directory_of_the_pods(cluster: Cluster) -> None:
    redis = program("redis-server")
    pod, client = cluster.add_pod("cache"), cluster.add_pod("client")
    data = pod.private_directory("/data", files={"redis.conf": "dir /data\nprotected-mode no\n"})
    server = pod.popen([redis, "/data/redis.conf"])
    eventually(lambda: "eady to accept connections" in server.output or server.poll() is not None)
    assert ask(client, pod.ip, 6379, b"SET key value\r\n") == "+OK\r\n"
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert b"value" in (data / "dump.rdb").read_bytes()


def test_programs_ask_the_name_server_that_the_pods_resolv_conf_names(cluster: Cluster) -> None:
    dnsmasq = program("dnsmasq")
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    conf = "no-resolv\nno-hosts\nuser=\naddress=/db.test/192.0.2.7\nlog-facility=-\n"
    server.private_directory("/etc/dnsmasq", files={"dnsmasq.conf": conf})
    server.private_directory("/run")
    running = server.popen([dnsmasq, "--keep-in-foreground", "--conf-file=/etc/dnsmasq/dnsmasq.conf"])
    eventually(lambda: "started" in running.output or running.poll() is not None)
    client.check_output(["/bin/sh", "-c", f"echo nameserver {server.ip} >/etc/resolv.conf"])
    assert client.check_output(["getent", "hosts", "db.test"], timeout=60).split() == ["192.0.2.7", "db.test"]


@pytest.fixture
def database_user() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    return {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


def test_postgresql_finds_its_sockets_and_data_where_it_was_built_to(
    cluster: Cluster, database_user: dict[str, Any]
) -> None:
    initdb, control, psql = program("initdb"), program("pg_ctl"), program("psql")
    databases = [cluster.add_pod("one"), cluster.add_pod("two")]
    client = cluster.add_pod("client")
    for pod in databases:
        data, sockets = map(pod.private_directory, ("/var/lib/postgresql", "/var/run/postgresql"))
        if database_user:
            for place in (data, sockets):
                os.chown(place, database_user["user"], database_user["group"])
        folder = "/var/lib/postgresql/data"
        options = {"cwd": "/", "timeout": 100, **database_user}
        pod.check_output([initdb, "-D", folder, "-A", "trust", "-U", "me", "--no-sync"], **options)
        with open(data / "data" / "pg_hba.conf", "a") as rules:
            rules.write("host all all 10.0.0.0/8 trust\n")
        settings = "-c listen_addresses=* -c fsync=off"
        pod.check_output(
            [control, "-D", folder, "-w", "-l", f"{folder}/log", "-o", settings, "start"], **options
        )
        pod.check_output([psql, "-U", "me", "-c", f"create table {pod.name} ()", "postgres"], **options)
    for pod in databases:
        listed = client.check_output(
            [psql, "-h", pod.ip, "-U", "me", "-Atc", r"\dt", "postgres"], timeout=100
        )
        assert listed == f"public|{pod.name}|table|me\n"
