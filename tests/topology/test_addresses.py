"""What users may write for families, addresses and ranges."""

import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netwarren.errors import AddressError, ConfigurationError
from netwarren.topology.addresses import (
    address_at,
    addresses_by_family,
    default_network,
    host_network,
    interface_of,
    network_at,
    networks_by_family,
    parse_address,
    parse_families,
    parse_family,
    parse_network,
)


@pytest.mark.parametrize(
    ("written", "families"),
    [
        ("ipv4", (4,)),
        ("ipv6", (6,)),
        (4, (4,)),
        (6, (6,)),
        (socket.AF_INET, (4,)),
        (socket.AF_INET6, (6,)),
        ("dual", (4, 6)),
        (("ipv6", "ipv4"), (6, 4)),
        ([6, socket.AF_INET], (6, 4)),
        ((4,), (4,)),
    ],
)
def test_families_may_be_written_as_one_likes(written: Any, families: tuple[int, ...]) -> None:
    result = parse_families(written)
    assert result == families
    assert all(type(family) is int for family in result)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("ipv5", "'ipv5' is not an address family"),
        (5, "5 is not"),
        (True, "True is not"),
        (("ipv4", None), "None is not"),
        (([4], 6), r"\[4\] is not"),
        (("dual",), "'dual' is not"),
        ((), "names no address family"),
        ((4, "ipv4"), "names a family twice"),
        ({4, 6}, "neither a family, nor a tuple"),
        (None, "neither a family, nor a tuple"),
    ],
)
def test_other_families_are_refused_with_what_would_do(written: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_families(written)


def test_one_family_may_be_written_as_one_likes() -> None:
    assert [parse_family(value) for value in ("ipv4", socket.AF_INET6, 6)] == [4, 6, 6]


@pytest.mark.parametrize("written", ["10.0.1", "10.0.1.256", "web", "", "10.0.1.0/24"])
def test_what_is_not_an_address_is_refused(written: str) -> None:
    with pytest.raises(AddressError, match="is not an address; write it like"):
        parse_address(written)


@pytest.mark.parametrize("written", ["10.0.1", "web", "", "10.0.0.0/33", "fd00::/129"])
def test_what_is_not_a_range_is_refused(written: str) -> None:
    with pytest.raises(AddressError, match="is not a range; write it like"):
        parse_network(written)


def test_a_range_with_host_bits_is_refused_with_the_range_that_was_meant() -> None:
    with pytest.raises(
        AddressError, match=r"10\.0\.1\.0/14 is inside a range, not one; the range is 10\.0\.0\.0/14"
    ):
        parse_network("10.0.1.0/14")


def test_requests_are_sorted_by_family() -> None:
    v4, v6 = ip_address("10.0.1.5"), ip_address("fd00::5")
    assert addresses_by_family(None, (4, 6)) == {}
    assert addresses_by_family("10.0.1.5", (4, 6)) == {4: v4}
    assert addresses_by_family(v6, (4, 6)) == {6: v6}
    assert addresses_by_family((v6, "10.0.1.5"), (4, 6)) == {4: v4, 6: v6}
    network = ip_network("10.0.1.0/24")
    assert networks_by_family(network, (4,)) == {4: network}
    assert networks_by_family(["10.0.1.0/24"], (4,)) == {4: network}


def test_a_request_for_a_family_the_cluster_lacks_is_refused() -> None:
    with pytest.raises(AddressError, match=r"fd00::5 is IPv6, which this cluster does not have.*'ipv6'"):
        addresses_by_family("fd00::5", (4,))


def test_two_requests_for_one_family_are_refused() -> None:
    with pytest.raises(AddressError, match=r"10\.0\.1\.5 and 10\.0\.1\.6 are both IPv4"):
        addresses_by_family(("10.0.1.5", "10.0.1.6"), (4,))


def test_addresses_and_ranges_are_computed_in_both_families() -> None:
    v4, v6 = ip_network("10.0.0.0/14"), ip_network("fd00:10::/48")
    assert str(address_at(v4, 258)) == "10.0.1.2"
    assert str(address_at(v6, 1 << 64)) == "fd00:10:0:1::"
    assert str(network_at(v4, 256, 24)) == "10.0.1.0/24"
    assert str(network_at(v6, 1 << 64, 64)) == "fd00:10:0:1::/64"
    assert str(interface_of(ip_address("10.0.1.2"), 24)) == "10.0.1.2/24"
    assert str(interface_of(ip_address("fd00::2"), 64)) == "fd00::2/64"
    assert str(host_network(ip_address("10.0.1.2"))) == "10.0.1.2/32"
    assert str(host_network(ip_address("fd00::2"))) == "fd00::2/128"
    assert [str(default_network(4)), str(default_network(6))] == ["0.0.0.0/0", "::/0"]
