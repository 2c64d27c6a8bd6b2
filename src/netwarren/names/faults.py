"""Faults of the name server, for tests of what a program does then: slow, wrong, failing or no answers.

Rules: pure; a fault says for which names and whom it is, and what becomes of an answer; of several, delays
add up, and the one that was begun last decides about the answer.
Does not belong here: beginning and ending faults (see `dns`), the waiting itself (see `server`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from netwarren.names.kubernetes import search_list
from netwarren.names.records import plain
from netwarren.topology.addresses import Address

RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
"""What a name server may answer (RFC 1035, section 4.1.1); NOERROR is an answer with nothing in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """One fault: ``name`` is a pattern as of `fnmatch`, ``asker`` who asks; None is all of them.

    ``seconds`` to wait; ``silent`` for no answer at all; ``rcode`` to answer with; ``addresses`` to answer
    questions for addresses with. The last three are alternatives.
    """

    name: str | None = None
    asker: str | None = None
    seconds: float = 0.0
    silent: bool = False
    rcode: str | None = None
    addresses: tuple[Address, ...] | None = None

    @property
    def answers(self) -> bool:
        """Whether it decides about the answer, and not only about its time."""
        return self.silent or self.rcode is not None or self.addresses is not None

    def concerns(self, spellings: Iterable[str], asker: str) -> bool:
        """Whether it is for that name, in any of its spellings, and for that asker."""
        if self.asker is not None and self.asker != asker:
            return False
        if self.name is None:
            return True
        pattern = plain(self.name)
        return any(fnmatchcase(spelling, pattern) for spelling in spellings)


def spellings(asked: str, found: str, namespace: str) -> set[str]:
    """What a pattern may mean a name by: as asked, in full, and short as it would be written in a pod."""
    names = {asked, found}
    for suffix in search_list(namespace):
        names |= {name.removesuffix(f".{suffix}") for name in (asked, found)}
    return names


def concerning(faults: Sequence[Fault], names: set[str], asker: str) -> tuple[float, Fault | None]:
    """How long to wait, and the fault that decides about the answer, if one does."""
    ours = [fault for fault in faults if fault.concerns(names, asker)]
    deciding = [fault for fault in ours if fault.answers]
    return sum(fault.seconds for fault in ours), deciding[-1] if deciding else None
