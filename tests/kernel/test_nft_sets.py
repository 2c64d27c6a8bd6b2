"""Sets and maps of nftables written, filled by packets, and read back; in a namespace of their own."""

import errno
import socket
from ipaddress import ip_address

import pytest

from netwarren.errors import KernelError
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel import nft_sets, nftables
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkFormatError, Request
from netwarren.kernel.nft_wire import UnknownWord

ADDRESSES = {"ip": "127.0.0.1", "ip6": "::1"}
EVERY_FAMILY = pytest.mark.parametrize("family", ADDRESSES)


def key(family: str, port: int = 80, protocol: str = "tcp") -> bytes:
    return nft_sets.destination_key(ip_address(ADDRESSES[family]), protocol, port)


@EVERY_FAMILY
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_key_is_read_as_what_it_was_made_of(family: str, protocol: str) -> None:
    made = key(family, 65535, protocol)
    assert nft_sets.parse_destination_key(made) == (ip_address(ADDRESSES[family]), protocol, 65535)
    assert len(made) % 4 == 0


@pytest.mark.parametrize("size", [0, 8, 11, 13, 23, 25])
def test_a_key_of_a_strange_size_is_refused(size: int) -> None:
    with pytest.raises(NetlinkFormatError, match=f"a key of {size} bytes"):
        nft_sets.parse_destination_key(bytes(size))


def test_a_port_or_a_family_that_there_is_not_is_refused() -> None:
    with pytest.raises(NetlinkFormatError, match="no port"):
        key("ip", 65536)
    with pytest.raises(UnknownWord, match="no family with addresses"):
        nft_sets.add_destination_map("inet", "t", "m")


def mapping(family: str) -> list[Request]:
    return [
        nftables.add_table(family, "t"),
        nft_sets.add_destination_map(family, "t", "m"),
        nftables.add_chain(family, "t", "there"),
        nft_sets.add_verdict(family, "t", "m", key(family), "there"),
        nft_sets.add_verdict(family, "t", "m", key(family, 81), ""),
    ]


@pytest.mark.fresh_netns
@EVERY_FAMILY
def test_a_map_and_its_verdicts_are_read_back(family: str) -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, mapping(family))
        assert nft_sets.sets(netlink) == [(family, "t", "m", True, 0)]
        found = {each.key: each.verdict for each in nft_sets.elements(netlink, family, "t", "m")}
        assert found == {key(family): "goto there", key(family, 81): "drop"}


@pytest.mark.fresh_netns
def test_an_element_is_replaced_by_taking_it_away_and_adding_it_in_one_batch() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, mapping("ip"))
        with pytest.raises(KernelError, match="add element ip t m") as caught:
            nftables.commit(netlink, [nft_sets.add_verdict("ip", "t", "m", key("ip", 81), "there")])
        assert caught.value.errno in (errno.EEXIST, errno.EBUSY)
        nftables.commit(
            netlink,
            [
                nft_sets.delete_element("ip", "t", "m", key("ip", 81)),
                nft_sets.add_verdict("ip", "t", "m", key("ip", 81), "there"),
                nft_sets.delete_element("ip", "t", "m", key("ip")),
            ],
        )
        assert nft_sets.elements(netlink, "ip", "t", "m") == [(key("ip", 81), "goto there", 0)]


@pytest.mark.fresh_netns
def test_a_chain_that_a_map_goes_to_is_deleted_only_with_the_element() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, mapping("ip"))
        away = nftables.delete_chain("ip", "t", "there")
        with pytest.raises(KernelError, match="delete chain ip t there in pod: EBUSY"):
            nftables.commit(netlink, [away])
        nftables.commit(netlink, [nft_sets.delete_element("ip", "t", "m", key("ip")), away])
        assert nftables.chains(netlink) == []


@pytest.mark.fresh_netns
def test_a_flushed_chain_stays_and_is_empty() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        rule = nftables.add_rule("ip", "t", "there", nft.match_protocol("udp"))
        nftables.commit(netlink, [*mapping("ip"), rule])
        assert len(nftables.rules(netlink)) == 1
        nftables.commit(netlink, [nftables.flush_chain("ip", "t", "there")])
        assert nftables.rules(netlink) == []
        assert [chain.name for chain in nftables.chains(netlink)] == ["there"]


@pytest.mark.fresh_netns
@EVERY_FAMILY
def test_packets_fill_a_set_whose_elements_expire_and_are_matched_meanwhile(family: str) -> None:
    version = 4 if family == "ip" else 6
    with Netlink("pod") as route, Netlink("pod", NETLINK_NETFILTER) as netlink:
        route.commit([set_link(1, up=True)])
        requests = [
            nftables.add_table(family, "t"),
            nft_sets.add_address_set(family, "t", "seen", 300),
            nft_sets.add_address_set(family, "t", "again", 5.5),
            nftables.add_base_chain(family, "t", "out", hook="output"),
            nftables.add_rule(
                family,
                "t",
                "out",
                [*nft.match_source_in(version, "seen"), *nft.update_source(version, "again", 5.5)],
            ),
            nftables.add_rule(family, "t", "out", nft.update_source(version, "seen", 60)),
        ]
        nftables.commit(netlink, requests)
        assert [(each.name, each.map, each.timeout) for each in nft_sets.sets(netlink)] == [
            ("seen", False, 300),
            ("again", False, 5.5),
        ]
        address = ip_address(ADDRESSES[family])
        kind = socket.AF_INET if version == 4 else socket.AF_INET6
        with (
            socket.socket(kind, socket.SOCK_DGRAM) as sender,
            socket.socket(kind, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.bind((str(address), 9))  # or else the refusal would be a second packet
            sender.sendto(b"", (str(address), 9))
            (element,) = nft_sets.elements(netlink, family, "t", "seen")
            assert element.key == address.packed
            assert 50 < element.expires <= 60
            assert nft_sets.elements(netlink, family, "t", "again") == []
            sender.sendto(b"", (str(address), 9))
            (element,) = nft_sets.elements(netlink, family, "t", "again")
            assert 0 < element.expires <= 5.5


@pytest.mark.fresh_netns
def test_a_set_is_deleted_once_no_rule_speaks_of_it() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(
            netlink,
            [
                nftables.add_table("ip", "t"),
                nft_sets.add_address_set("ip", "t", "seen", 1),
                nftables.add_chain("ip", "t", "c"),
                nftables.add_rule("ip", "t", "c", nft.match_source_in(4, "seen")),
            ],
        )
        away = nft_sets.delete_set("ip", "t", "seen")
        with pytest.raises(KernelError, match="delete set ip t seen in pod: EBUSY"):
            nftables.commit(netlink, [away])
        nftables.commit(netlink, [nftables.flush_chain("ip", "t", "c"), away])
        assert nft_sets.sets(netlink) == []
