"""Routes of both families, read back from the kernel."""

import errno
import json
import shutil
import subprocess
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)

import pytest

from netwarren.errors import AddressError, KernelError
from netwarren.kernel.address import add_address
from netwarren.kernel.link import add_bridge, set_link
from netwarren.kernel.netlink import Netlink, NetlinkFormatError, Request, attribute, u32
from netwarren.kernel.route import (
    NextHop,
    Route,
    add_route,
    delete_route,
    lookup,
    parse_route,
    routes,
    settle_address,
)
from netwarren.kernel.rule import add_rule

EVERYWHERE = IPv4Network("0.0.0.0/0")
EVERYWHERE6 = IPv6Network("::/0")
NODE_B = IPv4Network("10.0.3.0/24")
GATEWAY = IPv4Address("172.18.0.3")
GATEWAY6 = IPv6Address("fd18::3")

WIRED = [
    set_link(1, up=True),
    add_bridge("br0", 2),
    add_address(2, IPv4Interface("172.18.0.2/16")),
    add_address(2, IPv6Interface("fd18::2/64")),
]


def made(opened: Netlink, *, table: int | None = 254) -> list[str]:
    """What is not the kernel's own."""
    return [str(found) for found in routes(opened, table=table) if found.protocol != "kernel"]


def test_requests_say_what_they_do() -> None:
    assert add_route(NODE_B, via=GATEWAY).doing == "add route 10.0.3.0/24 via 172.18.0.3"
    assert add_route(EVERYWHERE, via=GATEWAY, index=2).doing == "add route default via 172.18.0.3"
    assert add_route(NODE_B, index=2, replace=True).doing == "replace route 10.0.3.0/24 dev 2"
    assert (
        add_route(NODE_B, kind="unreachable", table=100).doing
        == "add route unreachable 10.0.3.0/24 table 100"
    )
    assert delete_route(NODE_B, via=GATEWAY, index=2).doing == (
        "delete route 10.0.3.0/24 via 172.18.0.3 dev 2"
    )


def test_what_no_route_can_be_is_refused_with_a_reason() -> None:
    with pytest.raises(AddressError, match="'magic' is no kind of route; there are: unicast, local"):
        add_route(NODE_B, kind="magic")
    with pytest.raises(AddressError, match=r"an IPv6 route cannot go via 172\.18\.0\.3"):
        add_route(EVERYWHERE6, via=GATEWAY)
    with pytest.raises(AddressError, match="another family"):
        add_route(NODE_B, index=2, source=GATEWAY6)
    with pytest.raises(AddressError, match="is no scope"):
        add_route(NODE_B, index=2, scope="town")


def test_a_route_reads_like_ip_route() -> None:
    plain = Route(NODE_B, GATEWAY, 2, None, "global", "unicast", 254, "boot", None, False)
    assert str(plain) == "10.0.3.0/24 via 172.18.0.3 dev 2"
    assert str(plain._replace(source=IPv4Address("172.18.0.2"), metric=5, onlink=True)) == (
        "10.0.3.0/24 via 172.18.0.3 dev 2 src 172.18.0.2 metric 5 onlink"
    )
    assert str(plain._replace(destination=EVERYWHERE, table=100, protocol="static")) == (
        "default via 172.18.0.3 dev 2 table 100 proto static"
    )
    assert str(plain._replace(destination=ip_network("10.0.3.7/32"), via=None, scope="link")) == (
        "10.0.3.7 dev 2 scope link"
    )
    assert str(plain._replace(via=GATEWAY6)) == "10.0.3.0/24 via inet6 fd18::3 dev 2"
    assert str(plain._replace(kind="blackhole", via=None, index=None)) == "blackhole 10.0.3.0/24"
    assert str(
        plain._replace(via=None, index=None, nexthops=(NextHop(GATEWAY, 2, 1), NextHop(None, 3, 9)))
    ) == ("10.0.3.0/24 nexthop via 172.18.0.3 dev 2 weight 1 nexthop dev 3 weight 9")


def test_next_hops_that_lie_about_their_length_are_refused() -> None:
    header = bytes([2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0])
    for hop in (bytes(8), b"\xff\0\0\0\0\0\0\0", b"\x08\0"):
        with pytest.raises(NetlinkFormatError):
            parse_route(header + attribute(9, hop))


@pytest.mark.fresh_netns
def test_routes_of_both_families_read_back_as_they_were_asked_for() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                *WIRED,
                add_route(NODE_B, via=GATEWAY),
                add_route(IPv4Network("10.0.4.1/32"), index=2, source=IPv4Address("172.18.0.2")),
                add_route(EVERYWHERE, via=GATEWAY, index=2, metric=7),
                add_route(IPv4Network("10.0.0.0/16"), kind="unreachable"),
                add_route(IPv4Network("10.1.0.0/16"), kind="blackhole"),
                add_route(IPv4Network("10.2.0.0/16"), kind="prohibit"),
                add_route(IPv4Network("10.5.0.0/16"), via=IPv4Address("1.2.3.4"), index=2, onlink=True),
                add_route(IPv4Network("10.6.0.0/16"), via=GATEWAY6, index=2),
                add_route(IPv6Network("fd03::/64"), via=GATEWAY6),
                add_route(IPv6Network("fd04::1/128"), index=2, source=IPv6Address("fd18::2")),
                add_route(EVERYWHERE6, via=GATEWAY6, metric=7),
            ]
        )
        assert made(node) == [
            "default via 172.18.0.3 dev 2 metric 7",
            "unreachable 10.0.0.0/16",
            "10.0.3.0/24 via 172.18.0.3 dev 2",
            "10.0.4.1 dev 2 scope link src 172.18.0.2",
            "blackhole 10.1.0.0/16",
            "prohibit 10.2.0.0/16",
            "10.5.0.0/16 via 1.2.3.4 dev 2 onlink",
            "10.6.0.0/16 via inet6 fd18::3 dev 2",
            "fd03::/64 via fd18::3 dev 2 metric 1024",
            "fd04::1 dev 2 src fd18::2 metric 1024",
            "default via fd18::3 dev 2 metric 7",
        ]
        found = {found.destination: found for found in routes(node)}
        assert found[NODE_B] == Route(
            NODE_B, GATEWAY, 2, None, "global", "unicast", 254, "boot", None, onlink=False
        )


@pytest.mark.fresh_netns
def test_tables_are_kept_apart_whatever_their_number() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                *WIRED,
                add_route(EVERYWHERE, index=1, kind="local", table=100),
                add_route(EVERYWHERE6, index=1, kind="local", table=100),
                add_route(NODE_B, via=GATEWAY, table=100_000),
            ]
        )
        assert made(node) == []
        # As `ip route show table 100` has it, with "local default" for both.
        assert made(node, table=100) == [
            "local default dev 1 table 100 scope host",
            "local default dev 1 table 100 metric 1024",
        ]
        assert made(node, table=100_000) == ["10.0.3.0/24 via 172.18.0.3 dev 2 table 100000"]
        assert routes(node, table=4711) == []
        assert len(made(node, table=None)) == 3
        node.commit(
            [
                delete_route(EVERYWHERE, kind="local", table=100),
                delete_route(EVERYWHERE6, table=100),
                delete_route(NODE_B, via=GATEWAY, table=100_000),
            ]
        )
        assert made(node, table=None) == []


@pytest.mark.fresh_netns
def test_adding_twice_is_refused_and_replacing_is_not() -> None:
    with Netlink("node-a") as node:
        node.commit([*WIRED, add_route(NODE_B, via=GATEWAY)])
        with pytest.raises(
            KernelError, match=r"^add route 10\.0\.3\.0/24 via 172\.18\.0\.3 in node-a: EEXIST"
        ):
            node.commit([add_route(NODE_B, via=GATEWAY)])
        node.commit([add_route(NODE_B, via=IPv4Address("172.18.0.9"), replace=True)])
        assert made(node) == ["10.0.3.0/24 via 172.18.0.9 dev 2"]


@pytest.mark.fresh_netns
def test_deleting_takes_the_route_that_matches_and_says_when_there_is_none() -> None:
    with Netlink("node-a") as node:
        node.commit([*WIRED, add_route(NODE_B, via=GATEWAY, metric=1), add_route(NODE_B, index=2, metric=2)])
        node.commit([delete_route(NODE_B, metric=2)])
        assert made(node) == ["10.0.3.0/24 via 172.18.0.3 dev 2 metric 1"]
        node.commit([delete_route(NODE_B)])
        with pytest.raises(KernelError, match=r"delete route 10\.0\.3\.0/24 in node-a") as caught:
            node.commit([delete_route(NODE_B)])
        assert caught.value.errno == errno.ESRCH


@pytest.mark.fresh_netns
def test_a_route_via_a_router_nobody_can_reach_is_refused_in_the_kernels_words() -> None:
    with Netlink("node-a") as node:
        with pytest.raises(KernelError) as caught:
            node.commit([*WIRED, add_route(NODE_B, via=IPv4Address("9.9.9.9"))])
        assert str(caught.value) == (
            "add route 10.0.3.0/24 via 9.9.9.9 in node-a: ENETUNREACH (Network is unreachable): "
            "Nexthop has invalid gateway"
        )


@pytest.mark.fresh_netns
def test_a_lookup_finds_the_route_a_packet_would_take() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                *WIRED,
                add_route(NODE_B, via=GATEWAY),
                add_route(IPv4Network("10.9.0.0/16"), kind="prohibit"),
                add_route(EVERYWHERE6, via=GATEWAY6),
                add_route(NODE_B, via=IPv4Address("172.18.0.9"), table=100),
                add_rule(family=2, priority=5, fwmark=0x539, table=100),
            ]
        )
        found = lookup(node, IPv4Address("10.0.3.7"))
        assert str(found) == "10.0.3.7 via 172.18.0.3 dev 2 src 172.18.0.2"
        marked = lookup(node, IPv4Address("10.0.3.7"), mark=0x539)
        assert (marked.via, marked.table) == (IPv4Address("172.18.0.9"), 100)
        assert lookup(node, IPv4Address("10.0.3.7"), IPv4Address("172.18.0.2")).via == GATEWAY
        assert lookup(node, IPv6Address("2001:db8::1")).via == GATEWAY6
        assert lookup(node, IPv4Address("172.18.0.2")).kind == "local"
        with pytest.raises(KernelError, match=r"look up the route to 8\.8\.8\.8 in node-a: ENETUNREACH"):
            lookup(node, IPv4Address("8.8.8.8"))
        with pytest.raises(KernelError, match=r"look up the route to 10\.9\.0\.1 in node-a: EACCES"):
            lookup(node, IPv4Address("10.9.0.1"))
        with pytest.raises(AddressError, match="another family"):
            lookup(node, IPv4Address("10.9.0.1"), GATEWAY6)


@pytest.mark.fresh_netns
def test_a_settled_ipv6_address_receives_at_once_and_may_be_settled_again() -> None:
    with Netlink("node-a") as node:
        address = IPv6Address("fd18::2")
        node.commit([*WIRED, settle_address(2, address), settle_address(2, address)])
        local = [str(found) for found in routes(node, table=255) if found.protocol == "boot"]
        assert local == ["local fd18::2 dev 2 table local metric 2"]
        assert lookup(node, address).kind == "local"


@pytest.mark.fresh_netns
def test_an_ipv6_address_that_two_links_share_stays_settled_when_one_of_them_goes() -> None:
    shared = IPv6Interface("fd18::1/128")
    with Netlink("node-a") as node:
        for index in (2, 3):
            node.commit(
                [
                    add_bridge(f"br{index}", index),
                    add_address(index, shared),
                    settle_address(index, shared.ip),
                ]
            )
        node.commit([set_link(3, up=False)])
        local = [str(found) for found in routes(node, table=255) if found.protocol == "boot"]
        assert local == ["local fd18::1 dev 2 table local metric 2"]


@pytest.mark.fresh_netns
def test_a_multipath_route_somebody_else_made_is_read() -> None:
    def hop(via: str, weight: int) -> bytes:
        return bytes([16, 0, 0, weight - 1]) + u32(0, 2)[4:] + attribute(5, IPv4Address(via).packed)

    body = bytes([2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]) + attribute(1, NODE_B.network_address.packed)
    body += attribute(9, hop("172.18.0.3", 1) + hop("172.18.0.4", 3))
    with Netlink("node-a") as node:
        node.commit([*WIRED, Request(24, 0x600, body, "add a multipath route")])
        (found,) = made(node)
        assert found.startswith("10.0.3.0/24 proto static nexthop via 172.18.0.3 dev 2 weight 1 ")
        assert found.endswith(" nexthop via 172.18.0.4 dev 2 weight 3")


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ip_route_agrees_with_us() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                *WIRED,
                add_route(NODE_B, via=GATEWAY, source=IPv4Address("172.18.0.2")),
                add_route(EVERYWHERE, via=GATEWAY, metric=7),
                add_route(IPv4Network("10.0.4.1/32"), index=2),
                add_route(IPv4Network("10.0.0.0/16"), kind="unreachable"),
                add_route(EVERYWHERE, index=1, kind="local", table=100),
                add_route(IPv4Network("10.5.0.0/16"), via=IPv4Address("1.2.3.4"), index=2, onlink=True),
                add_route(EVERYWHERE6, via=GATEWAY6),
            ]
        )
        # The kernel adds its own IPv6 routes from a work queue: those two listings may differ in.
        ours = [
            str(found).replace("dev 1", "dev lo").replace("dev 2", "dev br0")
            for found in routes(node, table=None)
            if found.destination.version == 4 or found.protocol != "kernel"
        ]
        said: list[str] = []
        for family in ("-4", "-6"):
            output = subprocess.check_output(["ip", family, "route", "show", "table", "all"], text=True)
            said += [
                " ".join(line.replace("pref medium", "").replace("linkdown", "").split())
                for line in output.splitlines()
                if family == "-4" or "proto kernel" not in line
            ]
        assert said == ours
        answer = json.loads(subprocess.check_output(["ip", "-j", "route", "get", "10.0.3.7"]))[0]
        found = lookup(node, IPv4Address("10.0.3.7"))
        assert (answer["gateway"], answer["prefsrc"]) == (str(found.via), str(found.source))
