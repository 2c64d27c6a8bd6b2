"""Sets and maps of nftables: addresses with a timeout, and verdicts by destination.

Rules: verbs make a `Request`, which `nftables.commit` carries out; a key is bytes, each part of it padded to
four (linux/netfilter/nf_tables.h). Key and data types are for whoever lists them: to the kernel, they are bytes.
Does not belong here: rules that look up or update (see `nft_expressions`).
"""

from ipaddress import ip_address
from typing import NamedTuple

from netwarren.kernel.address import IPAddress
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    NetlinkFormatError,
    Request,
    nest,
    pack_header,
    parse_attributes,
    text,
)
from netwarren.kernel.nft_expressions import PROTOCOLS
from netwarren.kernel.nft_wire import (
    FAMILIES,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_LIST_ELEM,
    be32,
    be64,
    be_number,
    data,
    drop_data,
    family_word,
    goto_data,
    list_elements,
    parse_value,
    parse_verdict,
    port_bytes,
    request,
    string,
    value_of,
)

# linux/netfilter/nf_tables.h
_NFT_MSG_NEWSET = 9
_NFT_MSG_GETSET = 10
_NFT_MSG_DELSET = 11
_NFT_MSG_NEWSETELEM = 12
_NFT_MSG_GETSETELEM = 13
_NFT_MSG_DELSETELEM = 14
_NFTA_SET_TABLE = 1
_NFTA_SET_NAME = 2
_NFTA_SET_FLAGS = 3
_NFTA_SET_KEY_TYPE = 4
_NFTA_SET_KEY_LEN = 5
_NFTA_SET_DATA_TYPE = 6
_NFTA_SET_DATA_LEN = 7
_NFTA_SET_ID = 10
_NFTA_SET_TIMEOUT = 11
_NFTA_SET_ELEM_LIST_TABLE = 1
_NFTA_SET_ELEM_LIST_SET = 2
_NFTA_SET_ELEM_LIST_ELEMENTS = 3
_NFTA_SET_ELEM_KEY = 1
_NFTA_SET_ELEM_DATA = 2
_NFTA_SET_ELEM_EXPIRATION = 5
_NFT_SET_MAP = 0x08
_NFT_SET_TIMEOUT = 0x10
_NFT_SET_EVAL = 0x20
_NFT_DATA_VERDICT = 0xFFFFFF00

# The types of nft(8), include/datatype.h of nftables; in a concatenation each takes six bits.
_TYPE_ADDRESS = {"ip": 7, "ip6": 8}
_TYPE_PROTOCOL = 12
_TYPE_PORT = 13
_ADDRESS_BYTES = {"ip": 4, "ip6": 16}

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def destination_key(address: IPAddress, protocol: str, port: int) -> bytes:
    """``ADDRESS . PROTOCOL . PORT`` as a key of a map made by `add_destination_map`."""
    return address.packed + bytes([PROTOCOLS[protocol], 0, 0, 0]) + port_bytes(port) + bytes(2)


def parse_destination_key(key: bytes) -> tuple[IPAddress, str, int]:
    """The address, protocol and port in a key of such a map."""
    size = len(key) - 8
    if size not in (4, 16):
        raise NetlinkFormatError(f"a key of {len(key)} bytes is no address, protocol and port")
    protocol = _PROTOCOL_NAMES.get(key[size]) or str(key[size])
    return ip_address(key[:size]), protocol, int.from_bytes(key[size + 4 : size + 6], "big")


# --- verbs ----------------------------------------------------------------------------------------


def _set_request(
    message: int, flags: int, family: str, table: str, name: str, verb: str, *more: bytes
) -> Request:
    names = (string(_NFTA_SET_TABLE, table), string(_NFTA_SET_NAME, name))
    return request(message, flags, family, f"{verb} {family} {table} {name}", *names, *more)


def add_destination_map(family: str, table: str, name: str) -> Request:
    """A map from destinations to verdicts.

    ``nft create map FAMILY TABLE NAME { type ipv4_addr . inet_proto . inet_service : verdict; }``
    """
    address = value_of(_TYPE_ADDRESS, "family with addresses", family)
    return _set_request(
        _NFT_MSG_NEWSET,
        NLM_F_CREATE | NLM_F_EXCL,
        family,
        table,
        name,
        "add map",
        be32(_NFTA_SET_FLAGS, _NFT_SET_MAP),
        be32(_NFTA_SET_KEY_TYPE, address << 12 | _TYPE_PROTOCOL << 6 | _TYPE_PORT),
        be32(_NFTA_SET_KEY_LEN, _ADDRESS_BYTES[family] + 8),
        be32(_NFTA_SET_DATA_TYPE, _NFT_DATA_VERDICT),
        be32(_NFTA_SET_DATA_LEN, 0),
        be32(_NFTA_SET_ID, 1),  # for the same batch, which goes by the name
    )


def add_address_set(family: str, table: str, name: str, seconds: float) -> Request:
    """A set of addresses that packets fill, each of which stays ``seconds`` after it was last updated.

    ``nft create set FAMILY TABLE NAME { type ipv4_addr; flags dynamic,timeout; timeout SECONDS; }``

    Without a size, unlike nft(8), which says 65535: the kernel would make room for them all at once (1 MB, 8 ms).
    """
    return _set_request(
        _NFT_MSG_NEWSET,
        NLM_F_CREATE | NLM_F_EXCL,
        family,
        table,
        name,
        "add set",
        be32(_NFTA_SET_FLAGS, _NFT_SET_TIMEOUT | _NFT_SET_EVAL),
        be32(_NFTA_SET_KEY_TYPE, value_of(_TYPE_ADDRESS, "family with addresses", family)),
        be32(_NFTA_SET_KEY_LEN, _ADDRESS_BYTES[family]),
        be32(_NFTA_SET_ID, 1),
        be64(_NFTA_SET_TIMEOUT, round(seconds * 1000)),
    )


def delete_set(family: str, table: str, name: str) -> Request:
    """A set or map that no rule speaks of, with what is in it. ``nft delete set FAMILY TABLE NAME``."""
    return _set_request(_NFT_MSG_DELSET, 0, family, table, name, "delete set")


def _element_request(
    message: int, flags: int, family: str, table: str, name: str, verb: str, element: bytes
) -> Request:
    return request(
        message,
        flags,
        family,
        f"{verb} element {family} {table} {name}",
        string(_NFTA_SET_ELEM_LIST_TABLE, table),
        string(_NFTA_SET_ELEM_LIST_SET, name),
        nest(_NFTA_SET_ELEM_LIST_ELEMENTS, nest(NFTA_LIST_ELEM, element)),
    )


def add_verdict(family: str, table: str, name: str, key: bytes, chain: str) -> Request:
    """What a map says of ``key``: to go to ``chain``, or with no chain, to drop.

    ``nft create element FAMILY TABLE NAME { KEY : goto CHAIN }``
    """
    verdict = goto_data(_NFTA_SET_ELEM_DATA, chain) if chain else drop_data(_NFTA_SET_ELEM_DATA)
    element = data(_NFTA_SET_ELEM_KEY, key) + verdict
    flags = NLM_F_CREATE | NLM_F_EXCL
    return _element_request(_NFT_MSG_NEWSETELEM, flags, family, table, name, "add", element)


def delete_element(family: str, table: str, name: str, key: bytes) -> Request:
    """``nft delete element FAMILY TABLE NAME { KEY }``"""
    element = data(_NFTA_SET_ELEM_KEY, key)
    return _element_request(_NFT_MSG_DELSETELEM, 0, family, table, name, "delete", element)


# --- reading --------------------------------------------------------------------------------------


class Set(NamedTuple):
    """A set or map as the kernel describes it."""

    family: str
    table: str
    name: str
    map: bool
    timeout: float
    """Seconds; 0 where elements stay."""


class Element(NamedTuple):
    """An element of a set or map as the kernel describes it."""

    key: bytes
    verdict: str
    """``goto CHAIN`` or ``drop``; empty in a set."""
    expires: float
    """In so many seconds; 0 where it stays."""


def parse_set(body: bytes) -> Set:
    """A `Set` from the body of an NFT_MSG_NEWSET."""
    found = parse_attributes(body, NFGENMSG.size)
    return Set(
        family=family_word(body),
        table=text(found, _NFTA_SET_TABLE),
        name=text(found, _NFTA_SET_NAME),
        map=bool(be_number(found, _NFTA_SET_FLAGS) & _NFT_SET_MAP),
        timeout=be_number(found, _NFTA_SET_TIMEOUT) / 1000,
    )


def parse_elements(body: bytes) -> list[Element]:
    """The `Element`s in the body of an NFT_MSG_NEWSETELEM."""
    found = parse_attributes(body, NFGENMSG.size)
    elements = map(parse_attributes, list_elements(found.get(_NFTA_SET_ELEM_LIST_ELEMENTS, b"")))
    return [
        Element(
            key=parse_value(each.get(_NFTA_SET_ELEM_KEY, b"")),
            verdict=parse_verdict(each.get(_NFTA_SET_ELEM_DATA, b"")),
            expires=be_number(each, _NFTA_SET_ELEM_EXPIRATION) / 1000,
        )
        for each in elements
    ]


def _dump(netlink: Netlink, message: int, family: str, doing: str, *attributes: bytes) -> list[bytes]:
    header = pack_header(NFGENMSG, FAMILIES.get(family, 0), 0, 0)
    body = header + b"".join(attributes)
    return netlink.dump(Request(NFNL_SUBSYS_NFTABLES << 8 | message, 0, body, doing, "nftables"))


def sets(netlink: Netlink) -> list[Set]:
    """The sets and maps of every table; ``nft list sets``, ``nft list maps``."""
    return [parse_set(body) for body in _dump(netlink, _NFT_MSG_GETSET, "", "list the nftables sets")]


def elements(netlink: Netlink, family: str, table: str, name: str) -> list[Element]:
    """What is in a set or map; ``nft list set FAMILY TABLE NAME``."""
    bodies = _dump(
        netlink,
        _NFT_MSG_GETSETELEM,
        family,
        f"list set {family} {table} {name}",
        string(_NFTA_SET_ELEM_LIST_TABLE, table),
        string(_NFTA_SET_ELEM_LIST_SET, name),
    )
    return [element for body in bodies for element in parse_elements(body)]
