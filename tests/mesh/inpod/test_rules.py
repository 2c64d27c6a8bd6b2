"""The rules as data, and as nft itself reads them where it is installed."""

import shutil
from ipaddress import IPv4Network

import pytest

from netwarren import Cluster
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.rules import Mode, as_text, dedicated_rules, rules_of, shared_rules
from netwarren.topology.addresses import Family


def test_the_shared_rules_are_istios_in_their_order() -> None:
    chains = {chain.name: chain for chain in shared_rules(4)}
    assert [(each.type, each.hook, each.priority) for each in chains.values()] == [
        ("filter", "prerouting", -150),
        ("route", "output", -150),
        ("nat", "prerouting", -100),
        ("nat", "output", -100),
    ]
    assert [rule.words for rule in chains["nat-output"].rules] == [
        "ip daddr 169.254.7.127 meta l4proto tcp accept",
        'oifname != "lo" udp dport 53 meta mark & 0xfff != 0x539 redirect to :15053',
        "ip daddr != 127.0.0.1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053",
        "meta l4proto tcp meta mark & 0xfff == 0x111 accept",
        'ip daddr != 127.0.0.1 oifname "lo" accept',
        "ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001",
    ]
    assert [rule.words for rule in chains["nat-prerouting"].rules] == [
        "ip saddr 169.254.7.127 meta l4proto tcp accept",
        "ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006",
    ]


def test_the_ipv6_rules_are_the_same_but_for_the_probes_which_are_ipv4() -> None:
    for four, six in zip(shared_rules(4), shared_rules(6), strict=True):
        without = [rule.words for rule in four.rules if "169.254.7.127" not in rule.words]
        said = [rule.words.replace("ip6 ", "ip ").replace("::1", "127.0.0.1") for rule in six.rules]
        assert said == without


def test_the_dedicated_rules_are_one() -> None:
    ((rule,),) = [chain.rules for chain in dedicated_rules(4)]
    assert rule.words == 'meta l4proto tcp oifname != "lo" meta mark & 0xfff != 0x539 redirect to :15001'


def test_another_mark_is_in_every_rule_that_spares_the_proxy() -> None:
    words = [rule.words for chain in rules_of("shared", 4, 0x42) for rule in chain.rules]
    assert not [each for each in words if "0x539" in each]
    assert len([each for each in words if "!= 0x42" in each]) == 4


@pytest.mark.skipif(
    shutil.which("nft") is None, reason="nft is not installed, which reads the rules back here"
)
@pytest.mark.parametrize("mode", ["shared", "dedicated"])
@pytest.mark.parametrize("family", [4, 6])
def test_nft_lists_what_the_kernel_was_told_as_it_lists_the_words(mode: Mode, family: Family) -> None:
    with Cluster(families="dual") as cluster:
        ours, theirs = cluster.add_pod("ours"), cluster.add_pod("theirs")
        redirection.apply(ours.namespace_fd, mode=mode, families=(family,))
        theirs.check_output(["nft", "-f", "-"], input=as_text(mode, family))
        listed = ours.check_output(["nft", "list", "ruleset"])
        assert listed == theirs.check_output(["nft", "list", "ruleset"])
        assert listed.count("redirect to") == (1 if mode == "dedicated" else 4)


def test_the_address_of_probes_is_istios() -> None:
    from netwarren.mesh.inpod.rules import PROBES

    assert IPv4Network("169.254.7.127") == PROBES
