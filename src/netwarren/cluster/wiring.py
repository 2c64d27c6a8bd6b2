"""The wiring of one cluster: its namespaces, and plans carried out in them.

Rules: a plan's step is one batch of netlink requests in one namespace, whatever namespace the calling thread
is in; called under the cluster's lock; a namespace whose making failed is let go at once.
Does not belong here: what a plan contains (see `netwarren.topology.plan`), undoing half a change (see
`cluster`).
"""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

from netwarren.cluster import ended, stock
from netwarren.errors import KernelError
from netwarren.kernel import address, link, neighbour, route
from netwarren.kernel.netlink import Netlink, Request
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry
from netwarren.topology import operations as ops

CARRIER_SECONDS = 2.0
"""How long to wait for the kernel's link watch; it takes well under a millisecond on a machine at peace."""


class Wiring:
    """The namespaces of one cluster by their keys in plans, with a netlink socket for those that stay."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Namespace] = {}
        self._netlinks: dict[str, Netlink] = {}
        self._veths: dict[str, set[int]] = {}

    def create(self, key: str, label: str, settings: stock.Settings) -> Namespace:
        """Make the namespace ``key`` with its netlink socket (`release_netlink`), or have one that was made."""
        blank = stock.take(settings)
        if blank is not None:
            return self.adopt(key, label, *blank)
        return ferry.roam(partial(self._make, key, label, settings))

    def adopt(self, key: str, label: str, namespace: Namespace, netlink: Netlink) -> Namespace:
        """Take in a namespace, and its netlink socket, that somebody gave away."""
        namespace.label = netlink.where = label
        self.namespaces[key], self._netlinks[key] = namespace, netlink
        return namespace

    def _make(self, key: str, label: str, settings: stock.Settings) -> Namespace:
        # While this waited for the ferry, that may have made one.
        return self.adopt(key, label, *(stock.take_now(settings) or stock.make(label, settings)))

    def give_away(self, key: str) -> tuple[Namespace, Netlink]:
        """Forget the namespace ``key`` and leave it, and its netlink socket, to the caller."""
        return self.namespaces.pop(key), self._netlinks.pop(key)

    def netlink(self, key: str) -> Netlink:
        """The netlink socket of the namespace ``key``."""
        return self._netlinks[key]

    def apply(self, steps: Iterable[ops.Step]) -> None:
        """Carry out a plan; raises the first refusal and leaves the rest of the plan undone."""
        for step in steps:
            netlink = self._netlinks[step.namespace]
            batch: list[Request] = []
            for operation in step.operations:
                if isinstance(operation, ops.SettleLink):
                    netlink.commit(batch)
                    batch.clear()
                    _settle(netlink, operation.link)
                    continue
                batch.append(self._request(operation))
                if isinstance(operation, ops.AddVeth):
                    # In a send of its own: the rest of the batch would be carried out all the same, and
                    # where the index is taken, on a link that is somebody else's.
                    netlink.commit(batch)
                    batch.clear()
                    self._veths.setdefault(step.namespace, set()).add(operation.link)
            netlink.commit(batch)

    def undo(self, steps: Iterable[ops.Step]) -> None:
        """Carry out a plan of removals, whatever part of it there is to remove."""
        for step in steps:
            netlink = self._netlinks.get(step.namespace)
            if netlink is not None:
                try:
                    netlink.commit(self.removals(step))
                except KernelError:
                    pass  # every one was tried, and what is refused was never made, or has gone with its link

    def removals(self, step: ops.Step) -> list[Request]:
        """A step of a plan of removals as requests, without those of links that never came to be."""
        ours = self._veths.get(step.namespace, set())
        requests: list[Request] = []
        for operation in step.operations:
            if isinstance(operation, ops.SetDown):
                if operation.link not in ours:
                    continue
                ours.discard(operation.link)
            requests.append(self._request(operation))
        return requests

    def release_netlink(self, key: str) -> None:
        """Close the socket of ``key``, which by itself would keep the namespace alive."""
        netlink = self._netlinks.get(key)
        if netlink is not None:
            netlink.close()
            del self._netlinks[key]

    def discard(self, key: str) -> None:
        """Let the namespace ``key`` end, if there is one; its links end with it."""
        self.release_netlink(key)
        namespace = self.namespaces.pop(key, None)
        if namespace is not None:
            namespace.close()

    def discard_all(self) -> None:
        """Let all namespaces end, soon, and have made those that the next cluster will want."""
        for key in list(self._netlinks):
            self.release_netlink(key)
        gone = list(self.namespaces.values())
        self.namespaces.clear()
        ended.let_go(gone)
        stock.fill_up()

    def _request(self, operation: ops.Operation) -> Request:
        if isinstance(operation, ops.AddVeth):
            return link.add_veth(
                operation.name,
                operation.link,
                mac=operation.mac,
                peer=operation.peer,
                peer_index=operation.peer_link,
                peer_mac=operation.peer_mac,
                peer_netns=self.namespaces[operation.peer_namespace].fd,
                master=operation.master,
                up=False,
            )
        return _request(operation)


def _settle(netlink: Netlink, index: int) -> None:
    """Wait until the carrier of a link whose other end has just come up is effective.

    Asking makes it so from Linux 6.8 on; before, the kernel's link watch is a moment behind.
    """
    deadline = time.monotonic() + CARRIER_SECONDS
    while not link.running(netlink, index) and time.monotonic() < deadline:
        time.sleep(0.0002)


@lru_cache(4096, typed=True)  # operations of two kinds may be equal
def _request(operation: ops.Operation) -> Request:
    # The clusters of a suite are much alike, and making a request takes longer than finding it.
    return _REQUESTS[type(operation)](operation)


_REQUESTS: dict[type, Callable[[Any], Request]] = {
    ops.AddBridge: lambda o: link.add_bridge(o.name, o.link, mac=o.mac, up=False),
    ops.SetUp: lambda o: link.set_link(o.link, up=True),
    ops.SetDown: lambda o: link.set_link(o.link, up=False),
    ops.SettleAddress: lambda o: route.settle_address(o.link, o.address),
    ops.AddAddress: lambda o: address.add_address(o.link, o.interface, prefix_route=o.prefix_route),
    ops.AddNeighbour: lambda o: neighbour.add_neighbour(o.link, o.address, o.mac, replace=True),
    ops.DeleteNeighbour: lambda o: neighbour.delete_neighbour(o.link, o.address),
    ops.AddRoute: lambda o: route.add_route(
        o.destination, via=o.via, index=o.link, source=o.source, kind=o.kind
    ),
    ops.DeleteRoute: lambda o: route.delete_route(o.destination, via=o.via, index=o.link, kind=o.kind),
}
