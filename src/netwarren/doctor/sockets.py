"""The checks of what the node proxy, captures and faults do beyond plain sockets.

Rules: each does with its socket what its user does, in the pod, over lo; nothing is filtered or routed
by what another check left.
Does not belong here: wiring (see `wiring`).
"""

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from netwarren.doctor.check import Amiss, Check
from netwarren.doctor.ground import LO, PATIENCE, Ground
from netwarren.doctor.wiring import SETNS
from netwarren.kernel import conntrack, nftables, route, rule, sockdiag, tproxy
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel.address import AF_INET
from netwarren.kernel.netlink import NETLINK_NETFILTER, NETLINK_SOCK_DIAG, Netlink, Request

# Python has no names for these: linux/in.h, asm-generic/socket.h, linux/netfilter_ipv4.h
_IP_TRANSPARENT = 19
_SO_MARK = 36
_SO_ORIGINAL_DST = 80

_LISTENING = "socket diagnosis"
_NFTABLES = "nftables"

_SEEN = 8080
"""The port a client connects to."""
_TAKEN = 15001
"""The port its connection is redirected to."""
_REFUSED = 8081
"""The port that a rule refuses."""


def _raw(ground: Ground) -> None:
    with ground.inside("pod"), socket.socket(AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE)
        # An echo request whose checksum is of type 8, number 0xF7FF and nothing else.
        request = struct.pack(">BBHHH", 8, 0, 0x0000, 0xF7FF, 0)
        sock.sendto(request, ("127.0.0.1", 0))
        while True:
            packet = sock.recv(2048)
            if packet[(packet[0] & 15) * 4] == 0:  # the answer; the request is seen on lo, too
                return


def _packet(ground: Ground) -> None:
    with (
        ground.inside("pod"),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as capture,
        socket.socket(AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        capture.bind(("lo", 0x0003))  # ETH_P_ALL
        capture.settimeout(PATIENCE)
        sender.sendto(b"netwarren doctor", ("127.0.0.1", 9))
        while b"netwarren doctor" not in capture.recv(2048):
            pass


def _transparent(ground: Ground) -> None:
    with ground.inside("pod"), socket.socket(AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        sock.bind(("192.0.2.1", 0))  # nobody's address


def _mark(ground: Ground) -> None:
    with ground.inside("pod"), socket.socket(AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, 0x539)
        if sock.getsockopt(socket.SOL_SOCKET, _SO_MARK) != 0x539:
            raise Amiss("the mark was set and is not there")


def _policy_rules(ground: Ground) -> None:
    netlink = ground.netlink("pod")
    netlink.commit(
        [
            rule.add_rule(family=AF_INET, priority=100, fwmark=0x539, table=100),
            route.add_route(IPv4Network("0.0.0.0/0"), index=LO, kind="local", table=100),
        ]
    )
    if route.lookup(netlink, IPv4Address("192.0.2.1"), mark=0x539).kind != "local":
        raise Amiss("the rule was added and a marked packet does not follow it")


def _diagnosis(ground: Ground) -> None:
    with (
        ground.inside("pod"),
        socket.create_server(("127.0.0.1", 0)) as server,
        Netlink("pod", NETLINK_SOCK_DIAG) as netlink,
    ):
        port = server.getsockname()[1]
        if port not in {info.local_port for info in sockdiag.sockets(netlink)}:
            raise Amiss("a listening socket is not listed")


def _destroy(ground: Ground) -> None:
    with (
        ground.inside("pod"),
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=PATIENCE) as client,
        Netlink("pod", NETLINK_SOCK_DIAG) as netlink,
    ):
        port = client.getsockname()[1]
        every = sockdiag.sockets(netlink, listening_only=False)
        sockdiag.destroy(netlink, [info for info in every if info.local_port == port])
        try:
            client.recv(1)
        except OSError as error:
            if error.errno != errno.ECONNABORTED:
                raise
        else:
            raise Amiss("the socket was destroyed and its owner was not told")


# --- nftables -------------------------------------------------------------------------------------


def _nftables(ground: Ground) -> None:
    with ground.inside("pod"), Netlink("pod", NETLINK_NETFILTER) as netlink:
        table = nftables.add_table("inet", "doctor")
        chain = nftables.add_base_chain("inet", "doctor", "in", hook="input")
        nftables.commit(netlink, [table, chain])
        if ("inet", "doctor", "in") not in [each[:3] for each in nftables.chains(netlink)]:
            raise Amiss("the chain was added and the kernel does not show it")
        nftables.commit(netlink, [nftables.delete_table("inet", "doctor")])


def _redirect(ground: Ground) -> None:
    with ground.inside("pod"), Netlink("pod", NETLINK_NETFILTER) as netlink:
        nftables.commit(netlink, _redirection())
        with (
            socket.create_server(("127.0.0.1", _TAKEN)) as server,
            socket.create_connection(("127.0.0.1", _SEEN), timeout=PATIENCE),
        ):
            server.settimeout(PATIENCE)
            accepted, _ = server.accept()
            with accepted:
                original = accepted.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        nftables.commit(netlink, [nftables.delete_table("ip", "doctor")])
    if struct.unpack_from(">H", original, 2) != (_SEEN,):
        raise Amiss("the connection was redirected and SO_ORIGINAL_DST does not tell from where")


def _redirection() -> list[Request]:
    expressions = [
        *nft.match_protocol("tcp"),
        *nft.match_destination_port(_SEEN),
        *nft.redirect(_TAKEN),
    ]
    words = f"tcp dport {_SEEN} redirect to :{_TAKEN}"
    return [
        nftables.add_table("ip", "doctor"),
        nftables.add_base_chain("ip", "doctor", "out", type="nat", hook="output", priority=-100),
        nftables.add_rule("ip", "doctor", "out", expressions, words),
    ]


def _services(ground: Ground) -> None:
    with ground.inside("pod"), Netlink("pod", NETLINK_NETFILTER) as netlink:
        to_port = [*nft.match_protocol("tcp"), *nft.match_destination_port(_SEEN)]
        chosen = [*to_port, *nft.match_random(1), *nft.dnat(IPv4Address("127.0.0.1"), _TAKEN)]
        refused = [*nft.match_protocol("tcp"), *nft.match_destination_port(_REFUSED), *nft.reject_tcp()]
        requests = [nftables.add_table("ip", "doctor")]
        for name, type, hook, expressions in (
            ("out", "nat", "output", chosen),
            ("back", "nat", "postrouting", [*nft.match_mark(1), *nft.masquerade()]),
            ("no", "filter", "output", refused),
        ):
            requests.append(nftables.add_base_chain("ip", "doctor", name, type=type, hook=hook))
            requests.append(nftables.add_rule("ip", "doctor", name, expressions))
        nftables.commit(netlink, requests)
        with (
            socket.create_server(("127.0.0.1", _TAKEN)),
            socket.create_connection(("127.0.0.1", _SEEN), timeout=PATIENCE) as client,
        ):
            tracked = {each.answering[1] for each in conntrack.connections(netlink)}
            peer = client.getpeername()[1]
        try:
            with socket.create_server(("127.0.0.1", _REFUSED)):
                socket.create_connection(("127.0.0.1", _REFUSED), timeout=PATIENCE).close()
            raise Amiss("a connection that a rule refuses was made")
        except ConnectionRefusedError:
            pass
        nftables.commit(netlink, [nftables.delete_table("ip", "doctor")])
    if peer != _SEEN or _TAKEN not in tracked:
        raise Amiss("a connection was sent on, and the kernel does not track it")


def _tproxy(ground: Ground) -> None:
    with ground.inside("pod"), Netlink("pod", NETLINK_NETFILTER) as netlink:
        to = (IPv4Address("127.0.0.1"), _TAKEN)
        nftables.commit(
            netlink,
            [
                nftables.add_table("ip", "doctor"),
                nftables.add_base_chain("ip", "doctor", "in", hook="prerouting", priority=-150),
                tproxy.add_catch("doctor", "in", IPv4Network("198.51.100.0/24"), None, to, 1),
            ],
        )
        if not any("tproxy" in each.expressions for each in nftables.rules(netlink)):
            raise Amiss("the rule was added and the kernel does not show it")
        nftables.commit(netlink, [nftables.delete_table("ip", "doctor")])


_REMEDY_CONTAINER = "in a container, use a seccomp profile that allows it"

CHECKS = (
    Check("raw socket", "ping from a pod", _raw, needs=(SETNS,), remedy=_REMEDY_CONTAINER),
    Check(
        "packet socket",
        "capturing a pod's traffic",
        _packet,
        needs=(SETNS,),
        remedy="let root run `modprobe af_packet`, or use a kernel with CONFIG_PACKET=y",
    ),
    Check(
        "transparent socket",
        "a node proxy that speaks from its pods' addresses",
        _transparent,
        needs=(SETNS,),
        remedy="it takes CAP_NET_ADMIN over the pod's namespace: see the checks of the sandbox",
    ),
    Check(
        "socket mark",
        "a node proxy that is not captured by its own redirect",
        _mark,
        needs=(SETNS,),
        remedy="it takes CAP_NET_ADMIN over the pod's namespace: see the checks of the sandbox",
    ),
    Check(
        "policy rules",
        "returning traffic to a transparent proxy",
        _policy_rules,
        needs=(SETNS,),
        remedy="use a kernel with CONFIG_IP_MULTIPLE_TABLES=y",
    ),
    Check(
        _LISTENING,
        "listening sockets in a failing test's report",
        _diagnosis,
        needs=(SETNS,),
        remedy="let root run `modprobe tcp_diag udp_diag`, or use a kernel with CONFIG_INET_DIAG=y",
    ),
    Check(
        "socket destruction",
        "breaking connections under their owners",
        _destroy,
        needs=(_LISTENING,),
        remedy="use a kernel with CONFIG_INET_DIAG_DESTROY=y",
    ),
    Check(
        _NFTABLES,
        "partitions and network policies",
        _nftables,
        needs=(SETNS,),
        remedy="let root run `modprobe nf_tables`, or use a kernel with CONFIG_NF_TABLES=y and CONFIG_NF_TABLES_INET=y",
    ),
    Check(
        "nftables redirect",
        "capturing a pod's connections for the node proxy",
        _redirect,
        needs=(_NFTABLES,),
        remedy="let root run `modprobe -a nft_chain_nat nft_redir nf_conntrack`, or use a kernel with CONFIG_NFT_REDIR=y, CONFIG_NFT_NAT=y and CONFIG_NF_CONNTRACK=y",
    ),
    Check(
        "nftables NAT and tracking",
        "services: one address before several pods",
        _services,
        needs=(_NFTABLES,),
        remedy="let root run `modprobe nft_chain_nat nft_numgen nft_masq nft_reject_ipv4 nf_conntrack_netlink`",
    ),
    Check(
        "nftables tproxy",
        "Cluster(egress=...): what of the host and the internet pods may reach",
        _tproxy,
        needs=(_NFTABLES,),
        remedy="let root run `modprobe nft_tproxy`, or use a kernel with CONFIG_NFT_TPROXY=y",
    ),
)
