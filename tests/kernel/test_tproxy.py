"""Packets for addresses that nobody has, handed to sockets of ours; in a namespace of their own."""

import errno
import socket
import struct
from ipaddress import ip_address, ip_network

import pytest

from netwarren.errors import KernelError, UnsupportedByKernel
from netwarren.kernel import nftables, route, rule, tproxy
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, refusal

MARK = 0x77


def lay(name: str, network: str, port: int | None, to: int) -> None:
    """Catch ``network`` here: what is sent goes out of lo, and comes back in by it."""
    loopback = ip_address("127.0.0.1" if name == "ip" else "::1")
    everything = ip_network("0.0.0.0/0" if name == "ip" else "::/0")
    family = socket.AF_INET if name == "ip" else socket.AF_INET6
    with Netlink("here") as netlink:
        netlink.commit(
            [
                set_link(1, up=True),
                rule.add_rule(family=family, priority=100, fwmark=MARK, table=100),
                route.add_route(everything, index=1, kind="local", table=100),
                route.add_route(ip_network(network), index=1, kind="local", table=route.TABLE_LOCAL),
            ]
        )
    with Netlink("here", NETLINK_NETFILTER) as netlink:
        nftables.commit(
            netlink,
            [
                nftables.add_table(name, "t"),
                nftables.add_base_chain(name, "t", "c", hook="prerouting", priority=-150),
                tproxy.add_catch("t", "c", ip_network(network), port, (loopback, to), MARK),
            ],
        )


@pytest.mark.fresh_netns
@pytest.mark.parametrize(
    ("name", "loopback", "network", "address"),
    [
        ("ip", "127.0.0.1", "198.51.100.0/24", "198.51.100.7"),
        ("ip", "127.0.0.1", "198.51.100.7/32", "198.51.100.7"),
        ("ip6", "::1", "2001:db8::/61", "2001:db8:0:7::7"),
    ],
)
def test_a_connection_and_a_datagram_to_anywhere_tell_where_they_were_going(
    name: str, loopback: str, network: str, address: str
) -> None:
    streams, datagrams = tproxy.listeners(ip_address(loopback), 1)
    family = socket.AF_INET if name == "ip" else socket.AF_INET6
    with streams, datagrams:
        assert streams.getsockname()[1] == datagrams.getsockname()[1]
        assert not streams.getblocking()
        lay(name, network, None, streams.getsockname()[1])
        for each in (streams, datagrams):
            each.settimeout(20)
        with socket.socket(family) as client:
            client.settimeout(20)
            client.connect((address, 443))
            accepted, _ = streams.accept()
            with accepted:
                assert accepted.getsockname()[:2] == (address, 443)
                client.sendall(b"more")  # goes to the accepted socket
                assert accepted.recv(9) == b"more"
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"data", (address, 53))
            data, ancillary, _, _ = datagrams.recvmsg(100, tproxy.ANCILLARY_BYTES)
            assert data == b"data"
            assert tproxy.original_destination(ancillary) == (address, 53)


@pytest.mark.fresh_netns
def test_a_rule_for_one_port_and_one_to_pass_leave_the_rest_alone() -> None:
    streams, datagrams = tproxy.listeners(ip_address("127.0.0.1"), 1)
    with streams, datagrams:
        lay("ip", "198.51.100.0/24", 443, streams.getsockname()[1])
        with Netlink("here", NETLINK_NETFILTER) as netlink:
            first = tproxy.add_pass("t", "c", ip_network("198.51.100.8/32"))
            nftables.commit(netlink, [first._replace(flags=first.flags & ~0x800)])
            found = [each.expressions for each in nftables.rules(netlink)]
            assert found[0] == ("payload", "cmp", "immediate")
            assert found[1] == (
                *("payload", "bitwise", "cmp", "payload", "cmp", "immediate", "immediate", "tproxy"),
                *("meta", "bitwise", "meta", "immediate"),
            )
        for address, port in (("198.51.100.7", 80), ("198.51.100.8", 443)):
            with socket.socket() as client, pytest.raises(ConnectionRefusedError):
                client.connect((address, port))
        with socket.socket() as client:
            client.settimeout(20)
            client.connect(("198.51.100.7", 443))


@pytest.mark.fresh_netns
def test_a_rule_may_be_the_first() -> None:
    with Netlink("here", NETLINK_NETFILTER) as netlink:
        to = (ip_address("127.0.0.1"), 1)
        one, other = ip_network("198.51.100.7/32"), ip_network("0.0.0.0/0")
        nftables.commit(
            netlink,
            [
                nftables.add_table("ip", "t"),
                nftables.add_base_chain("ip", "t", "c", hook="prerouting", priority=-150),
                tproxy.add_catch("t", "c", other, None, to, MARK),
                tproxy.add_catch("t", "c", one, None, to, MARK, first=True),
            ],
        )
        assert ["cmp" in each.expressions for each in nftables.rules(netlink)] == [True, False]


def test_a_datagram_that_tells_nothing_has_no_destination() -> None:
    assert tproxy.original_destination([]) is None
    assert tproxy.original_destination([(socket.SOL_SOCKET, 1, bytes(16))]) is None


def test_a_destination_is_read_from_what_the_kernel_tells() -> None:
    four = struct.pack("=H", 2) + (443).to_bytes(2, "big") + bytes([198, 51, 100, 7]) + bytes(8)
    assert tproxy.original_destination([(0, 20, four)]) == ("198.51.100.7", 443)
    six = (
        struct.pack("=H", 10)
        + (53).to_bytes(2, "big")
        + bytes(4)
        + ip_address("2001:db8::7").packed
        + bytes(4)
    )
    assert tproxy.original_destination([(41, 74, six)]) == ("2001:db8::7", 53)


def test_a_kernel_without_it_is_told_with_the_module_to_load() -> None:
    request = tproxy.add_catch("t", "c", ip_network("0.0.0.0/0"), None, (ip_address("127.0.0.1"), 1), MARK)
    lacking = refusal(request, errno.ENOENT, "the root")
    assert isinstance(lacking, UnsupportedByKernel)
    assert "modprobe nft_tproxy" in lacking.hint


@pytest.mark.fresh_netns
def test_an_address_that_cannot_be_listened_at_is_refused() -> None:
    with pytest.raises(KernelError, match="listen at ff02::1"):
        tproxy.listeners(ip_address("ff02::1"), 1)
