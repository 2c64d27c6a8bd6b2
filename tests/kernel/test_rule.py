"""Policy rules, read back from the kernel."""

import errno
import json
import shutil
import socket
import subprocess
from ipaddress import IPv4Network, IPv6Network

import pytest

from netwarren.errors import AddressError, KernelError
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.rule import Rule, add_rule, delete_rule, rules

FOUR, SIX = int(socket.AF_INET), int(socket.AF_INET6)
STANDARD = [
    "0: from all lookup local",
    "32766: from all lookup main",
    "32767: from all lookup default",
    "0: from all lookup local",
    "32766: from all lookup main",
]


def test_requests_say_what_they_do() -> None:
    made = add_rule(
        family=FOUR,
        priority=5,
        fwmark=0x539,
        fwmask=0xFFF,
        source=IPv4Network("10.0.0.0/8"),
        destination=IPv4Network("10.1.0.0/16"),
        iif="lo",
        table=100,
    )
    assert made.doing == "add rule 5: from 10.0.0.0/8 to 10.1.0.0/16 fwmark 0x539/0xfff iif lo lookup 100"
    assert delete_rule(family=SIX, priority=6, table=254).doing == "delete rule 6: lookup main"


def test_a_network_of_another_family_is_refused() -> None:
    with pytest.raises(AddressError, match="fd00::/8 is not of the rule's address family"):
        add_rule(family=FOUR, priority=5, source=IPv6Network("fd00::/8"), table=100)


def test_a_rule_reads_like_ip_rule() -> None:
    rule = Rule(FOUR, 7, None, None, 1, 0xFFFFFFFF, "eth0", "eth1", 254, "lookup", inverted=True)
    assert str(rule) == "7: not from all fwmark 0x1 iif eth0 oif eth1 lookup main"
    assert str(rule._replace(action="unreachable", fwmark=None, inverted=False)) == (
        "7: from all iif eth0 oif eth1 unreachable"
    )


@pytest.mark.fresh_netns
def test_a_new_namespace_has_the_standard_rules() -> None:
    with Netlink("node-a") as node:
        assert [str(rule) for rule in rules(node)] == STANDARD


@pytest.mark.fresh_netns
def test_rules_of_both_families_read_back_as_they_were_asked_for_and_can_be_deleted() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                add_rule(family=FOUR, priority=1, fwmark=0x539, fwmask=0xFFF, table=100),
                add_rule(family=FOUR, priority=2, fwmark=0x539, table=100_000),
                add_rule(family=FOUR, priority=3, source=IPv4Network("10.0.0.0/8"), iif="eth7", table=254),
                add_rule(family=FOUR, priority=4, destination=IPv4Network("10.0.0.1/32"), table=255),
                add_rule(family=SIX, priority=5, source=IPv6Network("fd00::/8"), table=100),
            ]
        )
        assert [str(rule) for rule in rules(node) if str(rule) not in STANDARD] == [
            "1: from all fwmark 0x539/0xfff lookup 100",
            "2: from all fwmark 0x539 lookup 100000",
            "3: from 10.0.0.0/8 iif eth7 lookup main",
            "4: from all to 10.0.0.1/32 lookup local",
            "5: from fd00::/8 lookup 100",
        ]
        first = rules(node)[1]
        assert first == Rule(FOUR, 1, None, None, 0x539, 0xFFF, "", "", 100, "lookup", inverted=False)
        node.commit(
            [
                delete_rule(family=FOUR, priority=1, fwmark=0x539, fwmask=0xFFF, table=100),
                delete_rule(family=FOUR, priority=2, fwmark=0x539, table=100_000),
                delete_rule(family=FOUR, priority=3, table=254),
                delete_rule(family=FOUR, priority=4, destination=IPv4Network("10.0.0.1/32"), table=255),
                delete_rule(family=SIX, priority=5, source=IPv6Network("fd00::/8"), table=100),
            ]
        )
        assert [str(rule) for rule in rules(node)] == STANDARD


@pytest.mark.fresh_netns
def test_adding_twice_and_deleting_twice_are_refused() -> None:
    with Netlink("node-a") as node:
        node.commit([add_rule(family=FOUR, priority=5, table=100)])
        with pytest.raises(KernelError, match="add rule 5: lookup 100 in node-a: EEXIST"):
            node.commit([add_rule(family=FOUR, priority=5, table=100)])
        node.commit([delete_rule(family=FOUR, priority=5, table=100)])
        with pytest.raises(KernelError, match="delete rule 5: lookup 100 in node-a") as caught:
            node.commit([delete_rule(family=FOUR, priority=5, table=100)])
        assert caught.value.errno == errno.ENOENT
        assert type(caught.value) is KernelError


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
@pytest.mark.fresh_netns
def test_ip_rule_agrees_with_us() -> None:
    with Netlink("node-a") as node:
        node.commit(
            [
                add_rule(family=FOUR, priority=1, fwmark=0x539, fwmask=0xFFF, table=100),
                add_rule(family=FOUR, priority=2, source=IPv4Network("10.0.0.0/8"), iif="lo", table=101),
            ]
        )
        said = json.loads(subprocess.check_output(["ip", "-j", "-4", "rule"]))
        ours = [rule for rule in rules(node) if rule.family == FOUR]
        assert [entry["priority"] for entry in said] == [rule.priority for rule in ours]
        assert (said[1]["fwmark"], said[1]["fwmask"], said[1]["table"]) == ("0x539", "0xfff", "100")
        assert (said[2]["src"], said[2]["srclen"], said[2]["iif"]) == ("10.0.0.0", 8, "lo")
        text = subprocess.check_output(["ip", "-4", "rule"], text=True)
        assert [" ".join(line.split()) for line in text.splitlines()] == [str(rule) for rule in ours]
