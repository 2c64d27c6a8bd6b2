"""IP addresses on links, read back from the kernel."""

import json
import shutil
import socket
import subprocess
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address

import pytest

from netwarren.errors import AddressError, KernelError
from netwarren.kernel.address import Address, add_address, addresses, delete_address
from netwarren.kernel.link import add_bridge, set_link
from netwarren.kernel.netlink import Netlink, NetlinkFormatError
from netwarren.kernel.route import routes

FOUR = IPv4Interface("10.0.2.3/24")
SIX = IPv6Interface("fd00::3/64")


def ours(opened: Netlink, index: int) -> list[Address]:
    """Without the link-local addresses the kernel makes by itself."""
    return [found for found in addresses(opened, index=index) if found.scope != "link"]


def test_requests_say_what_they_do() -> None:
    assert add_address(2, FOUR).doing == "add address 10.0.2.3/24 dev 2"
    assert add_address(2, SIX).doing == "add address fd00::3/64 dev 2"
    assert delete_address(2, FOUR).doing == "delete address 10.0.2.3/24 dev 2"


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(AddressError, match="'town' is no scope; there are: global, site, link"):
        add_address(2, FOUR, scope="town")


def test_an_absurd_index_is_refused() -> None:
    with pytest.raises(NetlinkFormatError, match="does not fit"):
        add_address(-1, FOUR)


@pytest.mark.fresh_netns
def test_addresses_of_both_families_read_back_as_they_were_asked_for() -> None:
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2), add_address(2, FOUR), add_address(2, SIX)])
        four, six = ours(pod, 2)
        assert (four.index, four.interface, four.scope, four.peer) == (2, FOUR, "global", None)
        assert (four.label, four.prefix_route) == ("br0", True)
        assert (six.index, six.interface, six.scope, six.peer) == (2, SIX, "global", None)
        assert str(four) == "inet 10.0.2.3/24 scope global dev 2"
        assert str(six) == "inet6 fd00::3/64 scope global dev 2"


@pytest.mark.fresh_netns
def test_an_ipv6_address_is_usable_at_once() -> None:
    with Netlink("pod") as pod:
        pod.commit([set_link(1, up=True), add_bridge("br0", 2), add_address(2, SIX)])
        (six,) = ours(pod, 2)
        assert (six.tentative, six.duplicate) == (False, False)
        with socket.socket(socket.AF_INET6) as server:
            server.bind(("fd00::3", 0))


@pytest.mark.fresh_netns
def test_an_address_without_a_prefix_route_brings_no_route() -> None:
    with Netlink("pod") as pod:
        pod.commit(
            [
                add_bridge("br0", 2),
                add_address(2, FOUR, prefix_route=False),
                add_address(2, SIX, prefix_route=False),
            ]
        )
        assert [found.prefix_route for found in ours(pod, 2)] == [False, False]
        assert [found for found in routes(pod) if found.destination in (FOUR.network, SIX.network)] == []


@pytest.mark.fresh_netns
def test_a_loopback_address_has_the_scope_of_the_host_and_any_other_can_be_given() -> None:
    with Netlink("pod") as pod:
        pod.commit(
            [
                add_address(1, IPv4Interface("127.0.0.5/8")),
                add_address(1, IPv4Interface("10.0.0.1/32"), scope="host"),
                add_address(1, IPv4Interface("10.0.0.2/32"), scope="link"),
            ]
        )
        assert [(str(found.interface.ip), found.scope) for found in addresses(pod)] == [
            ("127.0.0.5", "host"),
            ("10.0.0.1", "host"),
            ("10.0.0.2", "link"),
        ]


@pytest.mark.fresh_netns
def test_a_deleted_address_is_gone_and_deleting_it_again_says_so() -> None:
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2), add_address(2, FOUR), add_address(2, SIX)])
        pod.commit([delete_address(2, FOUR), delete_address(2, SIX)])
        assert ours(pod, 2) == []
        with pytest.raises(KernelError, match=r"delete address 10\.0\.2\.3/24 dev 2 in pod: EADDRNOTAVAIL"):
            pod.commit([delete_address(2, FOUR)])


@pytest.mark.fresh_netns
def test_a_tentative_address_says_so() -> None:
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2)])
        made = Address(2, SIX, "global", 0x40, "", ip_address("fd00::9"))
        assert made.tentative
        assert str(made) == "inet6 fd00::3/64 peer fd00::9 scope global dev 2 tentative"
        assert isinstance(made.peer, IPv6Address)


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ip_address_agrees_with_us() -> None:
    with Netlink("pod") as pod:
        pod.commit(
            [
                set_link(1, up=True),
                add_bridge("br0", 2),
                add_address(2, FOUR),
                add_address(2, SIX, prefix_route=False),
                add_address(2, IPv4Interface("10.9.9.9/32"), scope="link"),
            ]
        )
        said = json.loads(subprocess.check_output(["ip", "-j", "address"]))
        theirs = {
            (entry["ifindex"], f"{a['local']}/{a['prefixlen']}", a["scope"], a.get("noprefixroute", False))
            for entry in said
            for a in entry["addr_info"]
        }
        assert theirs == {(a.index, str(a.interface), a.scope, not a.prefix_route) for a in addresses(pod)}
