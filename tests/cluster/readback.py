"""What the kernel says of a machine: links, addresses, routes, neighbours, read anew at each call.

Rules: links that a removed pod left behind, down and without anything on them, are nobody's and are not
listed; the kernel takes them away when it gets to it.
Does not belong here: packets (see `traffic`), what is expected.
"""

import contextlib
import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from netwarren import Cluster, KernelError
from netwarren.kernel import address, link, neighbour, netns, route
from netwarren.kernel.address import Address
from netwarren.kernel.link import Link
from netwarren.kernel.neighbour import Neighbour
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.route import Route
from netwarren.runtime.machine import Machine

T = TypeVar("T")


class Inside(NamedTuple):
    """A machine as the kernel has it."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...]

    def link(self, name: str) -> Link:
        (found,) = [each for each in self.links if each.name == name]
        return found

    def addresses_on(self, name: str) -> list[str]:
        index = self.link(name).index
        return [str(each.interface) for each in self.addresses if each.index == index]

    def lines(self) -> list[str]:
        """All of it as text, in one order, to compare."""
        links = {each.index: each for each in self.links}
        lines = [f"{each} {each.mac} {each.up}" for each in self.links]
        for group in (self.addresses, self.routes, self.neighbours):
            lines += sorted(str(each) for each in group if each.index is None or each.index in links)
        return lines


def ask(machine: Machine, question: Callable[[Netlink], T]) -> T:
    """The answer to ``question`` by a netlink socket of ``machine``."""

    def call() -> T:
        with Netlink(machine.label) as netlink:
            return question(netlink)

    return machine.run(call)


def inside(machine: Machine) -> Inside:
    def read(netlink: Netlink) -> Inside:
        # Who lists links is told of carriers as the kernel's link watch has them; it is behind on a busy machine.
        with contextlib.suppress(KernelError):  # of a link that goes just now
            netlink.commit([link.settle_link(each.index) for each in link.links(netlink)])
        links = link.links(netlink)
        return Inside(
            tuple(each for each in links if each.up),
            tuple(address.addresses(netlink)),
            tuple(route.routes(netlink)),
            tuple(neighbour.neighbours(netlink)),
        )

    return ask(machine, read)


def way(machine: Machine, to: str, source: str | None = None) -> Route | str:
    """The route to an address, or the name of the error where there is none."""
    wanted, by = ip_address(to), ip_address(source) if source else None
    try:
        return ask(machine, lambda netlink: route.lookup(netlink, wanted, by))
    except KernelError as error:
        return str(error).split(": ")[1].split()[0]


def members(cluster: Cluster) -> list[Machine]:
    """The machines there are; builds none."""
    return [cluster.root, *cluster.built_nodes.values(), *cluster.pods.values()]


class State(NamedTuple):
    """A whole cluster, to compare before and after."""

    machines: dict[str, int]
    """Names and namespaces."""
    kernel: dict[str, list[str]]
    picture: str
    published: list[str]


def state(cluster: Cluster) -> State:
    from netwarren.sandbox import names

    machines = members(cluster)
    return State(
        {machine.label: machine.inode for machine in machines},
        {machine.label: inside(machine).lines() for machine in machines},
        cluster.describe(),
        sorted(
            name
            for name in os.listdir(names.directory())
            if name == cluster.netns_name or name.endswith(f".{cluster.netns_name}")
        ),
    )


def standing() -> int:
    """The namespace the calling thread stands in."""
    return netns.inode_of()
