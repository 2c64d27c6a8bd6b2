"""Namespaces of closed clusters: let go several at a time, because the kernel cleans up by the batch.

For each batch, be it of one or of twelve, the kernel's cleanup_net() waits for the same grace periods, for some of
them with the network lock held, and every cluster made meanwhile waits, too. So those of a closed cluster are held
until there are enough; measured over 400 clusters of a node and three pods, the mean is 0.7 to 0.75 times what it
is where each ends by itself, and grows again from about twenty on.
Rules: only what nobody can reach any more is held, and nothing runs in it; a bounded number, for as long as it takes.
Does not belong here: roots, which are used again (see `roots`); a pod that is removed from a cluster ends at once.
"""

import os
from collections import deque
from collections.abc import Iterable

from netwarren.kernel import descriptors
from netwarren.kernel.netns import Namespace

ENOUGH = 12
"""The kernel keeps about 0.33 MB for each."""

# Without a lock: an interruption (Ctrl-C) may come between any two lines, and must leave nobody waiting for one.
_held: deque[Namespace] = deque()


def let_go(namespaces: Iterable[Namespace]) -> None:
    """Let ``namespaces`` end, soon."""
    _held.extend(namespaces)
    if len(_held) >= ENOUGH:
        empty()


def empty() -> None:
    """Let all that are held end now."""
    while _held:
        try:
            _held.popleft().close()
        except IndexError:
            return  # another thread was faster


descriptors.spare(empty)
os.register_at_fork(after_in_child=empty)  # there they are copies, and would keep the parent's alive
