"""Roots that are used again: a bridge costs little to make and much to end.

Ending one makes the kernel wait about 23 ms with its network lock held (an rcu_barrier() in
br_multicast_dev_del()), and every cluster made meanwhile waits, too: measured over 500 clusters, 97 % of all
that cleaning up took. So a closed cluster's root waits here for the next cluster of the same ranges.
Rules: only a root that nobody has stepped into is kept, and only one that reads like a new one is given
out: lo, the bridge, its addresses and routes, and nothing else; a bounded number waits.
Does not belong here: making a root (see `cluster`), namespaces of nodes and pods, which just end.
"""

import atexit
import os
import threading
from collections.abc import Hashable

from netwarren.errors import NetwarrenError
from netwarren.kernel import address, link, neighbour, route
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.netns import Namespace
from netwarren.topology.links import BRIDGE_INDEX, LOOPBACK_INDEX

MOST_WAITING = 32

Root = tuple[Namespace, Netlink]

# By what they were made for, the one that has waited longest first: its old nodes are gone soonest.
_waiting: dict[Hashable, list[Root]] = {}
_looks: dict[Hashable, object] = {}
_lock = threading.Lock()

_FOLLOWING = frozenset({"local", "anycast", "broadcast", "multicast"})


def take(made_for: Hashable) -> Root | None:
    """A root made for the same as this one and just like a new one, or None."""
    with _lock:
        waiting = _waiting.get(made_for)
        if not waiting:
            return None
        root = waiting.pop(0)
        try:
            if _look(root[1]) == _looks.get(made_for):
                return root
        except NetwarrenError:
            _release(root)
            return None
        waiting.append(root)  # the kernel has not taken its old nodes' ports away yet, or never will
        return None


def learn(made_for: Hashable, netlink: Netlink) -> None:
    """Look at a root that has just been made, so that others can be compared with it."""
    if made_for not in _looks:
        _looks[made_for] = _look(netlink)


def keep(made_for: Hashable, root: Root) -> None:
    """Take in the root of a closed cluster, whose nodes and routes are gone or going."""
    with _lock:
        waiting = _waiting.setdefault(made_for, [])
        waiting.append(root)
        surplus = [waiting.pop(0)] if sum(map(len, _waiting.values())) > MOST_WAITING else []
    for each in surplus:
        _release(each)


def empty() -> None:
    """Let go of all that wait."""
    with _lock:
        gone = [root for waiting in _waiting.values() for root in waiting]
        _waiting.clear()
    for root in gone:
        _release(root)


def _release(root: Root) -> None:
    namespace, netlink = root
    netlink.close()
    namespace.close()


def _look(netlink: Netlink) -> object:
    """All that could tell a root from a new one, apart from counters; None where it has links besides.

    And apart from the routes that follow from addresses: the kernel makes those of IPv6 in a work queue,
    and the one for multicast once the bridge has its first carrier.
    """
    links = link.links(netlink, statistics=False)
    if not {each.index for each in links} <= {LOOPBACK_INDEX, BRIDGE_INDEX}:
        return None
    return (
        [(each.index, each.name, each.up, each.mtu, each.mac, each.master) for each in links],
        set(address.addresses(netlink)),
        {each for each in route.routes(netlink, table=None) if each.kind not in _FOLLOWING},
        set(neighbour.neighbours(netlink)),
    )


def _forget() -> None:
    # In a forked child they are copies; the parent goes on using the originals.
    global _lock
    _lock = threading.Lock()
    empty()


os.register_at_fork(after_in_child=_forget)
atexit.register(empty)  # their sockets would be complained of (ResourceWarning)
