"""Blank namespaces made ahead: making one takes longer than all that is then done in it.

Making a namespace costs the caller 0.4 to 0.9 ms with its settings and its netlink socket, a third of what a
pod takes. So the ferry makes some while the test goes on, as many as tests were seen to want at once.
Rules: one made ahead is as good as one made on the spot, and nobody has been in it; a stock is as deep as
often as it was found empty, within bounds; it is filled up when a cluster has closed, or when it was found empty,
and not while a cluster is built from it, whose thread would wait for the ferry at every turn (the interpreter's
lock, the kernel's network lock); what cannot be made ahead is not missed.
Does not belong here: what is wired between namespaces (see `wiring`), roots (see `roots`).
"""

import atexit
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TypeAlias

from netwarren.errors import KernelError, NetwarrenError
from netwarren.kernel import descriptors, netns, sysctl
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry
from netwarren.topology.operations import Sysctl

MOST = 16
"""So many wait for each kind of settings; the kernel keeps about 0.33 MB for each."""

Blank: TypeAlias = tuple[Namespace, Netlink]
Settings: TypeAlias = Sequence[Sysctl]

# Without a lock: an interruption (Ctrl-C) may come between any two lines, and must leave nobody waiting for one.
_waiting: defaultdict[Settings, deque[Blank]] = defaultdict(deque)
_depths: dict[Settings, int] = {}


def make(label: str, settings: Settings) -> Blank:
    """A new namespace with ``settings``, and its netlink socket; leaves the calling thread in it."""
    namespace = netns.create(label)
    try:
        for setting in settings:
            _set(setting, label)
        return namespace, Netlink(label)
    except BaseException:
        namespace.close()
        raise


def take(settings: Settings) -> Blank | None:
    """One made ahead with ``settings``, or None; then one more is wanted from now on."""
    blank = take_now(settings)
    if blank is None:
        _depths[settings] = min(_depths.get(settings, 0) + 1, MOST)
        fill_up()
    return blank


def take_now(settings: Settings) -> Blank | None:
    """`take`, where it has just been tried."""
    try:
        return _waiting[settings].pop()
    except IndexError:
        return None


def fill_up() -> None:
    """Have as many made, soon, as are wanted at once."""
    ferry.later(_make_next)


def empty() -> None:
    """Let go of all that wait, and learn anew how many are wanted."""
    _depths.clear()
    for waiting in list(_waiting.values()):
        while waiting:
            _release(waiting.pop())


def _make_next() -> None:
    short = (settings for settings, depth in list(_depths.items()) if len(_waiting[settings]) < depth)
    settings = next(short, None)
    # Descriptors are the user's first: a stock does not raise the limit for itself.
    if settings is None or not descriptors.plenty():
        return
    try:
        blank = make("a blank namespace", settings)
    except NetwarrenError:
        return  # whoever needs one is told
    if not _depths:  # `empty` was called meanwhile
        _release(blank)
        return
    _waiting[settings].append(blank)
    fill_up()  # the others one by one: nobody who needs the ferry waits for more than one


def _release(blank: Blank) -> None:
    for each in blank:
        each.close()


def _set(setting: Sysctl, where: str) -> None:
    try:
        sysctl.write(setting.name, setting.value, where=where)
    except KernelError:
        if setting.required:
            raise


descriptors.spare(empty)
os.register_at_fork(after_in_child=empty)  # there they are copies; the parent goes on using the originals
atexit.register(empty)  # their sockets would be complained of (ResourceWarning)
