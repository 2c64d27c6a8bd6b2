"""Resource records, and looking them up: what there is under a name, as data; RFC 1034.

Rules: pure; a name is absolute, in small letters, without the dot at its end; a value is text as in a zone
file (RFC 1035, section 5), in which names are absolute, too.
Does not belong here: which records a cluster has (see `kubernetes`), bytes (see `wire`).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from netwarren.topology.addresses import Address

TTL = 5
"""Seconds; CoreDNS' default for a cluster's names, too."""

_MOST_ALIASES = 16


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record: ``type`` is "A", "SRV" and so on, ``ttl`` in seconds."""

    name: str
    type: str
    value: str
    ttl: int = TTL


def plain(name: str) -> str:
    """A name as it is kept: in small letters, without the dot at its end."""
    return name.lower().removesuffix(".")


def address_record(name: str, address: Address, ttl: int = TTL) -> Record:
    """The A or AAAA record of ``name``."""
    return Record(name, "A" if address.version == 4 else "AAAA", str(address), ttl)


class Zone:
    """The records of one cluster, or any others, by name and type.

    A name below which there are others exists, even if it has no records by itself (RFC 8020). The label
    ``*`` stands for whatever else there could be at its place (RFC 4592).
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            same = self._records[record.name][record.type]
            if record not in same:
                same.append(record)
        self._above: set[str] = set()
        for name in self._records:
            above = _parent(name)
            while above and above not in self._above:
                self._above.add(above)
                above = _parent(above)

    def exists(self, name: str) -> bool:
        """Whether there is such a name, with or without records; where not, the answer is NXDOMAIN."""
        return name in self._above or self.has_records(name)

    def has_records(self, name: str) -> bool:
        """Whether ``name`` has records of any type."""
        return self._owner(name) in self._records

    def find(self, name: str, type: str) -> list[Record]:
        """The records of that name and type, where it is an alias with the way to them (CNAME first)."""
        found: list[Record] = []
        for _ in range(_MOST_ALIASES):
            there = self._records.get(self._owner(name), {})
            if type in there:
                return [*found, *(_at(name, record) for record in there[type])]
            if "CNAME" not in there:
                return found
            alias = _at(name, there["CNAME"][0])
            if alias in found:
                return found
            found.append(alias)
            name = plain(alias.value)
        return found

    def _owner(self, name: str) -> str:
        """``name`` itself, or the name with ``*`` that stands for it."""
        if name in self._records or name in self._above:
            return name
        above = _parent(name)
        while above:
            if f"*.{above}" in self._records:
                return f"*.{above}"
            if above in self._records or above in self._above:
                break
            above = _parent(above)
        return name


def _parent(name: str) -> str:
    return name.partition(".")[2]


def _at(name: str, record: Record) -> Record:
    return record if record.name == name else Record(name, record.type, record.value, record.ttl)
