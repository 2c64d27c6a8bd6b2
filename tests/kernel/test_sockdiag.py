"""The sockets of a namespace as the kernel lists them, and ending them."""

import errno
import os
import shutil
import socket
import subprocess
from ipaddress import IPv4Address, ip_address

import pytest

from netwarren.errors import KernelError, UnsupportedByKernel
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_SOCK_DIAG, Netlink, Request, refusal
from netwarren.kernel.sockdiag import SocketInfo, destroy, sockets


def lo_up() -> None:
    with Netlink("pod") as pod:
        pod.commit([set_link(1, up=True)])


def test_a_socket_reads_like_a_sentence() -> None:
    any_, one = ip_address("0.0.0.0"), ip_address("10.0.0.1")
    listening = SocketInfo("tcp", any_, 8080, any_, 0, "listen", 1, 0, False, b"")
    assert str(listening) == "tcp 0.0.0.0:8080 listen"
    assert str(listening._replace(local_address=ip_address("::"))) == "tcp [::]:8080 listen"
    connected = listening._replace(remote_address=one, remote_port=99, state="established")
    assert str(connected) == "tcp 0.0.0.0:8080 -> 10.0.0.1:99 established"


def test_a_kernel_that_cannot_destroy_sockets_is_told_from_a_socket_that_is_gone() -> None:
    request = Request(21, 0, b"", "destroy socket", "socket destruction")
    lacking = refusal(request, errno.EOPNOTSUPP, "")
    assert isinstance(lacking, UnsupportedByKernel)
    assert "CONFIG_INET_DIAG_DESTROY=y" in lacking.hint
    assert type(refusal(request, errno.ENOENT, "")) is KernelError


@pytest.mark.fresh_netns
def test_a_namespace_without_sockets_has_none() -> None:
    with Netlink("pod", NETLINK_SOCK_DIAG) as diag:
        assert repr(diag) == "<Netlink sock_diag in pod open>"
        assert sockets(diag, listening_only=False) == []


@pytest.mark.fresh_netns
def test_listening_sockets_of_both_protocols_and_families_are_listed() -> None:
    lo_up()
    with (
        Netlink("pod", NETLINK_SOCK_DIAG) as diag,
        socket.create_server(("0.0.0.0", 8080)) as tcp,
        socket.create_server(("::", 8081), family=socket.AF_INET6, dualstack_ipv6=True),
        socket.create_server(("::1", 8082), family=socket.AF_INET6),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 53))
        found = {str(info): info for info in sockets(diag)}
        assert sorted(found) == [
            "tcp 0.0.0.0:8080 listen",
            "tcp [::1]:8082 listen",
            "tcp [::]:8081 listen",
            "udp 127.0.0.1:53 unconnected",
        ]
        info = found["tcp 0.0.0.0:8080 listen"]
        assert (info.protocol, info.local_address, info.local_port) == ("tcp", IPv4Address("0.0.0.0"), 8080)
        assert (info.remote_address, info.remote_port, info.state) == (IPv4Address("0.0.0.0"), 0, "listen")
        assert (info.inode, info.uid) == (os.fstat(tcp.fileno()).st_ino, os.getuid())
        assert not found["tcp [::]:8081 listen"].v6only
        assert found["tcp [::1]:8082 listen"].v6only


@pytest.mark.fresh_netns
def test_connected_sockets_are_listed_when_asked_for() -> None:
    lo_up()
    with (
        Netlink("pod", NETLINK_SOCK_DIAG) as diag,
        socket.create_server(("127.0.0.1", 8080)) as server,
        socket.create_connection(("127.0.0.1", 8080)) as client,
    ):
        port = client.getsockname()[1]
        accepted, _ = server.accept()
        with accepted:
            assert [str(info) for info in sockets(diag)] == ["tcp 127.0.0.1:8080 listen"]
            assert sorted(str(info) for info in sockets(diag, listening_only=False)) == sorted(
                [
                    "tcp 127.0.0.1:8080 listen",
                    f"tcp 127.0.0.1:8080 -> 127.0.0.1:{port} established",
                    f"tcp 127.0.0.1:{port} -> 127.0.0.1:8080 established",
                ]
            )


@pytest.mark.fresh_netns
def test_a_destroyed_connection_is_aborted_and_destroying_it_again_is_no_error() -> None:
    lo_up()
    with (
        Netlink("pod", NETLINK_SOCK_DIAG) as diag,
        socket.create_server(("127.0.0.1", 8080)) as server,
        socket.create_connection(("127.0.0.1", 8080)) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            port = client.getsockname()[1]
            mine = [info for info in sockets(diag, listening_only=False) if info.local_port == port]
            try:
                destroy(diag, mine)
            except UnsupportedByKernel as error:
                pytest.skip(error.hint)
            with pytest.raises(ConnectionAbortedError):
                client.recv(1)
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)
            destroy(diag, mine)
            assert [str(info) for info in sockets(diag)] == ["tcp 127.0.0.1:8080 listen"]


@pytest.mark.fresh_netns
def test_a_thousand_sockets_are_all_listed() -> None:
    lo_up()
    with Netlink("pod", NETLINK_SOCK_DIAG) as diag:
        opened = []
        for port in range(2000, 2900):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind(("127.0.0.1", port))
            opened.append(one)
        assert sorted(info.local_port for info in sockets(diag)) == list(range(2000, 2900))
        for one in opened:
            one.close()


@pytest.mark.skipif(shutil.which("ss") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ss_agrees_with_us() -> None:
    lo_up()
    with (
        Netlink("pod", NETLINK_SOCK_DIAG) as diag,
        socket.create_server(("127.0.0.1", 8080)),
        socket.create_server(("::1", 8081), family=socket.AF_INET6),
    ):
        said = subprocess.check_output(["ss", "-H", "-tulne"], text=True).splitlines()
        theirs = {(line.split()[0], line.split()[4], int(line.split("ino:")[1].split()[0])) for line in said}
        ours = {(info.protocol, str(info).split()[1], info.inode) for info in sockets(diag)}
        assert theirs == ours
