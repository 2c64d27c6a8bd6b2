"""A cluster's DNS as users hold it: records of their own, faults, and what was asked.

Rules: records follow from the cluster at the moment of the question; a fault ends with its ``with`` block;
safe to use from any thread.
Does not belong here: sockets (see `server`), what is answered (see `answer`).
"""

import contextlib
import ipaddress
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from netwarren.errors import ConfigurationError
from netwarren.names import kubernetes
from netwarren.names.answer import Decision, Question, decide
from netwarren.names.faults import RCODES, Fault
from netwarren.names.kubernetes import Asker, Snapshot
from netwarren.names.queries import MOST_QUERIES, Query, logged
from netwarren.names.records import TTL, Record, Zone, plain
from netwarren.runtime.machine import Machine
from netwarren.topology.addresses import Address, AddressArgument, parse_address
from netwarren.topology.naming import check_text

Upstream: TypeAlias = Callable[[str], Sequence[AddressArgument] | None]

_LONGEST_TTL = 2**31 - 1


class ClusterDNS:
    """The name server of a cluster, as `Cluster.dns`.

    ``upstream`` may be set to a callable that gets a name outside the cluster's domain and returns its
    addresses, or None where there is no such name. It is called on a thread of its own; what it raises is
    SERVFAIL, and kept in `queries`. Without one, there are no names outside.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], member: Callable[[str | Machine], str]) -> None:
        self.upstream: Upstream | None = None
        self._snapshot = snapshot
        self._member = member
        self._lock = threading.Lock()
        self._added: tuple[Record, ...] = ()
        self._faults: tuple[Fault, ...] = ()
        self._queries: deque[Query] = deque(maxlen=MOST_QUERIES)
        self._known: tuple[Snapshot, tuple[Record, ...]] | None = None
        self._zone = Zone()
        self._askers: dict[Address, Asker] = {}

    def __repr__(self) -> str:
        return (
            f"<ClusterDNS: {len(self._added)} records added, {len(self._faults)} faults, "
            f"{len(self._queries)} queries>"
        )

    # --- records ---

    def add(self, name: str, type: str, *values: AddressArgument, ttl: int = TTL) -> None:
        """Add records: ``name`` has the ``values`` from now on, besides those that it has by itself.

        ``name`` is whole (``db.example.com``), inside the cluster's domain or outside; a label ``*`` in
        front stands for all other names there. ``type`` is ``"A"``, ``"CNAME"``, ``"SRV"`` or any other,
        and values are written as in a zone file, in which names are whole, too. ``ttl`` is in seconds.
        Raises `ConfigurationError`, and `AddressError` for an address that is none.
        """
        from netwarren.names import wire

        if not values:
            raise ConfigurationError(f"no value is given for {type} {name}; give at least one")
        if not _is_ttl(ttl):
            raise ConfigurationError(f"ttl={ttl} is not a time to live; it is 0 to {_LONGEST_TTL} seconds")
        check_text("the name of a record", name, "db.example.com")
        kind = check_text("the type of a record", type, "A").upper()
        records = [Record(plain(name), kind, _value(kind, str(value)), ttl) for value in values]
        for record in records:
            wire.check(record)
        with self._lock:
            self._added = tuple(dict.fromkeys((*self._added, *records)))

    def remove(self, name: str, type: str | None = None) -> None:
        """Take back what was added under ``name``, of ``type`` or of all types; again is fine."""
        check_text("the name of a record", name, "db.example.com")
        with self._lock:
            self._added = tuple(
                record
                for record in self._added
                if record.name != plain(name) or type not in (None, record.type, record.type.lower())
            )

    # --- faults ---

    def slow(
        self, seconds: float, *, name: str | None = None, pod: str | Machine | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """``with cluster.dns.slow(2):`` answers come ``seconds`` late until the block ends.

        ``name`` limits a fault to names of that pattern (as of `fnmatch`), whole or as short as they are
        written in a pod; ``pod`` to questions from that pod or node.
        Raises `ConfigurationError` for a time or pattern that is none, `UnknownName` where nobody is called so.
        """
        if not _is_time(seconds):
            raise ConfigurationError(f"an answer cannot be {seconds!r} seconds late; give 0 or more")
        return self._fault(Fault(*self._whose(name, pod), seconds=seconds))

    def silent(
        self, *, name: str | None = None, pod: str | Machine | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """``with cluster.dns.silent():`` nothing is answered until the block ends; limits as in `slow`."""
        return self._fault(Fault(*self._whose(name, pod), silent=True))

    def fail(
        self, rcode: str = "SERVFAIL", *, name: str | None = None, pod: str | Machine | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """``with cluster.dns.fail():`` the answer is ``rcode`` until the block ends; limits as in `slow`.

        ``rcode`` is SERVFAIL, NXDOMAIN, REFUSED, NOTIMP, FORMERR, or NOERROR for an answer with nothing in
        it. Raises `ConfigurationError` for others.
        """
        code = check_text("rcode", rcode, "SERVFAIL").upper()
        if code not in RCODES:
            raise ConfigurationError(f"rcode {rcode!r} is none of {', '.join(RCODES)}")
        return self._fault(Fault(*self._whose(name, pod), rcode=code))

    def wrong(
        self, *addresses: AddressArgument, name: str | None = None, pod: str | Machine | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """``with cluster.dns.wrong("10.9.9.9", name="web"):`` names have other addresses until the block ends.

        Questions for anything but addresses are answered as always; limits as in `slow`. Raises
        `AddressError`, and `ConfigurationError` where there is no address.
        """
        if not addresses:
            raise ConfigurationError("no address is given; give at least one, or use fail('NOERROR')")
        return self._fault(Fault(*self._whose(name, pod), addresses=tuple(map(parse_address, addresses))))

    def _whose(self, name: str | None, pod: str | Machine | None) -> tuple[str | None, str | None]:
        """For which names and for whom a fault is; checked now, because one that concerns nobody tests nothing."""
        if name is not None:
            check_text("the pattern of names", name, "*.example.com")
        return name, None if pod is None else self._member(pod)

    @contextlib.contextmanager
    def _fault(self, fault: Fault) -> Iterator[None]:
        with self._lock:
            self._faults = (*self._faults, fault)
        try:
            yield
        finally:
            with self._lock:
                self._faults = tuple(each for each in self._faults if each is not fault)

    # --- what was asked ---

    @property
    def queries(self) -> tuple[Query, ...]:
        """The last 200 queries, the oldest first."""
        return tuple(self._queries)

    # --- for the server ---

    def _decide(self, question: Question, source: str) -> tuple[Decision, Asker]:
        """What becomes of a question from the address ``source``, and whose it is."""
        snapshot, added = self._snapshot(), self._added
        if self._known != (snapshot, added):
            self._zone = Zone(chain(kubernetes.records(snapshot), added))
            self._askers = kubernetes.askers(snapshot)
            self._known = snapshot, added
        asker = self._askers.get(ipaddress.ip_address(source.removeprefix("::ffff:"))) or Asker(source)
        return decide(question, asker, self._zone, self._faults), asker

    def _log(
        self, question: Question, asker: Asker, transport: str, decision: Decision, error: Exception | None
    ) -> None:
        """Keep what came of a question for `queries`, and why, if something was raised."""
        self._queries.append(logged(question, asker, transport, decision, error))


def _is_ttl(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= _LONGEST_TTL


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _value(type: str, value: str) -> str:
    """A value as in a zone file; a text that is not in quotes is one string, spaces and all."""
    if type in ("TXT", "SPF") and not value.startswith('"'):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return value
