"""Asking the name servers that know the rest: which, how often, and what becomes of their answers."""

import asyncio
import socket
from random import Random

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwarren.errors import KernelError
from netwarren.mesh.dns import upstream as upstream_module
from netwarren.mesh.dns.resolver import Transport
from netwarren.mesh.dns.upstream import Upstream, UpstreamError
from netwarren.mesh.model import SocketAddress
from tests.mesh.dns.edge import TRANSPORTS, Sockets, bound, dns_proxy, known, name_server

BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


async def asked(upstream: Upstream, name: str = "www.bing.com.") -> dns.message.Message:
    return await upstream.ask(dns.name.from_text(name), dns.rdatatype.A, dns.rdataclass.IN)


def refused() -> SocketAddress:
    """Where nobody is."""
    udp, tcp, address = bound()
    udp.close()
    tcp.close()
    return address


async def silent(_query: dns.message.Message, _transport: Transport) -> None:
    return None


async def failing(query: dns.message.Message, _transport: Transport) -> bytes:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


async def refusing(query: dns.message.Message, _transport: Transport) -> bytes:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.REFUSED)
    return response.to_wire()


async def test_the_first_name_server_that_is_there_is_asked() -> None:
    async with name_server() as (first, questions), name_server() as (second, others):
        sockets = Sockets()
        assert (await asked(Upstream([first, second], sockets))).answer
        assert (await asked(Upstream([refused(), second], sockets))).answer
        assert (len(questions), len(others)) == (1, 1)
        assert not sockets.open


async def test_a_silent_name_server_is_passed_over() -> None:
    async with name_server(silent) as (first, questions), name_server() as (second, _):
        assert (await asked(Upstream([first, second], Sockets(), timeout=0.1))).answer
        assert len(questions) == 1


async def test_a_name_server_is_asked_again() -> None:
    times = 0

    async def second_time(query: dns.message.Message, transport: Transport) -> bytes | None:
        nonlocal times
        times += 1
        return await known(query, transport) if times == 2 else None

    async with name_server(second_time) as (server, _):
        assert (await asked(Upstream([server], Sockets(), timeout=0.1))).answer


@pytest.mark.parametrize(("reply", "rcode"), [(failing, "SERVFAIL"), (refusing, "REFUSED")])
async def test_one_that_fails_is_passed_over_and_believed_if_there_is_no_other(
    reply: object, rcode: str
) -> None:
    async with name_server(reply) as (first, _), name_server() as (second, _others):  # type: ignore[arg-type]
        assert (await asked(Upstream([first, second], Sockets()))).answer
        assert dns.rcode.to_text((await asked(Upstream([first], Sockets()))).rcode()) == rcode
        assert (await asked(Upstream([first, second], Sockets()), "unknown.")).rcode() == dns.rcode.NXDOMAIN


async def test_no_answer_in_time_is_an_error_that_says_so() -> None:
    sockets = Sockets()
    async with name_server(silent) as (server, _):
        with pytest.raises(UpstreamError, match=r"www.bing.com. was not found: no answer in 0.1 s"):
            await asked(Upstream([server], sockets, deadline=0.1))
    assert sockets.made
    assert not sockets.open


async def test_nobody_there_is_an_error_at_once() -> None:
    with pytest.raises(UpstreamError, match="refused"):
        await asked(Upstream([refused()], Sockets()))
    with pytest.raises(UpstreamError, match=r"resolv\.conf names none"):
        await asked(Upstream([], Sockets()))


async def test_a_pod_that_is_gone_is_an_error_like_any_other() -> None:
    class Gone(Sockets):
        def _make(self, family: int, kind: int) -> socket.socket:
            raise KernelError("enter the pod", 2)

    with pytest.raises(UpstreamError, match="enter the pod"):
        await asked(Upstream([refused()], Gone()))


async def test_a_cut_answer_whose_tcp_is_refused_is_none() -> None:
    udp, tcp, address = bound()
    tcp.close()

    async def reply() -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, source = await loop.sock_recvfrom(udp, 512)
            await loop.sock_sendto(udp, await known(dns.message.from_wire(data), "udp"), source)

    answering = asyncio.create_task(reply())
    with pytest.raises(UpstreamError, match="Connect call failed"):
        await asked(Upstream([address], Sockets()), "large.com.")
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    udp.close()


async def test_no_more_sockets_than_allowed_are_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "MOST_AT_ONCE", 4)
    sockets, most = Sockets(), 0

    async def reply(query: dns.message.Message, transport: Transport) -> bytes:
        nonlocal most
        most = max(most, len(sockets.open))
        return await known(query, transport)

    async with name_server(reply) as (server, questions):
        upstream = Upstream([server], sockets)
        responses = await asyncio.gather(*(asked(upstream) for _ in range(50)))
        assert all(response.answer for response in responses)
        assert (len(questions), most) == (50, 4)
    assert not sockets.open


async def test_who_stops_waiting_leaves_no_socket() -> None:
    there, sockets = asyncio.Event(), Sockets()

    async def reply(_query: dns.message.Message, _transport: Transport) -> None:
        there.set()

    async with name_server(reply) as (server, _):
        asking = asyncio.create_task(asked(Upstream([server], sockets)))
        await there.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert sockets.made
    assert not sockets.open


# --- wrong answers ---


def wrong_answers(query: dns.message.Message, junk: bytes) -> list[bytes]:
    other_id = dns.message.make_response(query)
    other_id.id ^= 1
    other_name = dns.message.make_response(dns.message.make_query("other.example.", "A", id=query.id))
    no_answer = query.to_wire()
    return [junk, other_id.to_wire(), other_name.to_wire(), no_answer, no_answer[:20]]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 1 << 30))
def test_what_is_no_answer_to_the_question_is_not_taken_for_one(junk: bytes, seed: int) -> None:
    async def run() -> None:
        udp, tcp, address = bound()
        loop = asyncio.get_running_loop()

        async def reply() -> None:
            data, source = await loop.sock_recvfrom(udp, 512)
            query = dns.message.from_wire(data)
            wrong = wrong_answers(query, junk)
            Random(seed).shuffle(wrong)
            for each in (*wrong, await known(query, "udp")):
                await loop.sock_sendto(udp, each, source)

        answering = asyncio.create_task(reply())
        response = await asked(Upstream([address], Sockets(), timeout=10, deadline=10))
        assert response.answer[0].to_text() == "www.bing.com. 300 IN A 1.1.1.1"
        await answering
        udp.close()
        tcp.close()

    asyncio.run(run())


@pytest.mark.parametrize("number", range(5))
async def test_a_wrong_answer_by_tcp_is_an_error(number: int) -> None:
    async def reply(query: dns.message.Message, transport: Transport) -> bytes:
        if transport == "udp":
            return await known(query, transport)
        return wrong_answers(query, b"junk")[number]

    async with name_server(reply) as (server, _):
        with pytest.raises(UpstreamError, match="no answer"):
            await asked(Upstream([server], Sockets()), "large.com.")


async def test_a_cut_answer_may_end_anywhere() -> None:
    async def reply(query: dns.message.Message, transport: Transport) -> bytes:
        data = await known(query, transport)
        return data[:101] if transport == "udp" else data

    async with name_server(reply) as (server, _):
        assert len((await asked(Upstream([server], Sockets()), "large.com.")).answer) == 256


# --- as a client sees it ---


@BOTH
@pytest.mark.parametrize(("reply", "rcode"), [(failing, "SERVFAIL"), (refusing, "REFUSED")])
async def test_the_upstreams_rcode_is_passed_on(reply: object, rcode: str, transport: Transport) -> None:
    async with name_server(reply) as (server, _), dns_proxy([server]) as proxy:  # type: ignore[arg-type]
        response = await proxy.ask("www.bing.com.", "A", transport)
        assert dns.rcode.to_text(response.rcode()) == rcode


@BOTH
async def test_without_an_answer_from_upstream_there_is_servfail(transport: Transport) -> None:
    async with name_server(silent) as (server, _), dns_proxy([server], deadline=0.1) as proxy:
        response = await proxy.ask("www.bing.com.", "A", transport)
        assert response.rcode() == dns.rcode.SERVFAIL
        assert proxy.metrics.counted[-1][0] == "upstream failure"
