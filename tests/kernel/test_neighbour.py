"""Neighbours of links, read back from the kernel."""

import errno
import json
import shutil
import subprocess
from ipaddress import IPv4Address, IPv6Address

import pytest

from netwarren.errors import AddressError, KernelError
from netwarren.kernel.link import add_bridge
from netwarren.kernel.neighbour import Neighbour, add_neighbour, delete_neighbour, neighbours
from netwarren.kernel.netlink import Netlink

FOUR = IPv4Address("10.0.2.3")
SIX = IPv6Address("fd00::3")
MAC = "02:00:0a:00:02:03"


def test_requests_say_what_they_do() -> None:
    assert add_neighbour(2, FOUR, MAC).doing == f"add neighbour 10.0.2.3 lladdr {MAC} dev 2"
    assert add_neighbour(2, SIX, MAC, replace=True).doing == f"replace neighbour fd00::3 lladdr {MAC} dev 2"
    assert delete_neighbour(2, SIX).doing == "delete neighbour fd00::3 dev 2"


def test_a_mac_address_that_is_none_is_refused() -> None:
    with pytest.raises(AddressError, match="is no MAC address"):
        add_neighbour(2, FOUR, "nonsense")


def test_a_neighbour_reads_like_ip_neighbour() -> None:
    assert str(Neighbour(2, FOUR, MAC, "permanent")) == f"10.0.2.3 dev 2 lladdr {MAC} permanent"
    assert str(Neighbour(2, SIX, "", "incomplete")) == "fd00::3 dev 2 incomplete"


@pytest.mark.fresh_netns
def test_neighbours_of_both_families_read_back_as_they_were_asked_for() -> None:
    with Netlink("pod") as pod:
        pod.commit(
            [
                add_bridge("br0", 2),
                add_neighbour(2, FOUR, MAC),
                add_neighbour(2, IPv4Address("10.0.2.4"), MAC, permanent=False),
                add_neighbour(2, SIX, MAC),
            ]
        )
        found = neighbours(pod)
        assert sorted(found[:2]) == [
            Neighbour(2, FOUR, MAC, "permanent"),
            Neighbour(2, IPv4Address("10.0.2.4"), MAC, "reachable"),
        ]
        assert found[2:] == [Neighbour(2, SIX, MAC, "permanent")]


@pytest.mark.fresh_netns
def test_adding_twice_is_refused_and_replacing_is_not() -> None:
    other = "02:00:00:00:00:99"
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2), add_neighbour(2, FOUR, MAC)])
        with pytest.raises(KernelError, match=r"add neighbour 10\.0\.2\.3 lladdr .* in pod: EEXIST"):
            pod.commit([add_neighbour(2, FOUR, other)])
        pod.commit([add_neighbour(2, FOUR, other, replace=True)])
        assert neighbours(pod) == [Neighbour(2, FOUR, other, "permanent")]


@pytest.mark.fresh_netns
def test_a_deleted_neighbour_is_gone_and_deleting_an_unknown_one_says_so() -> None:
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2), add_neighbour(2, FOUR, MAC), delete_neighbour(2, FOUR)])
        assert [found for found in neighbours(pod) if found.state == "permanent"] == []
        with pytest.raises(KernelError, match=r"delete neighbour 10\.9\.9\.9 dev 2 in pod") as caught:
            pod.commit([delete_neighbour(2, IPv4Address("10.9.9.9"))])
        assert caught.value.errno == errno.ENOENT


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ip_neighbour_agrees_with_us() -> None:
    with Netlink("pod") as pod:
        pod.commit([add_bridge("br0", 2), add_neighbour(2, FOUR, MAC), add_neighbour(2, SIX, MAC)])
        said = json.loads(subprocess.check_output(["ip", "-j", "neighbour"]))
        theirs = {(entry["dst"], entry["dev"], entry["lladdr"], *entry["state"]) for entry in said}
        assert theirs == {(str(n.address), "br0", n.mac, n.state.upper()) for n in neighbours(pod)}
