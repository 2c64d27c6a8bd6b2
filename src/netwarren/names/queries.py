"""The log of a name server: who asked for what, and what came of it.

Rules: bounded; what is logged is what was sent, or was not.
Does not belong here: deciding any of it (see `answer`).
"""

from dataclasses import dataclass

from netwarren.names.answer import Decision, Question
from netwarren.names.kubernetes import Asker

MOST_QUERIES = 200
"""How many are remembered for a cluster: the last ones."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question that was asked: ``asker`` is a pod, a node, ``root``, or an address.

    ``name`` is as it was asked, in small letters; ``transport`` is "udp" or "tcp"; ``rcode`` is empty where
    nothing was answered; ``values`` are the answer's records as in a zone file; ``delay`` is in seconds;
    ``error`` is what `ClusterDNS.upstream` raised, if it did.
    """

    asker: str
    name: str
    type: str
    transport: str
    rcode: str
    values: tuple[str, ...]
    delay: float = 0.0
    error: Exception | None = None

    def __str__(self) -> str:
        answer = " ".join(self.values) or self.rcode or "no answer"
        if answer == "NOERROR":
            answer = "no such records"
        late = f" after {self.delay:g} s" if self.delay else ""
        why = f", because upstream raised {self.error!r}" if self.error is not None else ""
        return f"{self.asker} asks {self.type} {self.name or '.'}: {answer}{late}{why}"


def logged(
    question: Question, asker: Asker, transport: str, decision: Decision, error: Exception | None
) -> Query:
    """The entry for a decision; ``error`` is why it was that."""
    answer = decision.answer
    return Query(
        asker.name,
        question.name,
        question.type,
        transport,
        answer.rcode if answer is not None else "",
        tuple(record.value for record in answer.records) if answer is not None else (),
        decision.delay,
        error,
    )
