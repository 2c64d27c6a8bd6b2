"""nftables rules written and read back, and packets that obey them; in a namespace of their own."""

import errno
import socket
import struct

import pytest

from netwarren.errors import KernelError, UnsupportedByKernel
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel import nftables
from netwarren.kernel.link import set_link
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkFormatError, Request, refusal
from netwarren.kernel.nft_wire import UnknownWord

_SO_ORIGINAL_DST = 80


def redirecting(port: int, to: int) -> list[Request]:
    return [
        nftables.add_table("ip", "pod"),
        nftables.add_base_chain("ip", "pod", "out", type="nat", hook="output", priority=-100),
        nftables.add_rule(
            "ip",
            "pod",
            "out",
            [*nft.match_protocol("tcp"), *nft.match_destination_port(port), *nft.redirect(to)],
            f"tcp dport {port} redirect to :{to}",
        ),
    ]


def test_a_word_nftables_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(UnknownWord, match=r"'ipv4' is no family .* there are: inet, ip, ip6"):
        nftables.add_table("ipv4", "pod")
    with pytest.raises(UnknownWord, match="no hook"):
        nftables.add_base_chain("ip", "pod", "out", hook="outside")
    with pytest.raises(UnknownWord, match="no policy"):
        nftables.add_base_chain("ip", "pod", "out", hook="output", policy="maybe")


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(NetlinkFormatError, match="no port"):
        nft.redirect(port)


@pytest.mark.parametrize("size", [0, 3, 5, 7])
def test_a_truncated_answer_is_refused(size: int) -> None:
    with pytest.raises(NetlinkFormatError):
        nftables.parse_chain(bytes(size))


def test_a_truncated_list_of_expressions_is_refused() -> None:
    body = bytes([2, 0, 0, 0]) + struct.pack("=HH", 4 + 4 + 2, 4) + struct.pack("=HH", 6, 1) + b"ab\0\0"
    with pytest.raises(NetlinkFormatError):
        nftables.parse_rule(body)


def test_a_kernel_without_nftables_is_told_from_a_table_that_is_not_there() -> None:
    request = nftables.add_table("ip", "pod")
    lacking = refusal(request, errno.EOPNOTSUPP, "")
    assert isinstance(lacking, UnsupportedByKernel)
    assert "CONFIG_NF_TABLES" in lacking.hint
    assert type(refusal(request, errno.ENOENT, "")) is KernelError


@pytest.mark.fresh_netns
def test_tables_chains_and_rules_are_read_back() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        assert repr(netlink) == "<Netlink netfilter in pod open>"
        assert nftables.tables(netlink) == []
        nftables.commit(netlink, redirecting(80, 15001))
        nftables.commit(
            netlink,
            [
                nftables.add_table("inet", "guard"),
                nftables.add_base_chain("inet", "guard", "in", hook="input", priority=5, policy="drop"),
            ],
        )
        assert sorted(nftables.tables(netlink)) == [("inet", "guard"), ("ip", "pod")]
        assert sorted(nftables.chains(netlink)) == [
            ("inet", "guard", "in", "filter", "input", 5, "drop"),
            ("ip", "pod", "out", "nat", "output", -100, "accept"),
        ]
        (rule,) = nftables.rules(netlink)
        assert rule[:3] == ("ip", "pod", "out")
        assert rule.handle > 0
        assert rule.expressions == ("meta", "cmp", "payload", "cmp", "immediate", "redir")


@pytest.mark.fresh_netns
def test_a_rule_goes_to_the_end_of_its_chain() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(
            netlink,
            [*redirecting(80, 15001), nftables.add_rule("ip", "pod", "out", nft.match_protocol("tcp"))],
        )
        assert [len(rule.expressions) for rule in nftables.rules(netlink)] == [6, 2]


@pytest.mark.fresh_netns
def test_one_refused_request_undoes_all_and_is_named() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        requests = [
            nftables.add_table("ip", "pod"),
            nftables.add_rule("ip", "pod", "nowhere", nft.match_protocol("tcp"), "meta l4proto tcp"),
            nftables.add_table("ip6", "pod"),
        ]
        with pytest.raises(KernelError, match=r"add rule ip pod nowhere meta l4proto tcp in pod: ENOENT"):
            nftables.commit(netlink, requests)
        assert nftables.tables(netlink) == []
        nftables.commit(netlink, requests[::2])
        assert sorted(nftables.tables(netlink)) == [("ip", "pod"), ("ip6", "pod")]


@pytest.mark.fresh_netns
def test_a_chain_that_exists_is_refused_and_a_table_is_not() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        table, chain, _ = redirecting(80, 15001)
        nftables.commit(netlink, [table, chain])
        nftables.commit(netlink, [table])
        with pytest.raises(KernelError) as caught:
            nftables.commit(netlink, [table, chain])
        assert caught.value.errno == errno.EEXIST


@pytest.mark.fresh_netns
def test_a_deleted_table_is_gone_with_its_rules() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, redirecting(80, 15001))
        nftables.commit(netlink, [nftables.delete_table("ip", "pod")])
        assert nftables.tables(netlink) == []
        assert nftables.rules(netlink) == []
        with pytest.raises(KernelError, match="delete table ip pod in pod: ENOENT"):
            nftables.commit(netlink, [nftables.delete_table("ip", "pod")])


@pytest.mark.fresh_netns
def test_an_empty_batch_is_nothing_at_all() -> None:
    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, [])


@pytest.mark.fresh_netns
def test_a_redirected_connection_lands_on_the_other_port_and_knows_where_it_went() -> None:
    with Netlink("pod") as route, Netlink("pod", NETLINK_NETFILTER) as netlink:
        route.commit([set_link(1, up=True)])
        nftables.commit(netlink, redirecting(80, 15001))
    with (
        socket.create_server(("127.0.0.1", 15001)) as server,
        socket.create_connection(("127.0.0.1", 80), timeout=5),
    ):
        server.settimeout(5)
        accepted, _ = server.accept()
        with accepted:
            packed = accepted.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        assert struct.unpack_from(">2xH4s", packed) == (80, socket.inet_aton("127.0.0.1"))


@pytest.mark.fresh_netns
def test_whoever_may_not_change_rules_is_told_so() -> None:
    from netwarren.kernel.syscall import capget, capset

    with Netlink("pod", NETLINK_NETFILTER) as netlink:
        _, _, inheritable = capget()
        capset(0, 0, inheritable)
        with pytest.raises(KernelError, match=r"EPERM.*CAP_NET_ADMIN"):
            nftables.commit(netlink, redirecting(80, 15001))
