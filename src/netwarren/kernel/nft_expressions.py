"""Expressions of nftables: the conditions and actions that a rule is put together from.

Rules: a function makes the expressions of one nft phrase, in order, and says the phrase; condition first,
verdict last; registers are used within one phrase only (linux/netfilter/nf_tables.h).
Does not belong here: rules and chains (see `nftables`), sets themselves (see `nft_sets`).
"""

import sys

from netwarren.kernel.address import IPAddress, IPNetwork
from netwarren.kernel.netlink import NetlinkFormatError, u8
from netwarren.kernel.nft_wire import (
    FAMILIES,
    accept_data,
    be32,
    be64,
    data,
    drop_data,
    expression,
    goto_data,
    port_bytes,
    string,
)

# linux/netfilter/nf_tables.h, attributes
_NFTA_META_DREG = 1
_NFTA_META_KEY = 2
_NFTA_META_SREG = 3
_NFTA_CT_DREG = 1
_NFTA_CT_KEY = 2
_NFTA_CT_SREG = 4
_NFTA_CMP_SREG = 1
_NFTA_CMP_OP = 2
_NFTA_CMP_DATA = 3
_NFTA_PAYLOAD_DREG = 1
_NFTA_PAYLOAD_BASE = 2
_NFTA_PAYLOAD_OFFSET = 3
_NFTA_PAYLOAD_LEN = 4
_NFTA_IMMEDIATE_DREG = 1
_NFTA_IMMEDIATE_DATA = 2
_NFTA_BITWISE_SREG = 1
_NFTA_BITWISE_DREG = 2
_NFTA_BITWISE_LEN = 3
_NFTA_BITWISE_MASK = 4
_NFTA_BITWISE_XOR = 5
_NFTA_LOOKUP_SET = 1
_NFTA_LOOKUP_SREG = 2
_NFTA_LOOKUP_DREG = 3
_NFTA_DYNSET_SET_NAME = 1
_NFTA_DYNSET_OP = 3
_NFTA_DYNSET_SREG_KEY = 4
_NFTA_DYNSET_TIMEOUT = 6
_NFTA_NG_DREG = 1
_NFTA_NG_MODULUS = 2
_NFTA_NG_TYPE = 3
_NFTA_NAT_TYPE = 1
_NFTA_NAT_FAMILY = 2
_NFTA_NAT_REG_ADDR_MIN = 3
_NFTA_NAT_REG_PROTO_MIN = 5
_NFTA_TPROXY_FAMILY = 1
_NFTA_TPROXY_REG_ADDR = 2
_NFTA_TPROXY_REG_PORT = 3
_NFTA_REDIR_REG_PROTO_MIN = 1
_NFTA_REJECT_TYPE = 1
_NFTA_REJECT_ICMP_CODE = 2

# linux/netfilter/nf_tables.h, values
_NFT_REG_VERDICT = 0
_NFT_REG_1 = 1
_NFT_REG_2 = 2
_NFT_REG32_00 = 8  # the first quarter of register 1; one for each four bytes that follow
_NFT_META_MARK = 3
_NFT_META_OIFNAME = 7
_NFT_META_L4PROTO = 16
_NFT_CT_MARK = 3
_NFT_CMP_EQ = 0
_NFT_CMP_NEQ = 1
_NFT_PAYLOAD_NETWORK_HEADER = 1
_NFT_PAYLOAD_TRANSPORT_HEADER = 2
_NFT_DYNSET_OP_UPDATE = 1
_NFT_NG_RANDOM = 1
_NFT_NAT_DNAT = 1
_NFT_REJECT_ICMP_UNREACH = 0
_NFT_REJECT_TCP_RST = 1

_IFNAMSIZ = 16  # linux/if.h

PROTOCOLS = {"tcp": 6, "udp": 17}
"""IPPROTO_* of linux/in.h."""

# Offset and length of an address in the header of its family: RFC 791, RFC 8200.
_SOURCE = {4: (12, 4), 6: (8, 16)}
_DESTINATION = {4: (16, 4), 6: (24, 16)}
# ICMP_PORT_UNREACH of linux/icmp.h, ICMPV6_PORT_UNREACH of linux/icmpv6.h
_PORT_UNREACHABLE = {4: 3, 6: 4}


# --- loading and comparing --------------------------------------------------------------------------


def _load(base: int, offset: int, length: int, register: int = _NFT_REG_1) -> bytes:
    return expression(
        "payload",
        be32(_NFTA_PAYLOAD_DREG, register),
        be32(_NFTA_PAYLOAD_BASE, base),
        be32(_NFTA_PAYLOAD_OFFSET, offset),
        be32(_NFTA_PAYLOAD_LEN, length),
    )


def _load_meta(key: int, register: int = _NFT_REG_1) -> bytes:
    return expression("meta", be32(_NFTA_META_DREG, register), be32(_NFTA_META_KEY, key))


def _compare(value: bytes, operator: int = _NFT_CMP_EQ) -> bytes:
    return expression(
        "cmp", be32(_NFTA_CMP_SREG, _NFT_REG_1), be32(_NFTA_CMP_OP, operator), data(_NFTA_CMP_DATA, value)
    )


def _immediate(value: bytes, register: int) -> bytes:
    return expression("immediate", be32(_NFTA_IMMEDIATE_DREG, register), data(_NFTA_IMMEDIATE_DATA, value))


def _bitwise(mask: bytes, xor: bytes) -> bytes:
    """``& MASK ^ XOR`` of register 1."""
    return expression(
        "bitwise",
        be32(_NFTA_BITWISE_SREG, _NFT_REG_1),
        be32(_NFTA_BITWISE_DREG, _NFT_REG_1),
        be32(_NFTA_BITWISE_LEN, len(mask)),
        data(_NFTA_BITWISE_MASK, mask),
        data(_NFTA_BITWISE_XOR, xor),
    )


def _operator(negated: bool) -> int:
    return _NFT_CMP_NEQ if negated else _NFT_CMP_EQ


def _in_network(network: IPNetwork, field: tuple[int, int], negated: bool = False) -> list[bytes]:
    found = [_load(_NFT_PAYLOAD_NETWORK_HEADER, *field)]
    if network.prefixlen < network.max_prefixlen:
        found.append(_bitwise(network.netmask.packed, bytes(field[1])))
    return [*found, _compare(network.network_address.packed, _operator(negated))]


def match_source(network: IPNetwork) -> list[bytes]:
    """``ip saddr NETWORK``, or ``ip6``."""
    return _in_network(network, _SOURCE[network.version])


def match_destination(network: IPNetwork, *, negated: bool = False) -> list[bytes]:
    """``ip daddr NETWORK``, or ``ip6``; ``negated``: ``ip daddr != NETWORK``."""
    return _in_network(network, _DESTINATION[network.version], negated)


def match_output_link(name: str, *, negated: bool = False) -> list[bytes]:
    """``oifname NAME``, or ``oifname != NAME``; in a chain at output, forward or postrouting."""
    packed = name.encode()
    if not 0 < len(packed) < _IFNAMSIZ:
        raise NetlinkFormatError(f"{name!r} is no name of a link, 1 to {_IFNAMSIZ - 1} bytes")
    return [_load_meta(_NFT_META_OIFNAME), _compare(packed.ljust(_IFNAMSIZ, b"\0"), _operator(negated))]


def match_protocol(protocol: str) -> list[bytes]:
    """``meta l4proto PROTOCOL``: ``tcp`` or ``udp``."""
    return [_load_meta(_NFT_META_L4PROTO), _compare(bytes([PROTOCOLS[protocol]]))]


def match_destination_port(port: int, *, negated: bool = False) -> list[bytes]:
    """``th dport PORT``, after a match of the protocol: TCP and UDP have it in the same place."""
    return [_load(_NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), _compare(port_bytes(port), _operator(negated))]


def match_random(modulus: int) -> list[bytes]:
    """``numgen random mod MODULUS 0``: one packet in so many, at random."""
    generate = expression(
        "numgen",
        be32(_NFTA_NG_DREG, _NFT_REG_1),
        be32(_NFTA_NG_MODULUS, modulus),
        be32(_NFTA_NG_TYPE, _NFT_NG_RANDOM),
    )
    return [generate, _compare(bytes(4))]


# --- marks ------------------------------------------------------------------------------------------


def _mark_bytes(mark: int) -> bytes:
    try:
        return mark.to_bytes(4, sys.byteorder)  # it never is on the wire, so in the machine's order
    except OverflowError:
        raise NetlinkFormatError(f"{mark!r} is no packet mark, 32 bits wide") from None


_SET_MARK = expression("meta", be32(_NFTA_META_KEY, _NFT_META_MARK), be32(_NFTA_META_SREG, _NFT_REG_1))


def match_mark(bit: int) -> list[bytes]:
    """``meta mark & BIT != 0``"""
    test = _bitwise(_mark_bytes(bit), bytes(4))
    return [_load_meta(_NFT_META_MARK), test, _compare(bytes(4), _NFT_CMP_NEQ)]


def set_mark(bit: int) -> list[bytes]:
    """``meta mark set meta mark or BIT``"""
    change = _bitwise(_mark_bytes(bit ^ 0xFFFFFFFF), _mark_bytes(bit))
    return [_load_meta(_NFT_META_MARK), change, _SET_MARK]


def clear_mark(bit: int) -> list[bytes]:
    """``meta mark set meta mark and not BIT``"""
    change = _bitwise(_mark_bytes(bit ^ 0xFFFFFFFF), bytes(4))
    return [_load_meta(_NFT_META_MARK), change, _SET_MARK]


def match_masked_mark(mark: int, mask: int, *, negated: bool = False) -> list[bytes]:
    """``meta mark & MASK == MARK``, or ``!= MARK``."""
    test = _bitwise(_mark_bytes(mask), bytes(4))
    return [_load_meta(_NFT_META_MARK), test, _compare(_mark_bytes(mark), _operator(negated))]


# The mark of a packet's connection, as conntrack keeps it.
_LOAD_CT_MARK = expression("ct", be32(_NFTA_CT_DREG, _NFT_REG_1), be32(_NFTA_CT_KEY, _NFT_CT_MARK))
_SET_CT_MARK = expression("ct", be32(_NFTA_CT_KEY, _NFT_CT_MARK), be32(_NFTA_CT_SREG, _NFT_REG_1))


def match_connection_mark(mark: int, mask: int) -> list[bytes]:
    """``ct mark & MASK == MARK``"""
    return [_LOAD_CT_MARK, _bitwise(_mark_bytes(mask), bytes(4)), _compare(_mark_bytes(mark))]


def set_connection_mark(mark: int, mask: int) -> list[bytes]:
    """``ct mark set ct mark & ~MASK | MARK``: the bits of ``mask``, and no others."""
    change = _bitwise(_mark_bytes(mask ^ 0xFFFFFFFF), _mark_bytes(mark & mask))
    return [_LOAD_CT_MARK, change, _SET_CT_MARK]


def restore_mark() -> list[bytes]:
    """``meta mark set ct mark``: the packet gets the mark of its connection."""
    return [_LOAD_CT_MARK, _SET_MARK]


# --- sets and maps ----------------------------------------------------------------------------------


def match_source_in(version: int, set_name: str) -> list[bytes]:
    """``ip saddr @SET``, or ``ip6``, by IP ``version``."""
    look = expression("lookup", string(_NFTA_LOOKUP_SET, set_name), be32(_NFTA_LOOKUP_SREG, _NFT_REG_1))
    return [_load(_NFT_PAYLOAD_NETWORK_HEADER, *_SOURCE[version]), look]


def update_source(version: int, set_name: str, seconds: float) -> list[bytes]:
    """``update @SET { ip saddr timeout SECONDS }``, or ``ip6``: there, and from now on for so long."""
    update = expression(
        "dynset",
        string(_NFTA_DYNSET_SET_NAME, set_name),
        be32(_NFTA_DYNSET_OP, _NFT_DYNSET_OP_UPDATE),
        be32(_NFTA_DYNSET_SREG_KEY, _NFT_REG_1),
        be64(_NFTA_DYNSET_TIMEOUT, round(seconds * 1000)),
    )
    return [_load(_NFT_PAYLOAD_NETWORK_HEADER, *_SOURCE[version]), update]


def verdict_by_destination(version: int, map_name: str) -> list[bytes]:
    """``ip daddr . meta l4proto . th dport vmap @MAP``, or ``ip6``; see `nft_sets.destination_key`."""
    offset, length = _DESTINATION[version]
    after = _NFT_REG32_00 + length // 4
    return [
        _load(_NFT_PAYLOAD_NETWORK_HEADER, offset, length),
        _load_meta(_NFT_META_L4PROTO, after),
        _load(_NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, after + 1),
        expression(
            "lookup",
            string(_NFTA_LOOKUP_SET, map_name),
            be32(_NFTA_LOOKUP_SREG, _NFT_REG_1),
            be32(_NFTA_LOOKUP_DREG, _NFT_REG_VERDICT),
        ),
    ]


# --- verdicts ---------------------------------------------------------------------------------------


def goto(chain: str) -> list[bytes]:
    """``goto CHAIN``"""
    verdict = goto_data(_NFTA_IMMEDIATE_DATA, chain)
    return [expression("immediate", be32(_NFTA_IMMEDIATE_DREG, _NFT_REG_VERDICT), verdict)]


def drop() -> list[bytes]:
    """``drop``"""
    verdict = drop_data(_NFTA_IMMEDIATE_DATA)
    return [expression("immediate", be32(_NFTA_IMMEDIATE_DREG, _NFT_REG_VERDICT), verdict)]


def accept() -> list[bytes]:
    """``accept``: what has come so far goes through this chain no further."""
    verdict = accept_data(_NFTA_IMMEDIATE_DATA)
    return [expression("immediate", be32(_NFTA_IMMEDIATE_DREG, _NFT_REG_VERDICT), verdict)]


def tproxy(address: IPAddress, port: int) -> list[bytes]:
    """``tproxy to ADDRESS:PORT``, in a chain of type filter at prerouting, of the address's own family.

    The packet goes to the socket there, TCP's or UDP's, or to the one that has accepted its connection.
    Those of other protocols match no more.
    """
    return [
        _immediate(address.packed, _NFT_REG_1),
        _immediate(port_bytes(port), _NFT_REG_2),
        expression(
            "tproxy",
            be32(_NFTA_TPROXY_FAMILY, FAMILIES["ip" if address.version == 4 else "ip6"]),
            be32(_NFTA_TPROXY_REG_ADDR, _NFT_REG_1),
            be32(_NFTA_TPROXY_REG_PORT, _NFT_REG_2),
        ),
    ]


def dnat(address: IPAddress, port: int) -> list[bytes]:
    """``dnat to ADDRESS:PORT``, in a chain that one of type nat at prerouting or output leads to."""
    return [
        _immediate(address.packed, _NFT_REG_1),
        _immediate(port_bytes(port), _NFT_REG_2),
        expression(
            "nat",
            be32(_NFTA_NAT_TYPE, _NFT_NAT_DNAT),
            be32(_NFTA_NAT_FAMILY, FAMILIES["ip" if address.version == 4 else "ip6"]),
            be32(_NFTA_NAT_REG_ADDR_MIN, _NFT_REG_1),
            be32(_NFTA_NAT_REG_PROTO_MIN, _NFT_REG_2),
        ),
    ]


def redirect(port: int) -> list[bytes]:
    """``redirect to :PORT``, in a chain of type nat at prerouting or output."""
    to_port = expression("redir", be32(_NFTA_REDIR_REG_PROTO_MIN, _NFT_REG_1))
    return [_immediate(port_bytes(port), _NFT_REG_1), to_port]


def masquerade() -> list[bytes]:
    """``masquerade``, in a chain of type nat at postrouting."""
    return [expression("masq")]


def reject_tcp() -> list[bytes]:
    """``reject with tcp reset``, after a match of TCP."""
    return [expression("reject", be32(_NFTA_REJECT_TYPE, _NFT_REJECT_TCP_RST), u8(_NFTA_REJECT_ICMP_CODE, 0))]


def reject(version: int) -> list[bytes]:
    """``reject with icmp port-unreachable``, or ``icmpv6``, by IP ``version``."""
    return [
        expression(
            "reject",
            be32(_NFTA_REJECT_TYPE, _NFT_REJECT_ICMP_UNREACH),
            u8(_NFTA_REJECT_ICMP_CODE, _PORT_UNREACHABLE[version]),
        )
    ]
