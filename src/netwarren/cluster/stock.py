"""Blank namespaces made ahead: making one takes longer than all that is then done in it.

Making a namespace costs the caller 0.4 to 0.9 ms with its settings and its netlink socket, a third of what a
pod takes. So the ferry makes some while the test goes on, as many as tests were seen to want at once.
Rules: one made ahead is as good as one made on the spot, and nobody has been in it; a stock is as deep as
often as it was found empty, within bounds; what cannot be made ahead is not missed.
Does not belong here: what is wired between namespaces (see `wiring`), roots (see `roots`).
"""

import atexit
import os
import resource
import threading
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from netwarren.errors import KernelError, NetwarrenError
from netwarren.kernel import netns, sysctl
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry
from netwarren.topology.operations import Sysctl

MOST = 16
"""So many wait for each kind of settings; the kernel keeps about 0.33 MB for each."""

Blank: TypeAlias = tuple[Namespace, Netlink]
Settings: TypeAlias = Sequence[Sysctl]

_LABEL = "a blank namespace"

_waiting: dict[Settings, list[Blank]] = {}
_depths: dict[Settings, int] = {}
_wanted: set[Settings] = set()
"""Those that the ferry has been asked to fill up."""
_lock = threading.Lock()


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
    """One made ahead with ``settings``, or None; another will be made."""
    with _lock:
        waiting = _waiting.setdefault(settings, [])
        blank = waiting.pop() if waiting else None
        if blank is None:
            _depths[settings] = min(_depths.get(settings, 0) + 1, MOST)
        _ask(settings)
    return blank


def empty() -> None:
    """Let go of all that wait, and learn anew how many are wanted."""
    with _lock:
        gone = [blank for waiting in _waiting.values() for blank in waiting]
        _waiting.clear()
        _depths.clear()
    for namespace, netlink in gone:
        netlink.close()
        namespace.close()


def _ask(settings: Settings) -> None:
    if settings not in _wanted and len(_waiting.get(settings, ())) < _depths.get(settings, 0):
        _wanted.add(settings)
        ferry.later(partial(_make_ahead, settings))


def _make_ahead(settings: Settings) -> None:
    # One at a time, so that nobody who needs the ferry waits for more than one.
    blank: Blank | None = None
    try:
        blank = make(_LABEL, settings)
    except NetwarrenError:
        pass  # whoever needs one is told
    with _lock:
        _wanted.discard(settings)
        if blank is None:
            return
        # Descriptors are the user's first: a stock does not raise the limit for itself.
        short = blank[0].fd * 2 > resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if not short and len(_waiting.get(settings, ())) < _depths.get(settings, 0):
            _waiting.setdefault(settings, []).append(blank)
            _ask(settings)
            return
    namespace, netlink = blank
    netlink.close()
    namespace.close()


def _set(setting: Sysctl, where: str) -> None:
    try:
        sysctl.write(setting.name, setting.value, where=where)
    except KernelError:
        if setting.required:
            raise


def _forget() -> None:
    # In a forked child they are copies; the parent goes on using the originals.
    global _lock
    _lock = threading.Lock()
    _wanted.clear()
    empty()


os.register_at_fork(after_in_child=_forget)
atexit.register(empty)  # their sockets would be complained of (ResourceWarning)
