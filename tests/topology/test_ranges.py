"""Ranges that cannot work are refused with what would do."""

import re

import pytest

from netwarren.errors import AddressError, ConfigurationError
from netwarren.topology.ranges import DEFAULT_RANGES, Ranges, choose_ranges, gateway_of


def test_the_defaults_are_ranges_that_work() -> None:
    v4, v6 = DEFAULT_RANGES[4], DEFAULT_RANGES[6]
    assert (str(v4.pods), v4.prefix, str(v4.nodes)) == ("10.0.0.0/14", 24, "172.18.0.0/16")
    assert (str(v6.pods), v6.prefix, str(v6.nodes)) == ("fd00:10::/48", 64, "fd00:172:18::/64")
    assert (v4.family, v6.family) == (4, 6)


def test_the_root_and_the_gateways_have_the_first_host_address() -> None:
    assert str(DEFAULT_RANGES[4].root) == "172.18.0.1/16"
    assert str(DEFAULT_RANGES[6].root) == "fd00:172:18::1/64"
    assert str(gateway_of(DEFAULT_RANGES[4].pods)) == "10.0.0.1"


@pytest.mark.parametrize(
    ("pods", "prefix", "nodes"),
    [
        ("10.0.0.0/16", 24, "192.168.0.0/24"),
        ("10.0.0.0/29", 30, "10.1.0.0/30"),
        ("100.64.0.0/10", 24, "198.51.100.0/24"),
        ("2001:db8::/32", 48, "fd00::/120"),
        ("fd00::/125", 126, "fd01::/126"),
    ],
)
def test_ranges_of_other_sizes_work(pods: str, prefix: int, nodes: str) -> None:
    assert str(Ranges.parse(pods, prefix, nodes).pods) == pods


@pytest.mark.parametrize(
    ("pods", "prefix", "nodes", "why"),
    [
        (
            "10.0.0.0/14",
            24,
            "10.2.0.0/16",
            "overlap; choose two apart, such as 10.0.0.0/14 and 172.18.0.0/16",
        ),
        ("10.0.0.0/14", 24, "10.0.0.0/8", "overlap"),
        ("10.0.0.0/14", 24, "fd00::/64", "are of two families; give each family"),
        ("127.0.0.0/14", 24, "172.18.0.0/16", "the pod range 127.0.0.0/14 contains loopback addresses"),
        ("10.0.0.0/14", 24, "169.254.8.0/24", "the node range 169.254.8.0/24 contains link-local addresses"),
        ("0.0.0.0/0", 24, "172.18.0.0/16", "contains unspecified addresses (0.0.0.0/8)"),
        ("192.0.0.0/2", 24, "172.18.0.0/16", "contains multicast addresses"),
        ("10.0.0.0/14", 24, "255.255.255.0/24", "contains the broadcast address"),
        ("fe80::/48", 64, "fd00::/64", "contains link-local addresses (fe80::/10); choose a private range"),
        ("ff05::/48", 64, "fd00::/64", "contains multicast addresses"),
        ("::/48", 64, "fd00::/64", "contains the unspecified address"),
        ("fd00:10::/48", 64, "::1/128", "contains the loopback address"),
        ("::ffff:10.0.0.0/112", 120, "fd00::/64", "contains IPv4 addresses in IPv6 form"),
        ("10.0.0.0/14", 14, "172.18.0.0/16", "cuts no two ranges out of 10.0.0.0/14"),
        ("10.0.0.0/14", 8, "172.18.0.0/16", "from /15 to /30 would do"),
        ("10.0.0.0/14", 31, "172.18.0.0/16", "leaves pods no address beside the gateway; from /15 to /30"),
        ("10.0.0.0/30", 30, "172.18.0.0/16", "a pod range of /29 or wider would do"),
        ("fd00:10::/48", 127, "fd00::/64", "from /49 to /126 would do"),
        ("10.0.0.0/14", 24, "172.18.0.0/31", "no room for a node beside the root; /30 or wider would do"),
        ("fd00:10::/48", 64, "fd00::/127", "no room for a node beside the root; /126 or wider would do"),
    ],
)
def test_ranges_that_cannot_work_are_refused(pods: str, prefix: int, nodes: str, why: str) -> None:
    with pytest.raises(AddressError, match=re.escape(why)):
        Ranges.parse(pods, prefix, nodes)


def test_given_ranges_replace_the_defaults_of_their_family() -> None:
    mine = Ranges.parse("10.0.0.0/16", 25, "192.168.0.0/24")
    assert choose_ranges((6, 4), [mine]) == (DEFAULT_RANGES[6], mine)
    assert choose_ranges((4,), []) == (DEFAULT_RANGES[4],)


def test_ranges_for_a_family_the_cluster_lacks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ranges were given for IPv6 .* add 'ipv6' to its families"):
        choose_ranges((4,), [DEFAULT_RANGES[6]])


def test_two_ranges_for_one_family_are_refused() -> None:
    mine = Ranges.parse("10.0.0.0/16", 25, "192.168.0.0/24")
    with pytest.raises(ConfigurationError, match="IPv4 was given two pod ranges"):
        choose_ranges((4,), [mine, DEFAULT_RANGES[4]])
