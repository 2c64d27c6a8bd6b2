"""The wire of nftables: how a request, an expression and a value look in nfnetlink.

Rules: pure; nftables' numbers are big-endian; what does not fit is refused with `NetlinkFormatError`, a word
that nftables does not know with `UnknownWord`.
Does not belong here: tables, chains and rules (see `nftables`), sets (see `nft_sets`), single expressions.
"""

import struct
from collections.abc import Sequence

from netwarren.errors import NetwarrenError
from netwarren.kernel.netlink import (
    NetlinkFormatError,
    Request,
    attribute,
    nest,
    pack_header,
    parse_attributes,
    unpack_header,
)

NFNL_SUBSYS_NFTABLES = 10  # linux/netfilter/nfnetlink.h

# linux/netfilter/nf_tables.h
NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME = 1
_NFTA_EXPR_DATA = 2
_NFTA_DATA_VALUE = 1
_NFTA_DATA_VERDICT = 2
_NFTA_VERDICT_CODE = 1
_NFTA_VERDICT_CHAIN = 2
_NFT_GOTO = -4
_NF_DROP, _NF_ACCEPT = 0, 1  # linux/netfilter.h

FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
"""NFPROTO_* of linux/netfilter.h, by the words of nft(8)."""
_FAMILY_NAMES = {value: name for name, value in FAMILIES.items()}

NFGENMSG = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource
_U32 = struct.Struct(">I")
_I32 = struct.Struct(">i")
_U64 = struct.Struct(">Q")


class UnknownWord(NetwarrenError, ValueError):
    """A family, hook or policy that nftables has not."""

    def __init__(self, kind: str, word: str, known: Sequence[str]) -> None:
        self.word = word
        super().__init__(f"{word!r} is no {kind} of nftables; there are: {', '.join(known)}")


# --- writing --------------------------------------------------------------------------------------


def value_of(words: dict[str, int], kind: str, word: str) -> int:
    """The number of a word; raises `UnknownWord`."""
    try:
        return words[word]
    except KeyError:
        raise UnknownWord(kind, word, list(words)) from None


def be32(type: int, value: int) -> bytes:
    """An attribute that holds a big-endian number of 32 bits, signed if it is negative."""
    try:
        return attribute(type, (_I32 if value < 0 else _U32).pack(value))
    except struct.error:
        raise NetlinkFormatError(f"{value!r} does not fit attribute {type}, 32 bits wide") from None


def be64(type: int, value: int) -> bytes:
    """An attribute that holds an unsigned big-endian number of 64 bits."""
    try:
        return attribute(type, _U64.pack(value))
    except struct.error:
        raise NetlinkFormatError(f"{value!r} does not fit attribute {type}, 64 bits wide") from None


def port_bytes(value: int) -> bytes:
    """A port as packets carry it."""
    try:
        return value.to_bytes(2, "big")
    except OverflowError:
        raise NetlinkFormatError(f"{value!r} is no port") from None


def string(type: int, value: str) -> bytes:
    """An attribute that holds a NUL-terminated text."""
    return attribute(type, value.encode() + b"\0")


def request(
    message: int, flags: int, family: str, doing: str, *attributes: bytes, needs: str = "nftables"
) -> Request:
    """A request to nftables about something of ``family``."""
    header = pack_header(NFGENMSG, value_of(FAMILIES, "family", family), 0, 0)
    body = header + b"".join(attributes)
    return Request(NFNL_SUBSYS_NFTABLES << 8 | message, flags, body, doing, needs)


def expression(name: str, *attributes: bytes) -> bytes:
    """One expression of a rule."""
    return nest(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nest(_NFTA_EXPR_DATA, *attributes))


def data(type: int, value: bytes) -> bytes:
    """An attribute that holds a value for a register."""
    return nest(type, attribute(_NFTA_DATA_VALUE, value))


def goto_data(type: int, chain: str) -> bytes:
    """An attribute that holds the verdict ``goto CHAIN``."""
    verdict = (be32(_NFTA_VERDICT_CODE, _NFT_GOTO), string(_NFTA_VERDICT_CHAIN, chain))
    return nest(type, nest(_NFTA_DATA_VERDICT, *verdict))


def drop_data(type: int) -> bytes:
    """An attribute that holds the verdict ``drop``."""
    return nest(type, nest(_NFTA_DATA_VERDICT, be32(_NFTA_VERDICT_CODE, _NF_DROP)))


def accept_data(type: int) -> bytes:
    """An attribute that holds the verdict ``accept``."""
    return nest(type, nest(_NFTA_DATA_VERDICT, be32(_NFTA_VERDICT_CODE, _NF_ACCEPT)))


# --- reading --------------------------------------------------------------------------------------


def family_word(body: bytes) -> str:
    """The family that a message is about, in nft's word."""
    family: int = unpack_header(NFGENMSG, body)[0]
    return _FAMILY_NAMES.get(family) or str(family)


def be_number(attributes: dict[int, bytes], type: int) -> int:
    """The unsigned number in an attribute, 0 where there is none."""
    return int.from_bytes(attributes.get(type, b""), "big")


def list_elements(data: bytes) -> list[bytes]:
    """The elements of a list, which `parse_attributes` would take for one another."""
    found, offset = [], 0
    while offset < len(data):
        if len(data) - offset < 4:
            raise NetlinkFormatError(f"{len(data) - offset} stray bytes after the last element")
        length = struct.unpack_from("=H", data, offset)[0]
        element = parse_attributes(data[offset : offset + length])
        found += [element.get(NFTA_LIST_ELEM, b"")]
        offset += max(4, (length + 3) & ~3)
    return found


def parse_verdict(data: bytes) -> str:
    """A verdict in the data of a register or an element: ``drop``, or ``goto CHAIN``; else empty."""
    verdict = parse_attributes(parse_attributes(data).get(_NFTA_DATA_VERDICT, b""))
    if not verdict:
        return ""
    code = int.from_bytes(verdict.get(_NFTA_VERDICT_CODE, b""), "big", signed=True)
    if code == _NFT_GOTO:
        return f"goto {verdict.get(_NFTA_VERDICT_CHAIN, b'').rstrip(bytes(1)).decode(errors='replace')}"
    return "drop" if code == _NF_DROP else str(code)


def parse_value(data: bytes) -> bytes:
    """The value in the data of a register or an element."""
    return parse_attributes(data).get(_NFTA_DATA_VALUE, b"")
