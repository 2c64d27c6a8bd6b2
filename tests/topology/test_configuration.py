"""Ranges as users write them become one `Ranges` per family."""

import pytest

from netwarren.errors import AddressError, ConfigurationError
from netwarren.topology.configuration import read_ranges
from netwarren.topology.ranges import DEFAULT_RANGES, Ranges


def test_what_is_left_out_is_the_default() -> None:
    assert read_ranges((4, 6)) == (DEFAULT_RANGES[4], DEFAULT_RANGES[6])


def test_ranges_follow_the_order_of_families_not_of_arguments() -> None:
    v6, v4 = read_ranges((6, 4), ["10.8.0.0/16", "fd00:8::/48"], ["fd00:9::/64", "192.168.0.0/24"])
    assert v6 == Ranges.parse("fd00:8::/48", 64, "fd00:9::/64")
    assert v4 == Ranges.parse("10.8.0.0/16", 24, "192.168.0.0/24")


def test_a_small_pod_range_is_cut_into_sixteen() -> None:
    (ranges,) = read_ranges((4,), "10.8.0.0/24")
    assert ranges.prefix == 28


def test_the_prefix_may_be_chosen_for_one_family() -> None:
    (ranges,) = read_ranges((4,), "10.8.0.0/16", prefix=26)
    assert ranges.prefix == 26


def test_one_prefix_for_two_families_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pod_prefix=26 cannot fit both"):
        read_ranges((4, 6), prefix=26)


def test_a_range_of_a_family_the_cluster_lacks_is_refused() -> None:
    with pytest.raises(AddressError, match="fd00:8::/48 is IPv6, which this cluster does not have"):
        read_ranges((4,), "fd00:8::/48")


def test_a_pod_range_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(AddressError, match=r"10\.8\.0\.0/30"):
        read_ranges((4,), "10.8.0.0/30")
