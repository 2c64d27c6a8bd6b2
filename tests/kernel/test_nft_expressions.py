"""Expressions as rules: read back, obeyed by packets, and as nft itself reads them where it is installed."""

import errno
import shutil
import socket
import subprocess
from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from netwarren.errors import UnsupportedByKernel
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel import nft_sets, nftables
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkFormatError, Request, refusal
from netwarren.kernel.nft_wire import expression

V4, V6 = IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")


def table(family: str = "ip") -> list[Request]:
    return [
        nftables.add_table(family, "t"),
        nft_sets.add_destination_map(family, "t", "m"),
        nft_sets.add_address_set(family, "t", "s", 60),
        nftables.add_chain(family, "t", "elsewhere"),
        nftables.add_base_chain(family, "t", "out", type="nat", hook="output", priority=-100),
        nftables.add_base_chain(family, "t", "post", type="nat", hook="postrouting", priority=100),
        nftables.add_base_chain(family, "t", "filter", hook="output"),
    ]


def phrases(version: int) -> dict[str, tuple[str, list[bytes]]]:
    """What nft calls it: the chain it may be in, and our expressions."""
    four = version == 4
    ip, network, far = ("ip", "10.0.0.0/9", "10.1.2.3") if four else ("ip6", "fd00::/17", "fd00::1:2")
    to = f"{far}:8080" if four else f"[{far}]:8080"
    return {
        f"{ip} saddr {network}": ("out", nft.match_source(ip_network(network))),
        f"{ip} saddr {far}": ("out", nft.match_source(ip_network(far))),
        f"{ip} daddr {network}": ("out", nft.match_destination(ip_network(network))),
        "meta l4proto udp": ("out", nft.match_protocol("udp")),
        "numgen random mod 3 0": ("out", nft.match_random(3)),
        f"{ip} daddr != {network}": ("out", nft.match_destination(ip_network(network), negated=True)),
        'oifname "lo"': ("out", nft.match_output_link("lo")),
        'oifname != "lo"': ("out", nft.match_output_link("lo", negated=True)),
        "tcp dport != 15008": (
            "out",
            [*nft.match_protocol("tcp"), *nft.match_destination_port(15008, negated=True)],
        ),
        "meta mark & 0x00004000 != 0x00000000": ("out", nft.match_mark(0x4000)),
        "meta mark & 0x00000fff == 0x00000539": ("out", nft.match_masked_mark(0x539, 0xFFF)),
        "meta mark & 0x00000fff != 0x00000539": ("out", nft.match_masked_mark(0x539, 0xFFF, negated=True)),
        "ct mark & 0x00000fff == 0x00000111": ("out", nft.match_connection_mark(0x111, 0xFFF)),
        "ct mark set ct mark & 0xfffff111 | 0x00000111": ("out", nft.set_connection_mark(0x111, 0xFFF)),
        "meta mark set ct mark": ("out", nft.restore_mark()),
        "meta mark set meta mark | 0x00004000": ("out", nft.set_mark(0x4000)),
        "meta mark set meta mark & 0xffffbfff": ("out", nft.clear_mark(0x4000)),
        f"{ip} saddr @s": ("out", nft.match_source_in(version, "s")),
        f"update @s {{ {ip} saddr timeout 9s }}": ("out", nft.update_source(version, "s", 9)),
        f"{ip} daddr . meta l4proto . th dport vmap @m": ("out", nft.verdict_by_destination(version, "m")),
        "goto elsewhere": ("out", nft.goto("elsewhere")),
        "drop": ("filter", nft.drop()),
        f"dnat to {to}": ("out", nft.dnat(ip_address(far), 8080)),
        "masquerade": ("post", nft.masquerade()),
        "reject": ("filter", nft.reject(version)),
    }


@pytest.mark.fresh_netns
@pytest.mark.parametrize("version", [4, 6])
def test_every_expression_is_taken_by_the_kernel_and_read_back(version: int) -> None:
    family = "ip" if version == 4 else "ip6"
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, table(family))
        for words, (chain, expressions) in phrases(version).items():
            nftables.commit(netlink, [nftables.add_rule(family, "t", chain, expressions, words)])
            last = [rule for rule in nftables.rules(netlink) if rule.chain == chain][-1]
            assert len(last.expressions) == len(expressions), words


@pytest.mark.fresh_netns
@pytest.mark.skipif(
    shutil.which("nft") is None, reason="nft is not installed, which reads the rules back here"
)
@pytest.mark.parametrize("version", [4, 6])
def test_nft_reads_every_expression_as_what_we_say_it_is(version: int) -> None:
    family = "ip" if version == 4 else "ip6"
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, table(family))
        for words, (chain, expressions) in phrases(version).items():
            flush = nftables.flush_chain(family, "t", chain)
            nftables.commit(netlink, [flush, nftables.add_rule(family, "t", chain, expressions, words)])
            listed = subprocess.run(
                ["nft", "list", "chain", family, "t", chain], capture_output=True, text=True, check=True
            )
            lines = [line.strip() for line in listed.stdout.splitlines()]
            assert words in lines, listed.stdout


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_a_name_no_link_can_have_is_refused(name: str) -> None:
    with pytest.raises(NetlinkFormatError, match="no name of a link"):
        nft.match_output_link(name)


def apply(rules: dict[str, list[list[bytes]]], family: str = "ip") -> None:
    with Netlink("pod") as route, Netlink("pod", NETLINK_NETFILTER) as netlink:
        route.commit([set_link(1, up=True)])
        requests = table(family)
        requests += [
            nftables.add_rule(family, "t", chain, expressions)
            for chain, each in rules.items()
            for expressions in each
        ]
        nftables.commit(netlink, requests)


def connect(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as near:
        near.settimeout(5)
        number = near.connect_ex((address, port))
        return errno.errorcode.get(number, "connected")


@pytest.mark.fresh_netns
@pytest.mark.parametrize(("address", "network"), [("127.0.0.1", V4), ("::1", V6)])
def test_a_translated_connection_lands_where_it_is_sent(
    address: str, network: IPv4Network | IPv6Network
) -> None:
    family = "ip" if network.version == 4 else "ip6"
    rule = [*nft.match_destination(network), *nft.match_protocol("tcp"), *nft.dnat(ip_address(address), 8080)]
    apply({"out": [rule]}, family)
    kind = socket.AF_INET if network.version == 4 else socket.AF_INET6
    with socket.create_server((address, 8080), family=kind):
        assert connect(address, 80) == "connected"


@pytest.mark.fresh_netns
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_rejected_packet_is_answered_and_the_sender_of_a_datagram_is_told(address: str) -> None:
    version = ip_address(address).version
    # By their ports, which the answers have not.
    rules = [
        [*nft.match_protocol("tcp"), *nft.match_destination_port(8080), *nft.reject_tcp()],
        [*nft.match_protocol("udp"), *nft.match_destination_port(9), *nft.reject(version)],
    ]
    apply({"filter": rules}, "ip" if version == 4 else "ip6")
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.create_server((address, 8080), family=kind):
        assert connect(address, 8080) == "ECONNREFUSED"
    with socket.socket(kind, socket.SOCK_DGRAM) as near, pytest.raises(PermissionError):
        near.sendto(b"", (address, 9))


@pytest.mark.fresh_netns
def test_a_random_match_takes_its_share_and_a_goto_what_is_left() -> None:
    one, other = (nft.dnat(ip_address("127.0.0.1"), port) for port in (8081, 8082))
    tcp = nft.match_protocol("tcp")
    apply({"out": [[*tcp, *nft.match_random(2), *one], nft.goto("elsewhere")], "elsewhere": [[*tcp, *other]]})
    with socket.create_server(("127.0.0.1", 8081)) as a, socket.create_server(("127.0.0.1", 8082)) as b:
        for listening in (a, b):
            listening.setblocking(False)
        counts: Counter[int] = Counter()
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", 80), timeout=5):
                for listening in (a, b):
                    try:
                        accepted, _ = listening.accept()
                    except BlockingIOError:
                        continue
                    accepted.close()
                    counts[listening.getsockname()[1]] += 1
    # 100 each is expected, with a standard deviation of 7.1.
    assert set(counts) == {8081, 8082}
    assert all(60 < count < 140 for count in counts.values())


@pytest.mark.fresh_netns
def test_a_bit_of_a_mark_is_set_matched_and_cleared_and_the_others_stay() -> None:
    # Dropped where the bit 0x4000 is set; before that, it is set where 0x1 is, and cleared where 0x2 is.
    rules = [
        [*nft.match_mark(1), *nft.set_mark(0x4000)],
        [*nft.match_mark(2), *nft.clear_mark(0x4000)],
        [*nft.match_mark(0x4000), *nft.drop()],
    ]
    apply({"filter": rules})
    passes = {}
    for mark in (0, 1, 2, 3, 0x4000, 0x4002, 0x8000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            try:
                near.sendto(b"", ("127.0.0.1", 9))
                passes[mark] = True
            except PermissionError:
                passes[mark] = False
    assert passes == {0: True, 1: False, 2: True, 3: True, 0x4000: False, 0x4002: True, 0x8000: True}


@pytest.mark.parametrize("bit", [-1, 1 << 32])
def test_a_mark_that_does_not_fit_is_refused(bit: int) -> None:
    with pytest.raises(NetlinkFormatError, match="no packet mark"):
        nft.match_mark(bit)


@pytest.mark.fresh_netns
def test_an_expression_that_a_kernel_lacks_is_told_where_all_else_is_there() -> None:
    unknown = [expression("no-such-one")]
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, table())
        request = nftables.add_rule("ip", "t", "out", unknown, "no-such-one", needs="NAT in nftables")
        with pytest.raises(UnsupportedByKernel, match=r"no-such-one in pod: ENOENT.*CONFIG_NFT_NUMGEN"):
            nftables.commit(netlink, [request])


def test_a_kernel_without_ctnetlink_is_told_so() -> None:
    request = Request(0, 0, b"", "count the tracked connections", "connection tracking")
    assert "CONFIG_NF_CT_NETLINK" in refusal(request, errno.EOPNOTSUPP, "").hint
