"""Messages of DNS as bytes, by dnspython; RFC 1035, EDNS0 as in RFC 6891.

Rules: imported when the first query arrives and no sooner, because dnspython takes a tenth of a second;
whatever the bytes are, there is an answer to them or none, and never an exception.
Does not belong here: what the answer is (see `answer`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from netwarren.errors import AddressError, ConfigurationError
from netwarren.names.answer import Answer, Question
from netwarren.names.raw import FORMERR, NOTIMP, REFUSED, bare
from netwarren.names.records import Record, plain

PAYLOAD = 1232
"""The longest answer by UDP, in bytes: what passes everywhere without fragments (DNS flag day 2020)."""

SMALLEST_PAYLOAD = 512
LONGEST = 65535

_HEADER = 12


@dataclass(frozen=True, slots=True)
class Request:
    """A question that was understood; ``payload`` is how long an answer by UDP may be, in bytes."""

    question: Question
    payload: int
    message: dns.message.Message


def read(data: bytes, *, search: bool) -> Request | bytes | None:
    """The request in ``data``, or what to answer to what is none, or None for nothing.

    ``search`` is for the question: whether its name is to be looked for by way of the search list.
    """
    if len(data) < _HEADER or data[2] & 0x80:  # an answer: whoever answers those answers himself for ever
        return None
    message = parse(data)
    if isinstance(message, bytes):
        return message
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN:
        return bare(data, REFUSED)
    payload = SMALLEST_PAYLOAD
    if message.edns >= 0:
        payload = min(max(message.payload, SMALLEST_PAYLOAD), PAYLOAD)
    name = plain(asked.name.to_text())
    return Request(Question(name, dns.rdatatype.to_text(asked.rdtype), search), payload, message)


def parse(data: bytes) -> dns.message.Message | bytes:
    """The message with one question that ``data``, of at least 12 bytes, is; or the answer to what is none."""
    if data[2] >> 3 & 0xF != dns.opcode.QUERY:
        return bare(data, NOTIMP)
    try:
        message = dns.message.from_wire(data)
    except Exception:  # of dnspython's kinds, and those that it lets through
        return bare(data, FORMERR)
    return message if len(message.question) == 1 else bare(data, FORMERR)


def write(request: Request, answer: Answer, longest: int) -> bytes:
    """The answer as at most ``longest`` bytes; where it does not fit, TC says that there is more (RFC 2181)."""
    response = dns.message.make_response(request.message, recursion_available=True, our_payload=PAYLOAD)
    if request.message.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
        return response.to_wire()
    response.set_rcode(dns.rcode.from_text(answer.rcode))
    if answer.authoritative:
        response.flags |= dns.flags.AA
    asked = request.message.question[0].name
    response.answer.extend(_rrsets(answer.records, asked))
    response.authority.extend(_rrsets(answer.authority, asked))
    response.additional.extend(_rrsets(answer.additional, asked))
    try:
        return response.to_wire(max_size=longest)
    except dns.exception.TooBig:
        response.additional.clear()
    try:
        return response.to_wire(max_size=longest)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=longest)


def check(record: Record) -> None:
    """Raise `ConfigurationError`, or `AddressError`, where a record cannot be sent."""
    example = _EXAMPLES.get(record.type, "as in a zone file (RFC 1035, section 5)")
    try:
        rdtype = dns.rdatatype.from_text(record.type)
        if dns.rdatatype.is_metatype(rdtype) or rdtype == dns.rdatatype.OPT:
            raise dns.rdatatype.UnknownRdatatype
    except (dns.exception.DNSException, ValueError):
        raise ConfigurationError(
            f"{record.type!r} is not a type of DNS records; use A, AAAA, CNAME, TXT, SRV, MX, PTR, ..."
        ) from None
    try:
        _name(record.name)
    except dns.exception.DNSException as error:
        raise ConfigurationError(
            f"{record.name!r} is not a name: {error}; write it like 'db.example.com'"
        ) from None
    try:
        _rdata(record.type, record.value)
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        kind = AddressError if record.type in ("A", "AAAA") else ConfigurationError
        raise kind(
            f"{record.value!r} is not what a record of type {record.type} has ({error}); write it like {example}"
        ) from None


_EXAMPLES = {
    "A": "'10.0.1.5'",
    "AAAA": "'fd00:10:0:1::5'",
    "CNAME": "'web.default.svc.cluster.local'",
    "MX": "'10 mail.example.com'",
    "PTR": "'web.example.com'",
    "SRV": "'0 100 8080 web.example.com' (priority, weight, port, target)",
}


def _rrsets(records: Iterable[Record], asked: dns.name.Name) -> list[dns.rrset.RRset]:
    sets: dict[tuple[str, str], dns.rrset.RRset] = {}
    for record in records:
        one = rrset_of(record, asked)
        found = sets.setdefault((record.name, record.type), one)
        if found is not one:
            found.add(one[0], record.ttl)
    return list(sets.values())


def rrset_of(record: Record, asked: dns.name.Name) -> dns.rrset.RRset:
    """``record`` alone, under the name that was asked for spelled as it was: some resolvers compare
    (draft-vixie-dnsext-dns0x20)."""
    rdata, name = _rdata(record.type, record.value), _name(record.name)
    rrset = dns.rrset.RRset(asked if name == asked else name, rdata.rdclass, rdata.rdtype)
    rrset.add(rdata, record.ttl)
    return rrset


@lru_cache(maxsize=4096)
def _rdata(type: str, value: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, type, value, origin=dns.name.root, relativize=False)


@lru_cache(maxsize=4096)
def _name(name: str) -> dns.name.Name:
    return dns.name.from_text(name)
