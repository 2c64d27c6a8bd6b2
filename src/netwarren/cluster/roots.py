"""Roots that are used again: a bridge costs little to make and much to end.

Ending one makes the kernel wait about 23 ms with its network lock held (an rcu_barrier() in
br_multicast_dev_del()), and every cluster made meanwhile waits, too: measured over 500 clusters, 97 % of all
that cleaning up took. So a closed cluster's root waits here for the next cluster of the same ranges.
Rules: only a root that nobody has stepped into is kept, and only one that reads like a new one is given
out: lo, the bridge, its addresses and routes, and nothing else; a bounded number waits. When one comes to
wait, the ferry looks ahead, so that one is ready; nothing changes a root that waits but the end of its old nodes.
Does not belong here: making a root (see `cluster`), namespaces of nodes and pods, which just end.
"""

import atexit
import os
import threading
from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

from netwarren.errors import KernelError, NetwarrenError
from netwarren.kernel import address, descriptors, link, neighbour, route
from netwarren.kernel.netlink import Netlink, Request
from netwarren.kernel.netns import Namespace
from netwarren.names.server import Sockets
from netwarren.runtime import ferry
from netwarren.topology.links import BRIDGE_INDEX, LOOPBACK_INDEX

MOST_WAITING = 16


class Waiting(NamedTuple):
    """A root, its netlink socket, and the sockets of its name server, at which nobody answers now."""

    namespace: Namespace
    netlink: Netlink
    sockets: Sockets


# By what they were made for, the one that has waited longest first: its old nodes are gone soonest. With what
# of its last cluster is still to be removed.
_waiting: dict[Hashable, list[tuple[Waiting, Sequence[Request]]]] = {}
_ready: dict[Hashable, Waiting] = {}
"""One that has been looked at; no more, because a root that waits costs the kernel some memory, not time."""
_looks: dict[Hashable, object] = {}
_lock = threading.Lock()

_FOLLOWING = frozenset({"local", "anycast", "broadcast", "multicast"})


def take(made_for: Hashable) -> Waiting | None:
    """A root made for the same as this one and just like a new one, or None."""
    with _lock:
        root = _ready.pop(made_for, None)
    return root if root is not None else _like_new(made_for)


def learn(made_for: Hashable, netlink: Netlink) -> None:
    """Look at a root that has just been made, so that others can be compared with it."""
    if made_for not in _looks:
        _looks[made_for] = _look(netlink)


def keep(made_for: Hashable, root: Waiting, left: Sequence[Request] = ()) -> None:
    """Take in the root of a closed cluster, whose nodes are gone or going; ``left`` removes what they leave."""
    with _lock:
        waiting = _waiting.setdefault(made_for, [])
        waiting.append((root, left))
        if made_for not in _ready:
            ferry.later(partial(_look_ahead, made_for))
    _keep_to_bound(made_for)


def waiting() -> list[Waiting]:
    """All that wait."""
    with _lock:
        return [*_ready.values(), *(root for kept in _waiting.values() for root, _left in kept)]


def empty() -> None:
    """Let go of all that wait."""
    gone = waiting()
    with _lock:
        _waiting.clear()
        _ready.clear()
    for root in gone:
        _release(root)


def _look_ahead(made_for: Hashable) -> None:
    root = _like_new(made_for) if made_for not in _ready else None
    if root is None:
        return
    with _lock:
        if made_for not in _ready:
            _ready[made_for] = root
        else:
            _waiting.setdefault(made_for, []).insert(0, (root, ()))
    _keep_to_bound(made_for)  # more may have come while this one was looked at


def _keep_to_bound(made_for: Hashable) -> None:
    """Let go of one where there is one too many."""
    with _lock:
        waiting = _waiting.get(made_for)
        too_many = sum(map(len, _waiting.values())) + len(_ready) > MOST_WAITING
        surplus = waiting.pop(0)[0] if waiting and too_many else None
    if surplus is not None:
        _release(surplus)


def _like_new(made_for: Hashable) -> Waiting | None:
    # Without the lock while it looks: nobody should wait for that who takes or keeps another.
    with _lock:
        waiting = _waiting.get(made_for)
        root, left = waiting.pop(0) if waiting else (None, ())
    if root is None:
        return None
    try:
        root.netlink.commit(left)
    except KernelError:
        pass  # each was tried; what could not be removed is seen next
    try:
        if _look(root.netlink) == _looks.get(made_for):
            return root
    except NetwarrenError:
        _release(root)
        return None
    with _lock:  # the kernel has not taken its old nodes' ports away yet, or never will
        _waiting.setdefault(made_for, []).append((root, ()))
    _keep_to_bound(made_for)
    return None


def _release(root: Waiting) -> None:
    for each in root:
        each.close()


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


descriptors.spare(empty)
os.register_at_fork(after_in_child=_forget)
atexit.register(empty)  # their sockets would be complained of (ResourceWarning)
