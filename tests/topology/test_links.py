"""Names, MACs and link-local addresses of links follow from an index or an address."""

from ipaddress import ip_interface

import pytest

from netwarren.topology.links import FIRST_INDEX, eth0_mac, link_local, veth_mac, veth_name


def test_link_names_stay_within_what_the_kernel_takes() -> None:
    assert veth_name(1001) == "veth1001"
    assert len(veth_name(2**31 - 1)) <= 15


def test_our_indexes_stay_clear_of_those_the_kernel_gives_by_itself() -> None:
    assert FIRST_INDEX > 100


@pytest.mark.parametrize(
    ("interfaces", "mac"),
    [
        (["10.0.1.2/24"], "0a:58:0a:00:01:02"),
        (["172.18.0.2/16", "fd00:172:18::2/64"], "0a:58:ac:12:00:02"),
        (["fd00:172:18::2/64", "172.18.0.2/16"], "0a:58:ac:12:00:02"),
        (["fd00:10:0:1::2/64"], "0a:58:00:00:00:02"),
        (["fd00:10:0:1::1234:5678/64"], "0a:58:12:34:56:78"),
        (["fd00:10::ab12:5602/120"], "0a:58:ab:12:56:02"),
        (["fd00:10:0:1:1::2/64"], "0a:5a:00:00:03:e9"),
    ],
)
def test_the_mac_of_eth0_follows_from_its_address(interfaces: list[str], mac: str) -> None:
    assert eth0_mac([ip_interface(each) for each in interfaces], 1001) == mac


def test_macs_are_locally_administered_and_of_one_station() -> None:
    for mac in (veth_mac(1001), eth0_mac([ip_interface("10.0.1.2/24")], 1001)):
        assert int(mac[:2], 16) & 0b11 == 0b10


def test_the_two_ends_of_a_link_never_have_one_mac() -> None:
    # 0.0.3.233 is the address whose bytes are those of index 1001.
    assert veth_mac(1001) == "0a:59:00:00:03:e9"
    assert eth0_mac([ip_interface("10.0.3.233/24")], 1001) != veth_mac(1001)


def test_the_link_local_address_is_the_one_the_kernel_would_make() -> None:
    assert str(link_local("0a:58:0a:00:01:02")) == "fe80::858:aff:fe00:102/64"
    assert str(link_local("52:54:00:12:34:56")) == "fe80::5054:ff:fe12:3456/64"
