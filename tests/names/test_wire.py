"""Questions and answers as bytes: what is understood, what is refused, and that nothing does any harm."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.errors import AddressError, ConfigurationError
from netwarren.names import raw, wire
from netwarren.names.answer import Answer
from netwarren.names.records import Record


def read(data: bytes) -> wire.Request:
    request = wire.read(data, search=False)
    assert isinstance(request, wire.Request)
    return request


def exchange(query: dns.message.Message, answer: Answer, longest: int = 65535) -> dns.message.Message:
    response = dns.message.from_wire(wire.write(read(query.to_wire()), answer, longest))
    assert query.is_response(response)
    return response


def addresses(number: int) -> Answer:
    return Answer(records=tuple(Record("many", "A", f"10.0.{n // 256}.{n % 256}") for n in range(number)))


def test_a_question_is_read_in_small_letters() -> None:
    question = read(dns.message.make_query("WEB.Default.svc.cluster.LOCAL", "AAAA").to_wire()).question
    assert (question.name, question.type) == ("web.default.svc.cluster.local", "AAAA")


def test_an_answer_is_spelled_as_the_question_was() -> None:
    data = wire.write(
        read(dns.message.make_query("WeB", "A").to_wire()),
        Answer(records=(Record("web", "A", "10.0.0.1"),)),
        512,
    )
    response = dns.message.from_wire(data)
    assert response.question[0].name.to_text() == response.answer[0].name.to_text() == "WeB."


def test_all_sections_and_flags_arrive() -> None:
    soa = Record("cluster.local", "SOA", "ns.dns.cluster.local. h.cluster.local. 1 2 3 4 5")
    answer = Answer(
        "NXDOMAIN",
        (Record("web", "SRV", "0 100 80 a.web.", 7),),
        (Record("a.web", "A", "10.0.0.1"),),
        (soa,),
    )
    response = exchange(dns.message.make_query("web", "SRV"), answer)
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA
    assert response.answer[0].to_text() == "web. 7 IN SRV 0 100 80 a.web."
    assert response.additional[0].to_text() == "a.web. 5 IN A 10.0.0.1"
    assert response.authority[0].rdtype == dns.rdatatype.SOA


def test_who_is_not_authoritative_does_not_say_so() -> None:
    response = exchange(dns.message.make_query("x", "A"), Answer("NXDOMAIN", authoritative=False))
    assert not response.flags & dns.flags.AA


@pytest.mark.parametrize(("payload", "honoured"), [(None, 512), (100, 512), (800, 800), (4096, 1232)])
def test_the_payload_that_a_client_takes_is_honoured(payload: int | None, honoured: int) -> None:
    query = dns.message.make_query("x", "A", use_edns=payload is not None and 0, payload=payload or 0)
    assert read(query.to_wire()).payload == honoured


def test_edns_is_answered_with_edns_and_only_then() -> None:
    assert exchange(dns.message.make_query("x", "A", use_edns=0), Answer()).edns == 0
    assert exchange(dns.message.make_query("x", "A", use_edns=False), Answer()).edns == -1


def test_an_unknown_version_of_edns_is_refused_with_ours() -> None:
    response = exchange(dns.message.make_query("x", "A", use_edns=1), Answer())
    assert (response.rcode(), response.edns) == (dns.rcode.BADVERS, 0)


def test_what_is_too_long_is_cut_and_says_so() -> None:
    query = dns.message.make_query("many", "A", use_edns=False)
    data = wire.write(read(query.to_wire()), addresses(100), 512)
    assert len(data) <= 512
    assert dns.message.from_wire(data).flags & dns.flags.TC
    assert len(exchange(query, addresses(100)).answer[0]) == 100


def test_additional_records_go_first_and_nothing_is_missing_then() -> None:
    more = tuple(Record(f"n{n}.example", "A", "10.0.0.1") for n in range(50))
    answer = Answer(records=addresses(5).records, additional=more)
    response = exchange(dns.message.make_query("many", "A"), answer, 512)
    assert not response.flags & dns.flags.TC
    assert (len(response.answer[0]), len(response.additional)) == (5, 0)


# --- what is no question ---


def changed(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


QUERY = dns.message.make_query("web", "A", id=4711).to_wire()


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (changed(QUERY, 2, 4 << 3), dns.rcode.NOTIMP),  # NOTIFY
        (changed(QUERY, 2, 5 << 3), dns.rcode.NOTIMP),  # UPDATE
        (changed(QUERY, 5, 0), dns.rcode.FORMERR),  # no question
        (changed(QUERY, 5, 2), dns.rcode.FORMERR),  # a second one that is not there
        (QUERY[:-3], dns.rcode.FORMERR),
        (QUERY[:12], dns.rcode.FORMERR),
        (changed(QUERY, 12, 0xC0), dns.rcode.FORMERR),  # a pointer to nowhere
        (dns.message.make_query("web", "A", "CH", id=4711).to_wire(), dns.rcode.REFUSED),
    ],
)
def test_what_we_do_not_do_is_refused_by_a_header(data: bytes, rcode: int) -> None:
    answer = wire.read(data, search=False)
    assert isinstance(answer, bytes)
    header = dns.message.from_wire(answer)
    assert (header.id, header.rcode(), bool(header.flags & dns.flags.QR)) == (4711, rcode, True)


@pytest.mark.parametrize("data", [b"", b"x" * 11, changed(QUERY, 2, 0x80)])
def test_what_has_no_header_or_is_an_answer_is_not_answered(data: bytes) -> None:
    assert wire.read(data, search=False) is None
    assert not raw.is_query(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    result = wire.read(data, search=True)
    if isinstance(result, wire.Request):
        wire.write(result, Answer("NXDOMAIN", authoritative=False), 512)


@given(st.data())
def test_a_damaged_query_does_no_harm_either(draw: st.DataObject) -> None:
    query = bytearray(dns.message.make_query("web.default.svc.cluster.local", "SRV", use_edns=0).to_wire())
    for _ in range(draw.draw(st.integers(1, 4))):
        query[draw.draw(st.integers(0, len(query) - 1))] = draw.draw(st.integers(0, 255))
    result = wire.read(bytes(query), search=True)
    if isinstance(result, wire.Request):
        answer = Answer(records=(Record(result.question.name, "A", "10.0.0.1"),))
        assert len(wire.write(result, answer, result.payload)) <= result.payload


# --- records that users add ---


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("A", "10.0.0.1"),
        ("MX", "10 mail.example.com"),
        ("TXT", '"v=spf1 -all"'),
        ("SRV", "0 100 80 web"),
        ("CAA", '0 issue "ca.example.net"'),
        ("TYPE65280", r"\# 2 abcd"),
    ],
)
def test_records_of_any_type_are_taken(type: str, value: str) -> None:
    wire.check(Record("x.example", type, value))


@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (Record("x", "A", "10.0.0"), AddressError, r"write it like '10\.0\.1\.5'"),
        (Record("x", "AAAA", "10.0.0.1"), AddressError, "fd00:10"),
        (Record("x", "SRV", "80 web"), ConfigurationError, "priority, weight, port, target"),
        (Record("x", "WEB", "1"), ConfigurationError, "'WEB' is not a type"),
        (Record("x", "ANY", "1"), ConfigurationError, "'ANY' is not a type"),
        (Record("a..b", "A", "10.0.0.1"), ConfigurationError, r"'a\.\.b' is not a name"),
        (Record("a" * 64, "A", "10.0.0.1"), ConfigurationError, "is not a name"),
    ],
)
def test_a_record_that_is_none_is_refused_with_an_example(
    record: Record, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        wire.check(record)
