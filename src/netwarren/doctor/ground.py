"""What the checks stand on: one small cluster, made piece by piece: root, node and pod.

Rules: it lives in the child that tries, and ends with it; the thread stands in root unless a block says
otherwise; links have the indexes below, so that a check need not ask.
Does not belong here: what is tried.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from netwarren.errors import KernelError
from netwarren.kernel import link, netns, sysctl
from netwarren.kernel.netlink import Netlink
from netwarren.sandbox.diagnosis import Facts

LO: Final = 1
ETH0: Final = 2
"""Of node and pod: their way out."""
PORT: Final = 10
"""Of root and node: the other end of the eth0 below them."""
BRIDGE: Final = 11

ROOT4 = IPv4Interface("172.18.0.1/24")
NODE4 = IPv4Interface("172.18.0.2/24")
GATE4 = IPv4Interface("10.0.0.1/32")
POD4 = IPv4Interface("10.0.0.2/32")
ROOT6 = IPv6Interface("fd00:18::1/64")
NODE6 = IPv6Interface("fd00:18::2/64")
GATE6 = IPv6Interface("fd00:10::1/128")
POD6 = IPv6Interface("fd00:10::2/128")

PATIENCE: Final = 3.0
"""Seconds for a packet; a lost SYN is sent again after one."""


def inode(kind: str) -> int:
    """The namespace of a ``kind`` (``user``, ``mnt``) that this process is in."""
    return os.stat(f"/proc/self/ns/{kind}").st_ino


class Ground:
    """The namespaces made so far, each with a netlink socket in it."""

    def __init__(self, machine: Facts) -> None:
        self.machine = machine
        self.outside = {kind: inode(kind) for kind in ("user", "mnt")}
        """The namespaces outside the sandbox."""
        self.refusal: Exception | None = None
        """What entering it met, once it has been tried."""
        self.refused = ""
        """The check that this refusal belongs to."""
        self._namespaces: dict[str, netns.Namespace] = {}
        self._netlinks: dict[str, Netlink] = {}

    def make(self, label: str) -> netns.Namespace:
        """Make a namespace and stay in it."""
        namespace = netns.create(label)
        try:
            # As in a cluster: no link-local addresses, which wait for duplicate detection.
            sysctl.write("net.ipv6.conf.default.addr_gen_mode", 1)
        except KernelError:
            pass  # no IPv6, or no settings at all: both have checks of their own
        self._namespaces[label] = namespace
        self._netlinks[label] = Netlink(label)
        self._netlinks[label].commit([link.set_link(LO, up=True)])
        return namespace

    def namespace(self, label: str) -> netns.Namespace:
        """A namespace made before."""
        return self._namespaces[label]

    def netlink(self, label: str) -> Netlink:
        """Its route netlink socket."""
        return self._netlinks[label]

    @contextmanager
    def inside(self, label: str) -> Iterator[None]:
        """Stand in a namespace for a block, and in root afterwards."""
        netns.enter(self._namespaces[label])
        try:
            yield
        finally:
            netns.enter(self._namespaces["root"])
