"""Who gets which address, and which node which part of the pod range."""

import re
import time
import tracemalloc
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from netwarren.errors import AddressError, AddressTaken, RangeExhausted
from netwarren.topology.addresses import Address
from netwarren.topology.pools import AddressPool, RangePool, usual_reservations


def addresses(network: str) -> AddressPool:
    return AddressPool(ip_network(network))


def ranges(network: str, prefix: int) -> RangePool:
    return RangePool(ip_network(network), prefix)


# --- addresses ------------------------------------------------------------------------------------


def test_the_lowest_free_address_comes_first() -> None:
    pool = addresses("10.0.1.0/24")
    assert [str(pool.take(owner="x")) for _ in range(3)] == ["10.0.1.2", "10.0.1.3", "10.0.1.4"]


def test_an_address_given_back_comes_next() -> None:
    pool = addresses("10.0.1.0/24")
    taken = [pool.take(owner="x") for _ in range(5)]
    pool.give_back(taken[3])
    pool.give_back(taken[1])
    assert [pool.take(owner="x") for _ in range(3)] == [taken[1], taken[3], taken[4] + 1]


def test_an_address_asked_for_is_handed_out_and_passed_over() -> None:
    pool = addresses("10.0.1.0/24")
    assert pool.take(ip_address("10.0.1.3"), owner="x") == ip_address("10.0.1.3")
    assert [str(pool.take(owner="x")) for _ in range(2)] == ["10.0.1.2", "10.0.1.4"]


def test_an_address_taken_is_refused_with_its_owner() -> None:
    pool = addresses("10.0.1.0/24")
    wanted = pool.take(owner="pod web")
    with pytest.raises(AddressTaken, match=r"10\.0\.1\.2 is taken by pod web") as refusal:
        pool.take(wanted, owner="pod other")
    assert (refusal.value.wanted, refusal.value.owner) == (wanted, "pod web")
    assert pool.taken == {wanted: "pod web"}


@pytest.mark.parametrize(
    ("network", "wanted", "why"),
    [
        ("10.0.1.0/24", "10.0.1.0", "is the address of the network itself in 10.0.1.0/24"),
        ("10.0.1.0/24", "10.0.1.1", "is the gateway in 10.0.1.0/24; ask for one from 10.0.1.2 to 10.0.1.254"),
        ("10.0.1.0/24", "10.0.1.255", "is the broadcast address"),
        ("10.0.1.0/24", "10.0.2.5", "is outside 10.0.1.0/24; ask for one from 10.0.1.2 to 10.0.1.254"),
        ("10.0.1.0/24", "10.0.0.255", "is outside"),
        ("10.0.1.0/24", "fd00::5", "is outside"),
        ("fd00::/64", "fd00::", "is the address of the network itself"),
        ("fd00::/64", "fd00::1", "ask for one from fd00::2 to fd00::ffff:ffff:ffff:ffff, or for none at all"),
        ("fd00::/64", "10.0.1.5", "is outside"),
    ],
)
def test_an_address_nobody_gets_is_refused_with_what_would_do(network: str, wanted: str, why: str) -> None:
    pool = addresses(network)
    with pytest.raises(AddressError, match=re.escape(why)):
        pool.take(ip_address(wanted), owner="x")
    assert pool.taken == {}


def test_a_full_pool_says_how_full_and_what_to_do() -> None:
    pool = AddressPool(ip_network("10.0.1.0/29"), what="pod address", remedy="remove a pod")
    taken = [pool.take(owner="x") for _ in range(5)]
    for _ in range(2):
        with pytest.raises(
            RangeExhausted, match=r"no pod address is left in 10.0.1.0/29: all 5 .*; remove a pod"
        ):
            pool.take(owner="x")
    pool.give_back(taken[2])
    assert pool.take(owner="x") == taken[2]


def test_reserved_addresses_may_be_chosen() -> None:
    network = ip_network("10.0.1.0/29")
    reserved = {**usual_reservations(network, "the router"), ip_address("10.0.1.3"): "the resolver"}
    pool = AddressPool(network, reserved, what="pod address", where="the pod range of node-a")
    assert [str(pool.take(owner="x")) for _ in range(2)] == ["10.0.1.2", "10.0.1.4"]
    with pytest.raises(
        AddressError, match=r"10\.0\.1\.3 is the resolver in 10\.0\.1\.0/29, the pod range of node-a"
    ):
        pool.take(ip_address("10.0.1.3"), owner="x")


def test_giving_back_what_nobody_has_does_nothing() -> None:
    pool = addresses("10.0.1.0/24")
    first = pool.take(owner="x")
    for address in (first, first, ip_address("10.0.1.77"), ip_address("10.0.1.1")):
        pool.give_back(address)
    assert [str(pool.take(owner="x")) for _ in range(2)] == ["10.0.1.2", "10.0.1.3"]


def test_an_address_is_handed_out_without_the_zone_it_was_asked_for_with() -> None:
    assert str(addresses("fd00::/64").take(ip_address("fd00::5%eth0"), owner="x")) == "fd00::5"


def test_a_pool_of_ipv6_lists_nothing_in_advance() -> None:
    tracemalloc.start()
    try:
        pool = addresses("fd00::/8")
        assert pool.take(owner="x") == ip_address("fd00::2")
        assert pool.take(ip_address("fdff:ffff::1"), owner="x") == ip_address("fdff:ffff::1")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_taking_and_giving_back_one_address_for_ever_keeps_a_pool_small() -> None:
    pool = addresses("10.0.1.0/24")
    wanted = pool.take(owner="x")
    for _ in range(1000):
        pool.give_back(wanted)
        pool.take(wanted, owner="x")
    assert len(pool._numbers._returned) == 1


def test_a_pool_of_many_stays_fast() -> None:
    pool = addresses("10.0.0.0/8")
    started = time.process_time()
    taken = [pool.take(owner="x") for _ in range(20_000)]
    for address in taken[::2]:
        pool.give_back(address)
    assert [pool.take(owner="x") for _ in range(10_000)] == taken[::2]
    assert time.process_time() - started < 2  # 0.05 s here; minutes if it were quadratic


def test_repr_shows_how_many_are_taken() -> None:
    pool, cut = addresses("10.0.1.0/24"), ranges("10.0.0.0/14", 24)
    pool.take(owner="x")
    assert repr(pool) == "<AddressPool 10.0.1.0/24: 1 taken>"
    assert repr(cut) == "<RangePool 10.0.0.0/14 by /24: 0 taken>"


class AnyHistoryOfAPool(RuleBasedStateMachine):
    """Against the obvious implementation: a dict, and the smallest of all that are not in it."""

    @initialize(network=st.sampled_from(["10.0.1.0/29", "10.0.0.0/28", "fd00::/125"]))
    def start(self, network: str) -> None:
        self.network = ip_network(network)
        reserved = usual_reservations(self.network, "the gateway")
        self.usable = [address for address in self.network if address not in reserved]
        self.pool = AddressPool(self.network)
        self.expected: dict[Address, str] = {}
        self.count = 0

    def owner(self) -> str:
        self.count += 1
        return f"pod {self.count}"

    @rule()
    def take(self) -> None:
        free = [address for address in self.usable if address not in self.expected]
        owner = self.owner()
        if free:
            assert self.pool.take(owner=owner) == min(free)
            self.expected[min(free)] = owner
        else:
            with pytest.raises(RangeExhausted):
                self.pool.take(owner=owner)

    @rule(number=st.integers(-1, 16))
    def ask_for(self, number: int) -> None:
        wanted = self.network.network_address + number
        owner = self.owner()
        if wanted in self.usable and wanted not in self.expected:
            assert self.pool.take(wanted, owner=owner) == wanted
            self.expected[wanted] = owner
        else:
            with pytest.raises(AddressError):
                self.pool.take(wanted, owner=owner)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.expected)))
        self.pool.give_back(address)
        del self.expected[address]

    @invariant()
    def everybody_has_what_they_got(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.taken == self.expected


TestAnyHistoryOfAPool = AnyHistoryOfAPool.TestCase
TestAnyHistoryOfAPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- per-node ranges ------------------------------------------------------------------------------


def test_the_second_range_is_the_first_to_be_handed_out() -> None:
    pool = ranges("10.0.0.0/14", 24)
    assert [str(pool.take(owner="x")) for _ in range(3)] == ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    pool = ranges("fd00:10::/48", 64)
    assert [str(pool.take(owner="x")) for _ in range(2)] == ["fd00:10:0:1::/64", "fd00:10:0:2::/64"]


def test_the_first_range_is_handed_out_on_request_only() -> None:
    pool = ranges("10.0.0.0/22", 24)
    first = ip_network("10.0.0.0/24")
    assert pool.take(first, owner="x") == first
    pool.give_back(first)
    assert [str(pool.take(owner="x")) for _ in range(3)] == ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    with pytest.raises(RangeExhausted):
        pool.take(owner="x")


def test_a_range_given_back_comes_next() -> None:
    pool = ranges("10.0.0.0/14", 24)
    taken = [pool.take(owner="x") for _ in range(3)]
    pool.give_back(taken[1])
    assert [pool.take(owner="x"), str(pool.take(owner="x"))] == [taken[1], "10.0.4.0/24"]
    assert list(pool.taken) == [*taken, ip_network("10.0.4.0/24")]


def test_a_range_asked_for_is_passed_over() -> None:
    pool = ranges("10.0.0.0/14", 24)
    pool.take(ip_network("10.0.2.0/24"), owner="x")
    assert [str(pool.take(owner="x")) for _ in range(2)] == ["10.0.1.0/24", "10.0.3.0/24"]


def test_a_range_taken_is_refused_with_its_owner() -> None:
    pool = ranges("10.0.0.0/14", 24)
    taken = pool.take(owner="node node-a")
    with pytest.raises(AddressTaken, match=r"per-node pod range 10\.0\.1\.0/24 is taken by node node-a"):
        pool.take(taken, owner="node node-b")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            "10.4.0.0/24",
            "10.4.0.0/24 is outside 10.0.0.0/14, the pod range of the cluster; ask for a /24 inside",
        ),
        ("10.0.0.0/8", "is outside"),
        ("fd00::/24", "is outside"),
        ("10.0.0.0/14", "is a /14, and this cluster gives each node a /24; ask for 10.0.0.0/24, or"),
        ("10.0.5.128/25", "is a /25, and this cluster gives each node a /24; ask for 10.0.5.0/24, or"),
        ("10.0.4.0/23", "ask for 10.0.4.0/24, or make the cluster with that prefix"),
    ],
)
def test_a_range_nobody_gets_is_refused_with_what_would_do(wanted: str, why: str) -> None:
    pool = ranges("10.0.0.0/14", 24)
    with pytest.raises(AddressError, match=re.escape(why)):
        pool.take(ip_network(wanted), owner="x")
    assert pool.taken == {}


def test_a_thousand_nodes_fit_the_default_pod_range() -> None:
    pool = ranges("10.0.0.0/14", 24)
    taken = [pool.take(owner="x") for _ in range(1023)]
    assert str(taken[-1]) == "10.3.255.0/24"
    assert len(set(taken)) == 1023
    with pytest.raises(
        RangeExhausted, match=r"no per-node pod range is left in 10\.0\.0\.0/14: all 1023 are taken"
    ):
        pool.take(owner="x")


def test_ranges_never_overlap() -> None:
    pool = ranges("10.0.0.0/24", 28)
    taken = [pool.take(owner="x") for _ in range(15)]
    assert all(not a.overlaps(b) for a in taken for b in taken if a is not b)
    assert all(a.subnet_of(ip_network("10.0.0.0/24")) for a in taken)  # type: ignore[arg-type]
    assert isinstance(taken[0].network_address, IPv4Address)
