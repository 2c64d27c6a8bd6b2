"""The answer to a question: from who asks, the records there are, and the faults there shall be.

Rules: pure; inside the cluster's domain we know everything, so what we do not know does not exist
(NXDOMAIN); what is outside is not asked for anywhere, unless the cluster has a way to ask.
Does not belong here: bytes (see `wire`), waiting and sending (see `server`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netwarren.names.faults import Fault, concerning, spellings
from netwarren.names.kubernetes import SOA, Asker, search_list
from netwarren.names.records import Record, Zone, address_record, plain
from netwarren.topology.addresses import Address
from netwarren.topology.wellknown import CLUSTER_DOMAIN

NDOTS = 5
"""A name with fewer dots is tried with the search list first, as Kubernetes has it in a pod's resolv.conf."""


@dataclass(frozen=True, slots=True)
class Question:
    """``name`` is as it is kept (`records.plain`); ``search`` whether the search list is ours to walk."""

    name: str
    type: str
    search: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: ``rcode`` as text, the sections, and whether we are who knows (AA)."""

    rcode: str = "NOERROR"
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    authoritative: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a question: wait ``delay`` seconds, then send ``answer``, or nothing if it is None.

    ``outside`` says that the answer is to be had elsewhere, if anywhere; ``answer`` is the one if not.
    """

    answer: Answer | None
    delay: float = 0.0
    outside: bool = False


def decide(question: Question, asker: Asker, zone: Zone, faults: Sequence[Fault] = ()) -> Decision:
    """What becomes of a question."""
    found = _found(question, asker, zone)
    answer = _known(replace(question, name=found), zone)
    if found != question.name:
        answer = _under(question.name, found, answer)
    names = spellings(question.name, found, asker.namespace)
    delay, fault = concerning(faults, names, asker.name)
    if fault is None:
        outside = not (in_domain(found) or zone.exists(found)) and question.type != "ANY"
        return Decision(answer, delay, outside)
    if fault.silent:
        return Decision(None, delay)
    if fault.rcode is not None:
        negative = (SOA,) if fault.rcode in ("NOERROR", "NXDOMAIN") and answer.authoritative else ()
        return Decision(Answer(fault.rcode, authority=negative), delay)
    if question.type in ("A", "AAAA"):
        return Decision(addressed(question, fault.addresses or ()), delay)
    return Decision(answer, delay)


def addressed(question: Question, addresses: Iterable[Address]) -> Answer:
    """The answer where a name has ``addresses``, whoever says so."""
    records = (address_record(question.name, address) for address in addresses)
    return Answer(records=tuple(record for record in records if record.type == question.type))


def in_domain(name: str) -> bool:
    """Whether ``name`` is the cluster's domain, or in it."""
    return name == CLUSTER_DOMAIN or name.endswith(f".{CLUSTER_DOMAIN}")


def _found(question: Question, asker: Asker, zone: Zone) -> str:
    """The name that is meant: the first with records on the way through the search list, or as asked."""
    if not question.search or question.name.endswith(".arpa"):
        return question.name
    candidates = [f"{question.name}.{suffix}" for suffix in search_list(asker.namespace)]
    if question.name.count(".") < NDOTS:
        candidates.append(question.name)
    else:
        candidates.insert(0, question.name)
    return next((name for name in candidates if zone.has_records(name)), question.name)


def _known(question: Question, zone: Zone) -> Answer:
    name, type = question.name, question.type
    if type == "ANY":  # RFC 8482: nobody has to answer it
        return Answer("REFUSED")
    records = tuple(zone.find(name, type))
    # Where an alias leads; outside of what we know, that is for the asker to find out.
    last = plain(records[-1].value) if records and records[-1].type == "CNAME" != type else name
    complete = bool(records) and (last == name or not (in_domain(last) or zone.exists(last)))
    ours = in_domain(last) or zone.exists(last)
    rcode = "NOERROR" if complete or zone.exists(last) else "NXDOMAIN"
    authority = () if complete or not in_domain(last) else (SOA,)
    return Answer(rcode, records, _additional(records, zone), authority, ours or bool(records))


def _additional(records: Iterable[Record], zone: Zone) -> tuple[Record, ...]:
    """The addresses that will be asked for next: of the targets of SRV, of mail and name servers."""
    targets = dict.fromkeys(
        plain(record.value.split()[-1]) for record in records if record.type in ("SRV", "MX", "NS")
    )
    return tuple(record for name in targets for type in ("A", "AAAA") for record in zone.find(name, type))


def _under(asked: str, found: str, answer: Answer) -> Answer:
    """``answer`` for whoever knows nothing of our search: the records are those of the asked name."""
    records = tuple(
        replace(record, name=asked) if record.name == found else record for record in answer.records
    )
    return replace(answer, records=records)
