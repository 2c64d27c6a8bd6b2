"""Who lives on one node: identities that may need a certificate there, and what of that has changed.

Rules: counted as workloads come and go, so that a change costs what it changes; workloads of other nodes cost a look.
Does not belong here: fetching and forgetting certificates (see `proxy.ztunnel`).
"""

from typing import NamedTuple

from netwarren.mesh.model import Identity, Workload


class Movement(NamedTuple):
    """``here``: identities of workloads that take HBONE; ``gone``: those of which there is no workload any more."""

    here: tuple[Identity, ...]
    gone: tuple[Identity, ...]


class Residents:
    """The identities of the workloads of ``node``; without a name of nobody."""

    def __init__(self, node: str = "") -> None:
        self._node = node
        self._all: dict[Identity, int] = {}
        self._encrypted: dict[Identity, int] = {}
        self._moved: dict[Identity, None] = {}

    def add(self, workload: Workload) -> None:
        self._count(workload, 1)

    def remove(self, workload: Workload) -> None:
        """One that was added, as it was."""
        self._count(workload, -1)

    def clear(self) -> None:
        """All have gone."""
        self._moved |= dict.fromkeys(self._all)
        self._all.clear()
        self._encrypted.clear()

    def movement(self) -> Movement:
        """What has changed since this was last asked."""
        moved, self._moved = self._moved, {}
        return Movement(
            tuple([each for each in moved if each in self._encrypted]),
            tuple([each for each in moved if each not in self._all]),
        )

    def _count(self, workload: Workload, by: int) -> None:
        if not self._node or workload.node != self._node:
            return
        identity = workload.identity
        self._moved[identity] = None
        _add(self._all, identity, by)
        if workload.protocol == "HBONE" or workload.native_tunnel:
            _add(self._encrypted, identity, by)


def _add(counts: dict[Identity, int], identity: Identity, by: int) -> None:
    left = counts.get(identity, 0) + by
    if left:
        counts[identity] = left
    else:
        del counts[identity]
