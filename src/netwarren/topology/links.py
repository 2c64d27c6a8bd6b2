"""Links as we lay them: their names, interface indexes, MAC and link-local addresses.

Rules: all of it follows from an index or an address, so that two ends and their neighbours agree
without asking anybody.
Does not belong here: which index or address somebody gets (see `model`), making links (see `plan`).
"""

from collections.abc import Sequence
from ipaddress import IPv6Interface

from netwarren.topology.addresses import Interface

LOOPBACK_INDEX = 1

# We choose indexes so that one batch can speak of a link it has only just asked for. The kernel numbers
# the links it makes by itself from 2 up: sit0, tunl0 and their like in every new namespace where those
# modules are loaded, and whatever a program under test makes. Ours start where these do not get.
FIRST_INDEX = 1000

ETH0 = "eth0"
ETH0_INDEX = FIRST_INDEX
BRIDGE = "br0"
BRIDGE_INDEX = FIRST_INDEX
# The root's ends of the nodes, and a node's ends of its pods.
FIRST_VETH_INDEX = FIRST_INDEX + 1

# What a bridge takes: the kernel's BR_MAX_PORTS is 1024, and port 0 is not used.
MOST_BRIDGE_PORTS = 1023

# Pods see it as their router's address, nodes as the root's.
ROUTER_LINK_LOCAL = IPv6Interface("fe80::1/64")

# Locally administered prefixes; 0a:58 is the one CNI derived from addresses.
_MAC_BY_ADDRESS = 0x0A58 << 32
_MAC_BY_VETH_INDEX = 0x0A59 << 32
_MAC_BY_ETH0_INDEX = 0x0A5A << 32

_LOW_32_BITS = 0xFFFFFFFF


def veth_name(index: int) -> str:
    """The name of the end that the root or a node has: at most 14 of 15 bytes, whatever the pod is called."""
    return f"veth{index}"


def veth_mac(index: int) -> str:
    """The MAC of the end that the root or a node has."""
    return _mac(_MAC_BY_VETH_INDEX | index)


def eth0_mac(interfaces: Sequence[Interface], index: int) -> str:
    """The MAC of a pod's or node's eth0, or of the bridge: ``0a:58`` and the four bytes of its IPv4 address.

    Without IPv4, the low four bytes of the IPv6 address; if the host part is wider than that, ``0a:5a``
    and ``index``, the index of the link's other end. So no two on one node, or on the bridge, are equal.
    """
    for interface in interfaces:
        if interface.version == 4:
            return _mac(_MAC_BY_ADDRESS | int(interface))
    number = int(interfaces[0])
    if number & int(interfaces[0].hostmask) > _LOW_32_BITS:
        return _mac(_MAC_BY_ETH0_INDEX | index)
    return _mac(_MAC_BY_ADDRESS | number & _LOW_32_BITS)


def link_local(mac: str) -> IPv6Interface:
    """The link-local address the kernel would make of ``mac`` (modified EUI-64, RFC 4291 appendix A)."""
    number = int(mac.replace(":", ""), 16) ^ 0x02 << 40
    high, low = number >> 24, number & 0xFFFFFF
    return IPv6Interface((0xFE80 << 112 | high << 40 | 0xFFFE << 24 | low, 64))


def _mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")
