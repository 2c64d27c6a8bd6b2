"""Addresses outside, and names: on a host of the test's own, an empty network in a fresh sandbox.

Its loopback link has documentation addresses (RFC 5737, RFC 3849), so that a connection to one of them is
made as to any address outside, and nothing ever leaves the machine.
"""

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import asyncio, errno, ipaddress, socket, threading
from netwarren import Cluster, ConfigurationError
from netwarren.kernel import address, mount
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.netns import inode_of
from netwarren.runtime import host

outside = inode_of()
with Netlink("the host") as netlink:
    netlink.commit([
        address.add_address(1, ipaddress.ip_interface(text), scope="global")
        for text in ("198.51.100.7/32", "198.51.100.8/32", "2001:db8::7/128")
    ])

def family(name):
    return socket.AF_INET6 if ":" in name else socket.AF_INET

def serve(name, port):
    listening = socket.create_server((name, port), family=family(name))
    datagrams = socket.socket(family(name), socket.SOCK_DGRAM)
    datagrams.bind((name, port))
    def accept():
        while True:
            with listening.accept()[0] as connection:
                connection.sendall(name.encode())
    def answer():
        while True:
            data, client = datagrams.recvfrom(65535)
            datagrams.sendto(name.encode() + data, client)
    threading.Thread(target=accept, daemon=True).start()
    threading.Thread(target=answer, daemon=True).start()

def ask(pod, name, port, kind=socket.SOCK_STREAM):
    with pod.socket(family(name), kind) as made:
        made.settimeout(20)
        try:
            made.connect((name, port))
            if kind == socket.SOCK_DGRAM:
                made.send(b"!")
            return made.recv(100).decode()
        except OSError as error:
            return errno.errorcode[error.errno or 0]

def both(pod, name, port):
    return ask(pod, name, port), ask(pod, name, port, socket.SOCK_DGRAM)
"""


def on_a_host(script: str) -> None:
    """Run ``script`` in an empty network of a fresh sandbox, which is the host for it."""
    command = [sys.executable, "-m", "netwarren", "run", "--", sys.executable, "-c", PRELUDE + script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_an_address_is_dialled_as_it_is_by_tcp_and_udp_in_both_families() -> None:
    on_a_host("""
for name in ("198.51.100.7", "198.51.100.8", "2001:db8::7"):
    serve(name, 443)
    serve(name, 80)
with Cluster(families="dual", egress=["198.51.100.7:443", "[2001:db8::7]:443"]) as cluster:
    pod = cluster.add_pod("a", node="node-b")
    for name in ("198.51.100.7", "2001:db8::7"):
        assert both(pod, name, 443) == (name, name + "!"), both(pod, name, 443)
        assert ask(pod, name, 80) == "ENETUNREACH"
    assert ask(pod, "198.51.100.8", 443) == "ENETUNREACH"
    report = cluster.report()
    assert "198.51.100.7:443: 2 connections, 0 refused" in report, report
""")


def test_a_range_is_open_as_far_as_it_goes() -> None:
    on_a_host("""
for name in ("198.51.100.7", "198.51.100.8", "2001:db8::7"):
    serve(name, 443)
with Cluster(families="dual", egress=["198.51.100.0/29", "[2001:db8::/32]:443"]) as cluster:
    pod = cluster.add_pod("a")
    assert both(pod, "198.51.100.7", 443) == ("198.51.100.7", "198.51.100.7!")
    assert ask(pod, "198.51.100.7", 444) == "ECONNRESET"  # open, and nobody listens there
    assert ask(pod, "198.51.100.8", 443) == "ENETUNREACH"
    assert ask(pod, "2001:db8::7", 443) == "2001:db8::7"
""")


def test_everything_is_open_but_the_hosts_loopback_and_the_clusters_own() -> None:
    on_a_host("""
for name in ("198.51.100.7", "2001:db8::7", "127.0.0.1"):
    serve(name, 443)
with Cluster(families="dual", egress="*") as cluster:
    pod = cluster.add_pod("a")
    for name in ("198.51.100.7", "2001:db8::7"):
        assert both(pod, name, 443) == (name, name + "!")
    assert ask(pod, cluster.host, 443) == "ECONNREFUSED"
    assert ask(pod, "10.0.3.3", 443) == "ENETUNREACH"
    assert ask(pod, "169.254.20.10", 443) == "ECONNREFUSED"  # the name server's, which is the cluster's own
    assert ask(pod, "203.0.113.1", 443) == "ECONNRESET"  # this host has no way there
""")


def test_a_program_reaches_an_address_outside_while_this_thread_is_in_a_pod() -> None:
    on_a_host("""
import sys
serve("198.51.100.7", 443)
program = "import socket; print(socket.create_connection(('198.51.100.7', 443), 20).recv(100).decode())"
with Cluster() as first, first.add_pod("a"):
    with Cluster(egress="198.51.100.7:443") as cluster:
        assert cluster.add_pod("b").check_output([sys.executable, "-c", program]) == "198.51.100.7\\n"
        assert host.call(lambda: asyncio.to_thread(inode_of)) == outside
""")


def test_a_name_opens_what_it_resolves_to_on_the_host(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n198.51.100.7 web.example\n2001:db8::7 web.example\n127.0.0.1 database.example\n"
    )
    os.chmod(hosts, 0o644)
    on_a_host(f"""
mount.bind({str(hosts)!r}, "/etc/hosts")
for name in ("198.51.100.7", "198.51.100.8", "2001:db8::7", "127.0.0.1"):
    serve(name, 443)
with Cluster(families="dual", egress=["web.example:443", "database.example:443"]) as cluster:
    pod = cluster.add_pod("a")
    assert ask(pod, "198.51.100.7", 443) == "ENETUNREACH"
    assert ask(pod, cluster.host, 443) == "ECONNREFUSED"
    upstream = cluster._outlet.upstream
    assert {{str(each) for each in upstream("web.example")}} == {{"198.51.100.7", "2001:db8::7"}}
    assert upstream("other.example") is None
    for name in ("198.51.100.7", "2001:db8::7"):
        assert both(pod, name, 443) == (name, name + "!")
    assert ask(pod, "198.51.100.8", 443) == "ENETUNREACH"
    assert upstream("Database.Example.") == tuple(each.ip for each in cluster.bridge_addresses)
    assert ask(pod, cluster.host, 443) == "127.0.0.1"
    upstream("web.example")  # again changes nothing
    assert ask(pod, "198.51.100.7", 443) == "198.51.100.7"
    assert "web.example:443: 5 connections, 0 refused" in cluster.report(), cluster.report()
with Cluster(egress="nowhere.example:443") as cluster:
    assert cluster._outlet.upstream("nowhere.example") == ()
""")


def test_an_address_of_a_family_that_the_cluster_has_not_is_refused() -> None:
    on_a_host("""
try:
    Cluster(egress="[2001:db8::7]:443")
except ConfigurationError as error:
    assert "include 'ipv6'" in str(error)
else:
    raise AssertionError
""")


def test_a_program_reaches_a_name_outside_as_the_clusters_name_server_resolves_it(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n198.51.100.7 web.example\n198.51.100.8 other.example\n")
    os.chmod(hosts, 0o644)
    on_a_host(f"""
import sys
mount.bind({str(hosts)!r}, "/etc/hosts")
for name in ("198.51.100.7", "198.51.100.8"):
    serve(name, 443)
program = "import socket; print(socket.create_connection((%r, 443), 20).recv(100).decode())"
with Cluster(egress="web.example:443") as cluster:
    pod = cluster.add_pod("a")
    assert pod.check_output([sys.executable, "-c", program % "web.example"]) == "198.51.100.7\\n"
    try:
        pod.check_output([sys.executable, "-c", program % "other.example"])
    except Exception as error:
        assert "Name or service not known" in str(error), error
    else:
        raise AssertionError("a name that is not named resolves")
""")
