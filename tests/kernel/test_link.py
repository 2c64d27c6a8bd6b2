"""Bridges, veth pairs and their settings, read back from the kernel."""

import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Interface

import pytest

from netwarren.errors import AddressError, KernelError, NetwarrenError
from netwarren.kernel.address import add_address
from netwarren.kernel.link import (
    InvalidLinkName,
    add_bridge,
    add_veth,
    delete_link,
    link,
    links,
    mac_bytes,
    mac_text,
    set_link,
    settle_link,
)
from netwarren.kernel.netlink import Netlink, parse_attributes
from netwarren.kernel.syscall import CLONE_NEWNET, setns

NewNetns = Callable[[str], tuple[int, Netlink]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        ("a" * 16, "it is 16 bytes long"),
        ("ü" * 8, "it is 16 bytes long"),
        ("a/b", "not allowed"),
        ("a b", "not allowed"),
        ("a\n", "not allowed"),
        ("a:1", "not allowed"),
        ("eth%d", "not allowed"),
        ("a\0", "not allowed"),
        (".", "not allowed"),
        ("..", "not allowed"),
    ],
)
def test_a_name_no_link_can_have_is_refused_before_the_kernel_sees_it(name: str, why: str) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: add_bridge(name, 5),
        lambda: add_veth(name, 5, peer="eth0", peer_index=2, peer_netns=3),
        lambda: add_veth("a", 5, peer=name, peer_index=2, peer_netns=3),
        lambda: set_link(5, name=name),
    ]
    for verb in verbs:
        with pytest.raises(InvalidLinkName, match=why) as caught:
            verb()
        assert isinstance(caught.value, NetwarrenError)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["a", "a" * 15, "ü" * 7, "eth0.5", "...", "veth-1_x@y"])
def test_every_name_the_kernel_allows_is_allowed(name: str) -> None:
    assert add_bridge(name, 5).doing == f"add bridge {name}"


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "zz:00:00:00:00:01", "02:00"])
def test_a_mac_address_that_is_none_is_refused(mac: str) -> None:
    with pytest.raises(AddressError, match="is no MAC address; write six bytes"):
        add_bridge("br0", 5, mac=mac)


def test_a_mac_address_survives_a_round_trip() -> None:
    assert mac_text(mac_bytes("02:00:0a:00:02:fe")) == "02:00:0a:00:02:fe"
    assert mac_text(b"") == ""


def test_requests_say_what_they_do() -> None:
    assert add_veth("v1", 5, peer="eth0", peer_index=2, peer_netns=3).doing == "add veth v1 with peer eth0"
    assert set_link(7, up=True).doing == "set link 7 up"
    assert (
        set_link(7, up=False, name="x", master=3, mtu=1400, mac="02:00:00:00:00:01").doing
        == "set link 7 down name x master 3 mtu 1400 address 02:00:00:00:00:01"
    )
    assert set_link(7, master=0).doing == "set link 7 nomaster"
    assert delete_link(7).doing == "delete link 7"


@pytest.mark.fresh_netns
def test_a_bridge_reads_back_as_it_was_asked_for() -> None:
    with Netlink("root") as root:
        root.commit(
            [
                add_bridge("br0", 10, mtu=1400, mac="02:00:00:00:00:01"),
                add_bridge("br1", 11, up=False),
            ]
        )
        bridge = link(root, 10)
        assert (bridge.index, bridge.name, bridge.kind, bridge.mtu) == (10, "br0", "bridge", 1400)
        assert (bridge.mac, bridge.up, bridge.running) == ("02:00:00:00:00:01", True, False)
        assert (bridge.stp, bridge.forward_delay) == (False, 0.0)
        assert (bridge.master, bridge.peer_index, bridge.peer_netnsid) == (None, None, None)
        assert str(bridge) == "10: br0 up mtu 1400 bridge"
        assert str(link(root, 11)) == "11: br1 down mtu 1500 bridge"


@pytest.mark.fresh_netns
def test_a_veth_peer_is_born_in_the_other_namespace_with_the_index_asked_for(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        root.commit(
            [
                add_bridge("br0", 10),
                add_veth(
                    "veth1",
                    11,
                    peer="eth0",
                    peer_index=2,
                    peer_netns=fd,
                    master=10,
                    mtu=1400,
                    mac="02:00:00:00:00:02",
                    peer_mac="02:00:00:00:00:03",
                ),
            ]
        )
        here, there = link(root, 11), link(pod, 2)
        assert (here.name, here.kind, here.mac, here.mtu) == ("veth1", "veth", "02:00:00:00:00:02", 1400)
        assert (here.master, here.peer_index, here.up, here.running) == (10, 2, True, False)
        assert here.peer_netnsid is not None
        assert (there.name, there.kind, there.mac, there.mtu) == ("eth0", "veth", "02:00:00:00:00:03", 1400)
        assert (there.master, there.peer_index, there.up) == (None, 11, False)
        pod.commit([set_link(2, up=True)])
        assert str(link(root, 11)) == "11: veth1@if2 running mtu 1400 master 10 veth"
        assert str(link(pod, 2)) == "2: eth0@if11 running mtu 1400 veth"


@pytest.mark.fresh_netns
def test_a_veth_pair_has_one_queue_each_way_at_both_ends(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        root.commit([add_veth("veth1", 11, peer="eth0", peer_index=2, peer_netns=fd)])
        for opened, index in ((root, 11), (pod, 2)):
            attributes = _attributes_of(opened, index)
            assert attributes[31] == attributes[32] == (1).to_bytes(4, "little")


def _attributes_of(opened: Netlink, index: int) -> dict[int, bytes]:
    return parse_attributes(opened.get(settle_link(index)), 16)


@pytest.mark.fresh_netns
def test_a_link_changes_only_what_is_asked(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        root.commit([add_bridge("br0", 10), add_veth("a", 11, peer="b", peer_index=12, peer_netns=fd)])
        before = link(root, 11)
        root.commit([set_link(11, master=10)])
        assert link(root, 11) == before._replace(master=10)
        root.commit([set_link(11, master=0, mtu=1300, mac="02:00:00:00:00:09")])
        assert link(root, 11) == before._replace(mtu=1300, mac="02:00:00:00:00:09")
        root.commit([set_link(11, up=False), set_link(11, name="c")])
        assert (link(root, 11).name, link(root, 11).up) == ("c", False)


@pytest.mark.fresh_netns
def test_a_link_can_be_moved_to_another_namespace_and_deleted_there(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        root.commit([add_veth("a", 11, peer="b", peer_index=12, peer_netns=fd), set_link(11, netns=fd)])
        assert 11 not in [found.index for found in links(root)]
        assert link(pod, 11).name == "a"
        pod.commit([delete_link(11)])
        assert [found for found in links(pod) if found.kind == "veth"] == []
        with pytest.raises(KernelError, match="delete link 11 in pod: ENODEV"):
            pod.commit([delete_link(11)])


@pytest.mark.fresh_netns
def test_the_loopback_link_runs_once_it_is_up() -> None:
    with Netlink("root") as root:
        assert (link(root, 1).up, link(root, 1).running, link(root, 1).kind) == (False, False, "")
        root.commit([set_link(1, up=True)])
        assert (link(root, 1).up, link(root, 1).running) == (True, True)


@pytest.mark.fresh_netns
def test_a_veth_with_a_master_that_takes_no_ports_is_not_called_a_missing_kind(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        with pytest.raises(KernelError) as caught:
            root.commit([add_veth("a", 11, peer="b", peer_index=12, peer_netns=fd, master=1)])
        assert type(caught.value) is KernelError


@pytest.mark.fresh_netns
def test_the_end_that_was_up_first_carries_packets_at_once_when_it_is_settled(new_netns: NewNetns) -> None:
    root = Netlink("root")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    for n in range(40):
        fd, pod = new_netns("pod")
        near, far = IPv4Interface(f"10.0.{n}.1/24"), IPv4Interface(f"10.0.{n}.2/24")
        root.commit(
            [
                add_veth(f"v{n}", 100 + n, peer="eth0", peer_index=2, peer_netns=fd),
                add_address(100 + n, near),
            ]
        )
        pod.commit([set_link(2, up=True), add_address(2, far)])
        root.commit([settle_link(100 + n)])
        setns(fd, CLONE_NEWNET)
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((str(far.ip), 9))
        setns(home, CLONE_NEWNET)
        with receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (str(far.ip), 9))
            # The ARP request goes out at once or, had it been dropped, again after a second.
            assert select.select([receiver], [], [], 0.5)[0], f"pair {n} lost its first packet"
        pod.close()
        os.close(fd)


@pytest.mark.fresh_netns
def test_traffic_is_counted(new_netns: NewNetns) -> None:
    with Netlink("root") as root:
        root.commit([set_link(1, up=True)])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(100), ("127.0.0.1", 9))
        lo = link(root, 1)
        assert (lo.tx_packets, lo.rx_packets) >= (1, 1)
        assert lo.tx_bytes == lo.rx_bytes >= 128
        assert (lo.tx_dropped, lo.rx_dropped) == (0, 0)


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ip_link_agrees_with_us(new_netns: NewNetns) -> None:
    fd, pod = new_netns("pod")
    with Netlink("root") as root, pod:
        root.commit(
            [
                add_bridge("br0", 10, mac="02:00:00:00:00:01"),
                add_veth("v1", 11, peer="eth0", peer_index=2, peer_netns=fd, master=10, mtu=1400),
                set_link(1, up=True),
            ]
        )
        for index in (10, 11):
            link(root, index)  # settles it, so that the two listings are of one state
        said = json.loads(subprocess.check_output(["ip", "-j", "-d", "link"]))
        ours = links(root)
        names = {found.index: found.name for found in ours}
        assert len(said) == len(ours)
        for theirs, found in zip(said, ours, strict=True):
            assert theirs["ifindex"] == found.index
            assert theirs["ifname"] == found.name
            assert theirs["mtu"] == found.mtu
            assert theirs.get("address", "") == found.mac
            assert theirs.get("linkinfo", {}).get("info_kind", "") == found.kind
            assert ("UP" in theirs["flags"]) == found.up
            assert ("LOWER_UP" in theirs["flags"]) == found.running
            assert theirs.get("master") == (names[found.master] if found.master else None)
            assert theirs.get("link_index") == found.peer_index
        bridge = next(theirs for theirs in said if theirs["ifname"] == "br0")["linkinfo"]["info_data"]
        assert (bridge["stp_state"], bridge["forward_delay"]) == (0, 0)
