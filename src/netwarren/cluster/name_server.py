"""A cluster's place for questions: the sockets in its root from its first moment, and what answers, when asked.

Rules: what decides about names (`ClusterDNS`) is loaded and made by the first question, or the first look at it.
Does not belong here: any of that (see `netwarren.names`).
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from netwarren.names import server
from netwarren.runtime.machine import Machine
from netwarren.topology.addresses import Family

if TYPE_CHECKING:
    from netwarren.names import ClusterDNS
    from netwarren.names.kubernetes import Snapshot


class NameServer:
    """Answers by what ``snapshot`` tells of the cluster, which is called on the name server's thread.

    ``member`` gives the name of a pod, node or root of it, or raises `UnknownName`.
    """

    def __init__(
        self,
        families: Sequence[Family],
        snapshot: "Callable[[], Snapshot]",
        member: Callable[[str | Machine], str],
    ) -> None:
        self._families = families
        self._snapshot = snapshot
        self._member = member
        self._lock = threading.Lock()
        self._made: ClusterDNS | None = None
        self._listener: server.Listener | None = None

    @property
    def dns(self) -> "ClusterDNS":
        """What users hold."""
        with self._lock:
            if self._made is None:
                from netwarren.names import ClusterDNS

                self._made = ClusterDNS(self._snapshot, self._member)
            return self._made

    @property
    def used(self) -> bool:
        """Whether anybody has asked, or looked at `dns`."""
        return self._made is not None

    def listen(self, sockets: server.Sockets) -> None:
        """Answer from now on at ``sockets``, which are the name server's until `release`."""
        self._listener = server.Listener(lambda: self.dns, sockets)

    def release(self) -> server.Sockets | None:
        """Answer no more, and leave the sockets, if there are any, to the caller; again is fine.

        Not under a lock that `snapshot` takes.
        """
        listener, self._listener = self._listener, None
        return listener.release() if listener is not None else None

    def close(self) -> None:
        """`release`, without anybody to leave the sockets to."""
        sockets = self.release()
        if sockets is not None:
            sockets.close()
