"""Questions and answers of the DNS proxy as bytes."""

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwarren.mesh.dns import message
from netwarren.names.answer import Answer
from netwarren.names.records import Record

MANY = Answer(records=tuple(Record("large.com", "A", f"240.0.0.{n}", 30) for n in range(256)))


def read(query: dns.message.Message) -> message.Request:
    request = message.read(query.to_wire())
    assert isinstance(request, message.Request)
    return request


def written(query: dns.message.Message, answer: Answer, *, datagram: bool = True) -> dns.message.Message:
    data = message.write(read(query), answer, datagram=datagram)
    response = dns.message.from_wire(data, one_rr_per_rrset=True)
    assert query.is_response(response)
    return response


def test_an_answer_of_ours_has_the_flags_of_one_who_knows() -> None:
    response = written(
        dns.message.make_query("Web", "A"), Answer(records=(Record("web", "A", "10.0.0.1", 30),))
    )
    assert dns.flags.to_text(response.flags) == "QR AA RD RA"
    assert response.answer[0].to_text() == "Web. 30 IN A 10.0.0.1"


def test_what_another_has_answered_is_passed_on_whole_and_not_as_ours() -> None:
    query = dns.message.make_query("www.example", "A", use_edns=False)
    theirs = dns.message.make_response(query)
    theirs.flags |= dns.flags.AA
    theirs.use_edns(0, payload=4096)
    text = "www.example. 7 IN CNAME web.example."
    theirs.answer.append(dns.rrset.from_text("www.example.", 7, "IN", "CNAME", "web.example."))
    theirs.authority.append(dns.rrset.from_text("example.", 8, "IN", "NS", "ns.example."))
    theirs.additional.append(dns.rrset.from_text("ns.example.", 9, "IN", "A", "10.0.0.1"))
    ours = dns.message.from_wire(message.passed_on(read(query), theirs, datagram=True))
    assert dns.flags.to_text(ours.flags) == "QR RD RA"
    assert [ours.answer[0].to_text(), ours.edns] == [text, -1]
    assert [ours.authority, ours.additional] == [theirs.authority, theirs.additional]


def test_an_rcode_about_edns_is_not_the_clients_to_see() -> None:
    query = dns.message.make_query("www.example", "A", use_edns=False)
    theirs = dns.message.make_response(query)
    theirs.use_edns(0)
    theirs.set_rcode(dns.rcode.BADCOOKIE)
    ours = dns.message.from_wire(message.passed_on(read(query), theirs, datagram=True))
    assert ours.rcode() == dns.rcode.SERVFAIL


# --- EDNS and length ---


@pytest.mark.parametrize(("payload", "echoed"), [(100, 512), (512, 512), (1232, 1232), (65535, 65535)])
def test_edns_is_echoed_with_what_the_client_takes(payload: int, echoed: int) -> None:
    query = dns.message.make_query("web", "A", use_edns=0, payload=payload, want_dnssec=True)
    response = written(query, Answer())
    assert (response.edns, response.payload) == (0, echoed)
    assert response.ednsflags & dns.flags.DO


def test_there_is_no_edns_for_who_has_none() -> None:
    assert written(dns.message.make_query("web", "A", use_edns=False), Answer()).edns == -1


def test_an_unknown_version_of_edns_is_refused_with_ours() -> None:
    response = written(dns.message.make_query("web", "A", use_edns=1), MANY)
    assert (response.rcode(), response.edns, response.answer) == (dns.rcode.BADVERS, 0, [])


def test_of_256_records_74_fit_into_a_datagram_of_1232_bytes() -> None:
    query = dns.message.make_query("large.com", "A", use_edns=0, payload=1232)
    response = written(query, MANY)
    assert response.flags & dns.flags.TC
    # The first ones, in their order.
    assert [rrset[0].to_text() for rrset in response.answer] == [f"240.0.0.{n}" for n in range(74)]
    whole = written(query, MANY, datagram=False)
    assert (len(whole.answer), whole.flags & dns.flags.TC) == (256, 0)


@pytest.mark.parametrize("payload", [None, 0, 512, 600, 1232, 4096, 65535])
def test_no_datagram_is_longer_than_what_the_client_takes(payload: int | None) -> None:
    query = dns.message.make_query("large.com", "A", use_edns=payload is not None and 0, payload=payload or 0)
    data = message.write(read(query), MANY, datagram=True)
    assert len(data) <= max(payload or 0, 512)
    assert bool(dns.message.from_wire(data).flags & dns.flags.TC) == (len(data) < 4096)


def test_padding_is_not_answered_with_padding() -> None:
    options: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(50))]
    query = dns.message.make_query("large.com", "A", use_edns=0, payload=512, options=options)
    assert len(message.write(read(query), MANY, datagram=True)) <= 512


# --- what is no question ---


def changed(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


QUERY = dns.message.make_query("web.ns1", "A", id=4711).to_wire()


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (changed(QUERY, 2, 4 << 3), dns.rcode.NOTIMP),  # NOTIFY
        (changed(QUERY, 2, 5 << 3), dns.rcode.NOTIMP),  # UPDATE
        (changed(QUERY, 2, 0x80), dns.rcode.FORMERR),  # an answer
        (changed(QUERY, 5, 0), dns.rcode.FORMERR),  # no question
        (changed(QUERY, 5, 2), dns.rcode.FORMERR),  # a second one that is not there
        (QUERY[:-3], dns.rcode.FORMERR),
        (QUERY + b"more", dns.rcode.FORMERR),
    ],
)
def test_what_is_no_question_is_answered_with_what_is_wrong(data: bytes, rcode: dns.rcode.Rcode) -> None:
    answer = message.read(data)
    assert isinstance(answer, bytes)
    response = dns.message.from_wire(answer)
    assert (response.id, response.rcode()) == (4711, rcode)
    assert response.flags & dns.flags.QR


@pytest.mark.parametrize("length", range(12))
def test_what_has_no_header_is_not_answered(length: int) -> None:
    assert message.read(QUERY[:length]) is None


def test_two_who_find_each_others_answers_wrong_do_not_go_on_for_ever() -> None:
    answer = message.read(changed(QUERY, 2, 0x80))
    assert isinstance(answer, bytes)
    assert message.read(answer) is None


# --- anything at all ---


def holds(data: bytes) -> None:
    """Whatever ``data`` is, it is read, and what is written to it is an answer."""
    request = message.read(data)
    if isinstance(request, message.Request):
        for answer in (
            message.write(request, MANY, datagram=True),
            message.write(request, Answer(), datagram=False),
            message.failed(request),
        ):
            assert len(answer) <= request.payload
            assert dns.message.from_wire(answer).id == int.from_bytes(data[:2], "big")
    elif request is not None:
        assert dns.message.from_wire(request).id == int.from_bytes(data[:2], "big")


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    holds(data)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_behind_a_header_are_survived(rest: bytes) -> None:
    holds(QUERY[:12] + rest)


EDNS_QUERY = dns.message.make_query(
    "web.ns1", "A", id=4711, options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(20))]
).to_wire()


@settings(deadline=None)
@given(st.data())
def test_any_change_to_a_question_is_survived(data: st.DataObject) -> None:
    query = bytearray(data.draw(st.sampled_from([QUERY, EDNS_QUERY])))
    for _ in range(data.draw(st.integers(1, 4))):
        query[data.draw(st.integers(0, len(query) - 1))] = data.draw(st.integers(0, 255))
    holds(bytes(query[: data.draw(st.integers(0, len(query)))]) if data.draw(st.booleans()) else bytes(query))
