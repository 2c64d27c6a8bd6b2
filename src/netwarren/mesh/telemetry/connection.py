"""One connection by way of the proxy, from its opening to its end: counted, and told to the access log.

Rules: an end is recorded exactly once, whatever happens; bytes count as they pass; "received" are those from client
to server and "sent" those back, for both reporters, and the log names them as its own side sees them.
Does not belong here: copying the bytes, and deciding when to end (see `connections`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from netwarren.mesh.failure import Drained, flag_of
from netwarren.mesh.model import Identity, Service, SocketAddress
from netwarren.mesh.telemetry.labels import Peer, Reporter, SecurityPolicy, tcp_labels, with_flag
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.records import Bare, FieldValue, Level

ACCESS = "access"
"""The log's target for connections."""

_DIRECTIONS: dict[Reporter, str] = {"source": "outbound", "destination": "inbound"}


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a connection when it is opened.

    ``destination_address`` is the next hop's of the fourth layer: a waypoint's or a pod's port 15008; inbound the
    pod's own. ``hbone_target`` is the authority asked for. ``source_identity`` is the one mutual TLS has proved.
    """

    reporter: Reporter
    source_address: SocketAddress
    destination_address: SocketAddress
    source: Peer | None = None
    destination: Peer | None = None
    service: Service | None = None
    source_identity: Identity | None = None
    security: SecurityPolicy = "unknown"
    hbone_target: str | None = None


class Connection:
    """A connection that has been opened, which counts and logs it; made once per connection.

    End it with `record`, or use it as a context manager: what leaves the block, nothing or an error, is then the
    end. An end that is neither (the task cancelled, the object dropped) is that of a drain.

    ``asking``: who is at the other end is not known yet, and `found` says; it counts as opened from there on, or from
    its end.
    """

    __slots__ = (
        "_asking",
        "_clock",
        "_labels",
        "_log",
        "_metrics",
        "_received",
        "_sent",
        "_start",
        "opened",
        "received",
        "recorded",
        "sent",
    )

    def __init__(
        self,
        metrics: Metrics,
        log: Log,
        opened: Opened,
        clock: Callable[[], float] = time.monotonic,
        *,
        asking: bool = False,
    ) -> None:
        self.recorded = True  # until it has been opened there is nothing to end
        self.opened = opened
        self.received = 0
        self.sent = 0
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._start = clock()
        self._asking = asking
        if not asking:
            self._open()
        self.recorded = False

    def _open(self) -> None:
        self._asking = False
        opened, metrics = self.opened, self._metrics
        self._labels = labels = tcp_labels(
            opened.reporter,
            opened.source,
            opened.destination,
            opened.service,
            opened.source_identity,
            opened.security,
        )
        self._received = metrics.received_bytes.labels(labels)
        self._sent = metrics.sent_bytes.labels(labels)
        metrics.connections_opened.labels(labels).add()
        if self._log.enabled("debug", ACCESS):
            self._log.write("debug", ACCESS, "connection opened", _ends(opened))

    def found(self, destination: Peer) -> None:
        """It is ``destination`` that is at the other end."""
        self.opened = replace(self.opened, destination=destination)
        self._open()

    def __repr__(self) -> str:
        state = "ended" if self.recorded else "open"
        return f"<Connection {self.opened.source_address} to {self.opened.destination_address}: {state}>"

    def count_received(self, size: int) -> None:
        """``size`` more bytes have passed from client to server."""
        self.received += size
        self._received.add(size)

    def count_sent(self, size: int) -> None:
        """``size`` more bytes have passed from server to client."""
        self.sent += size
        self._sent.add(size)

    def record(self, error: BaseException | None = None) -> None:
        """The connection has ended: well, or with ``error``. Only the first call counts."""
        if self.recorded:
            return
        self.recorded = True
        if self._asking:
            self._open()
        labels = with_flag(self._labels, flag_of(error))
        self._metrics.connections_closed.labels(labels).add()
        if error is not None:
            self._metrics.connections_failed.labels(labels).add()
        level: Level = "info" if error is None else "error"
        if not self._log.enabled(level, ACCESS):
            return
        ours, theirs = self.received, self.sent
        if self.opened.reporter == "destination":
            ours, theirs = theirs, ours
        self._log.write(
            level,
            ACCESS,
            "connection complete",
            {
                **_ends(self.opened),
                "bytes_sent": ours,
                "bytes_recv": theirs,
                "duration": f"{max(0, int((self._clock() - self._start) * 1000))}ms",
                "error": None if error is None else str(error),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # CancelledError, GeneratorExit and the like are no `Exception`: somebody ended the work, not the connection.
        self.record(error if error is None or isinstance(error, Exception) else Drained())

    def __del__(self) -> None:
        if not getattr(self, "recorded", True):
            self.record(Drained())


def early_deny(
    log: Log, reporter: Reporter, source: SocketAddress, destination: SocketAddress, error: BaseException
) -> None:
    """Tell the access log of a connection that failed before enough was known to count it as opened."""
    log.write(
        "warn",
        ACCESS,
        "connection failed",
        {
            "src.addr": Bare(source),
            "dst.addr": Bare(destination),
            "direction": _DIRECTIONS[reporter],
            "error": str(error),
        },
    )


def _ends(opened: Opened) -> dict[str, FieldValue]:
    source, destination = opened.source or Peer(), opened.destination or Peer()
    proved = opened.security == "mutual_tls"
    return {
        "src.addr": Bare(opened.source_address),
        "src.workload": source.pod or source.canonical_service or None,
        "src.namespace": source.namespace or None,
        "src.identity": str(opened.source_identity) if proved and opened.source_identity else None,
        "src.cluster": source.cluster or None,
        "dst.addr": Bare(opened.destination_address),
        "dst.hbone_addr": Bare(opened.hbone_target) if opened.hbone_target else None,
        "dst.service": (opened.service.hostname or None) if opened.service else None,
        "dst.workload": destination.pod or destination.canonical_service or None,
        "dst.namespace": destination.namespace or None,
        "dst.identity": str(destination.identity) if proved and destination.identity else None,
        "dst.cluster": destination.cluster or None,
        "direction": _DIRECTIONS[opened.reporter],
    }
