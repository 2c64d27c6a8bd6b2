"""Messages of the DNS proxy as bytes: what is understood, and the answers as they go back; RFC 1035, RFC 6891.

Rules: whatever the bytes are, there is an answer to them or none, and never an exception; as many records as
fit are sent, and TC says that there are more; what a client takes by UDP is believed (Istio's ztunnel does).
Does not belong here: what the answer is (see `decision`), and the project's own name server's wire
(see `netwarren.names.wire`, which reads for this one, too).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from netwarren.names.answer import Answer, Question
from netwarren.names.raw import FORMERR, bare
from netwarren.names.records import plain
from netwarren.names.wire import LONGEST, SMALLEST_PAYLOAD, parse, rrset_of

LONGEST_DATAGRAM = 65507
"""Bytes that go into one packet of UDP over IPv4."""

_HEADER = 12
_ANSWERED = 0x80  # QR


@dataclass(frozen=True, slots=True)
class Request:
    """A question that was understood; ``payload`` is how long an answer by UDP may be, in bytes."""

    question: Question
    payload: int
    message: dns.message.Message

    @property
    def asked(self) -> dns.rrset.RRset:
        """The question as it was spelled, with its class."""
        return self.message.question[0]

    @property
    def ours(self) -> bool:
        """Whether it is of the class that services' names are in."""
        return self.asked.rdclass == dns.rdataclass.IN


def read(data: bytes) -> Request | bytes | None:
    """The request in ``data``, or what to answer to what is none, or None for nothing."""
    if len(data) < _HEADER:
        return None
    if data[2] & _ANSWERED:
        # Two that tell each other that this was no question would do so for ever.
        return None if data[3] & 0xF == FORMERR else bare(data, FORMERR)
    message = parse(data)
    if isinstance(message, bytes):
        return message
    asked = message.question[0]
    question = Question(plain(asked.name.to_text()), dns.rdatatype.to_text(asked.rdtype))
    payload = max(message.payload, SMALLEST_PAYLOAD) if message.edns >= 0 else SMALLEST_PAYLOAD
    return Request(question, payload, message)


def write(request: Request, answer: Answer, *, datagram: bool) -> bytes:
    """``answer`` as bytes; for one datagram as much of it as the client takes."""
    records = [rrset_of(record, request.asked.name) for record in answer.records]
    flags = dns.flags.AA if answer.authoritative else 0
    return _write(request, dns.rcode.from_text(answer.rcode), flags, (records, (), ()), datagram)


def passed_on(request: Request, response: dns.message.Message, *, datagram: bool) -> bytes:
    """What another name server has answered, for our client: we are not who knows (AA is not set)."""
    rcode = response.rcode()
    if rcode > 0xF:  # about EDNS, between the two of us
        rcode = dns.rcode.SERVFAIL
    return _write(request, rcode, 0, (response.answer, response.authority, response.additional), datagram)


def failed(request: Request) -> bytes:
    """SERVFAIL."""
    return _write(request, dns.rcode.SERVFAIL, 0, ((), (), ()), True)


def _write(
    request: Request,
    rcode: dns.rcode.Rcode,
    flags: int,
    sections: tuple[Sequence[dns.rrset.RRset], Sequence[dns.rrset.RRset], Sequence[dns.rrset.RRset]],
    datagram: bool,
) -> bytes:
    query = request.message
    response = dns.message.make_response(query, recursion_available=True, our_payload=request.payload)
    response.pad = 0  # it is not encrypted, and might not fit any more
    response.flags |= flags | query.flags & dns.flags.CD
    if query.edns >= 0:
        response.ednsflags |= query.ednsflags & dns.flags.DO
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
    else:
        response.set_rcode(rcode)
        for section, rrsets in zip(
            (response.answer, response.authority, response.additional), sections, strict=True
        ):
            section.extend(rrsets)
    longest = min(request.payload, LONGEST_DATAGRAM) if datagram else LONGEST
    return response.to_wire(max_size=longest, prefer_truncation=True)
