"""Tracked connections read and forgotten, in a namespace of their own whose rules track and translate."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from netwarren.kernel import conntrack, nftables
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkFormatError

EVERY_ADDRESS = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


def translate(netlink: Netlink, address: str) -> None:
    """Have datagrams to port 53 go to 5353."""
    family = "ip" if ip_address(address).version == 4 else "ip6"
    with Netlink("pod") as route:
        route.commit([set_link(1, up=True)])
    rule = [
        *nft.match_protocol("udp"),
        *nft.match_destination_port(53),
        *nft.dnat(ip_address(address), 5353),
    ]
    nftables.commit(
        netlink,
        [
            nftables.add_table(family, "t"),
            nftables.add_base_chain(family, "t", "out", type="nat", hook="output", priority=-100),
            nftables.add_rule(family, "t", "out", rule),
        ],
    )


def kind(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.fresh_netns
def test_a_namespace_that_tracks_nothing_has_no_connections() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        assert conntrack.count(netlink) == 0
        assert conntrack.connections(netlink) == []


@pytest.mark.fresh_netns
@EVERY_ADDRESS
def test_a_connection_shows_what_was_asked_for_and_who_answers(address: str) -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        translate(netlink, address)
        with (
            socket.socket(kind(address), socket.SOCK_DGRAM) as near,
            socket.socket(kind(address), socket.SOCK_DGRAM) as far,
        ):
            far.bind((address, 5353))
            near.connect((address, 53))
            near.send(b"")
            (found,) = conntrack.connections(netlink)
            here, port = ip_address(address), near.getsockname()[1]
            assert found[:5] == ("udp", (here, port), (here, 53), (here, 5353), (here, port))
            assert str(found) == (f"udp {here} {port} -> {here} 53, answered by {here} 5353 to {here} {port}")
            assert conntrack.count(netlink) == 1
            assert isinstance(found.source[0], IPv4Address | IPv6Address)


@pytest.mark.fresh_netns
@EVERY_ADDRESS
def test_a_forgotten_flow_is_translated_anew_and_the_others_are_not(address: str) -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        translate(netlink, address)
        server = socket.socket(kind(address), socket.SOCK_DGRAM)  # or else the flows would be refused
        server.bind((address, 5353))
        flows = [socket.socket(kind(address), socket.SOCK_DGRAM) for _ in range(2)]
        for each in flows:
            each.connect((address, 53))
            each.send(b"")
        forgotten = {flows[0].getsockname()[1]}
        found = conntrack.connections(netlink)
        conntrack.forget(netlink, [each for each in found if each.source[1] in forgotten])
        left = conntrack.connections(netlink)
        assert [each.source[1] for each in left] == [flows[1].getsockname()[1]]
        flows[0].send(b"")
        again = {each.source[1]: each for each in conntrack.connections(netlink)}
        assert set(again) == {each.getsockname()[1] for each in flows}
        assert again[flows[1].getsockname()[1]].id == left[0].id
        for each in (*flows, server):
            each.close()


@pytest.mark.fresh_netns
def test_forgetting_what_is_gone_is_no_error() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        translate(netlink, "127.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.sendto(b"", ("127.0.0.1", 53))
        found = conntrack.connections(netlink)
        conntrack.forget(netlink, found)
        conntrack.forget(netlink, found)
        assert conntrack.count(netlink) == 0


@pytest.mark.parametrize("body", [b"\x02", b"\x02\0\0\0\x05", b"\x02\0\0\0"])
def test_a_truncated_answer_is_refused(body: bytes) -> None:
    with pytest.raises(NetlinkFormatError):
        conntrack.parse_connection(body)
