"""A cluster's place for questions: the sockets in its root from its first moment, and what answers, when asked.

Rules: what decides about names (`ClusterDNS`) is loaded and made by the first question, or the first look at it.
Does not belong here: any of that (see `netwarren.names`).
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from netwarren.names import server
from netwarren.topology.addresses import Family

if TYPE_CHECKING:
    from netwarren.names import ClusterDNS
    from netwarren.names.kubernetes import Snapshot


class NameServer:
    """Answers by what ``snapshot`` tells of the cluster, which is called on the name server's thread."""

    def __init__(self, families: Sequence[Family], snapshot: "Callable[[], Snapshot]") -> None:
        self._families = families
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._made: ClusterDNS | None = None
        self._listener: server.Listener | None = None

    @property
    def dns(self) -> "ClusterDNS":
        """What users hold."""
        with self._lock:
            if self._made is None:
                from netwarren.names import ClusterDNS

                self._made = ClusterDNS(self._snapshot)
            return self._made

    @property
    def used(self) -> bool:
        """Whether anybody has asked, or looked at `dns`."""
        return self._made is not None

    def listen(self) -> None:
        """Answer from now on, in the network namespace in which the calling thread stands.

        Raises `KernelError`, with EADDRINUSE where somebody there has port 53.
        """
        self._listener = server.listen(lambda: self.dns, self._families)

    def close(self) -> None:
        """Answer no more; again is fine. Not under a lock that `snapshot` takes."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
