"""Names as a program in a pod gets them from the DNS proxy, by UDP and by TCP."""

import asyncio
import socket
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import pytest

from netwarren.errors import MeshError
from netwarren.mesh.dns.resolver import Transport
from netwarren.mesh.model import Service, Workload
from tests.mesh.dns.directory import CASES, CLIENT, Case, Directory, service
from tests.mesh.dns.edge import LARGE, TRANSPORTS, dns_proxy, name_server

BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


def records(response: dns.message.Message) -> list[str]:
    """The answer's records, each with its TTL."""
    return [line.replace(" IN ", " ") for rrset in response.answer for line in rrset.to_text().splitlines()]


@BOTH
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
async def test_names_are_answered_or_passed_on(case: Case, transport: Transport) -> None:
    async with name_server() as (upstream, questions), dns_proxy([upstream]) as proxy:
        response = await proxy.ask(case.name, case.type, transport)
        assert response.flags & dns.flags.RA
        if case.records is None:
            assert not response.flags & dns.flags.AA
            assert questions == [(case.name, case.type, "udp")]
            there = case.name == "www.bing.com."
            assert response.rcode() == (dns.rcode.NOERROR if there else dns.rcode.NXDOMAIN)
            assert records(response) == (["www.bing.com. 300 A 1.1.1.1"] if there else [])
        else:
            assert response.flags & dns.flags.AA
            assert response.rcode() == dns.rcode.NOERROR
            assert questions == []
            expected = [record.replace(". ", ". 30 ", 1) for record in case.records]
            cnames = [record for record in expected if " CNAME " in record]
            got = records(response)
            assert got[: len(cnames)] == cnames
            assert sorted(got) == sorted(expected)


@BOTH
async def test_an_answer_of_256_records_is_cut_by_udp_alone(transport: Transport) -> None:
    async with name_server() as (upstream, questions), dns_proxy([upstream]) as proxy:
        response = await proxy.ask("large.com.", "A", transport)
    # Both times it was had whole: a cut answer is asked for again, by TCP.
    assert questions == [("large.com.", "A", "udp"), ("large.com.", "A", "tcp")]
    number = 74 if transport == "udp" else 256
    assert records(response) == [f"large.com. 300 A {address}" for address in LARGE[:number]]
    assert bool(response.flags & dns.flags.TC) == (transport == "udp")


@BOTH
async def test_a_service_of_256_addresses_is_cut_by_udp_alone(transport: Transport) -> None:
    async with dns_proxy(directory=Directory((service("large.com", "ns1", *LARGE),))) as proxy:
        response = await proxy.ask("large.com.", "A", transport)
        assert len(response.answer) == (74 if transport == "udp" else 256)
        assert bool(response.flags & dns.flags.TC) == (transport == "udp")
        without = await proxy.ask("large.com.", "A", transport, payload=None)
        assert len(without.answer) == (30 if transport == "udp" else 256)  # 512 bytes


@BOTH
async def test_edns_is_echoed(transport: Transport) -> None:
    async with dns_proxy() as proxy:
        response = await proxy.ask("productpage.", "A", transport, payload=4000)
        assert (response.edns, response.payload) == (0, 4000)
        response = await proxy.ask("productpage.", "A", transport, payload=10)
        assert (response.edns, response.payload) == (0, 512)
        assert (await proxy.ask("productpage.", "A", transport, payload=None)).edns == -1


async def test_ipv6_clients_are_answered() -> None:
    async with dns_proxy(family=socket.AF_INET6) as proxy:
        for transport in TRANSPORTS:
            assert records(await proxy.ask("productpage.", "A", transport)) == ["productpage. 30 A 9.9.9.9"]


async def test_ipv6_name_servers_are_asked() -> None:
    async with name_server(family=socket.AF_INET6) as (upstream, questions), dns_proxy([upstream]) as proxy:
        assert len((await proxy.ask("large.com.", "A", "tcp")).answer) == 256
        assert [transport for _name, _type, transport in questions] == ["udp", "tcp"]


async def test_a_question_of_another_class_is_not_the_meshs() -> None:
    async with name_server() as (upstream, _questions), dns_proxy([upstream]) as proxy:
        query = dns.message.make_query("productpage.", "A", "CH")
        answer = dns.message.from_wire(await in_bytes(proxy.address, query.to_wire()))
        assert query.is_response(answer)
        assert not answer.flags & dns.flags.AA


async def in_bytes(address: tuple[object, int], data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as through:
        through.connect((str(address[0]), address[1]))
        await loop.sock_sendall(through, data)
        return await asyncio.wait_for(loop.sock_recv(through, 65535), 10)


# --- who asks ---


@BOTH
async def test_a_question_waits_until_it_is_known_who_asks(transport: Transport) -> None:
    asked, there = asyncio.Event(), asyncio.Event()

    async def later() -> Workload:
        asked.set()
        await there.wait()
        return CLIENT

    async with dns_proxy(workload=later) as proxy:
        answer = asyncio.create_task(proxy.ask("productpage.", "A", transport))
        await asked.wait()
        assert not answer.done()
        there.set()
        assert records(await answer) == ["productpage. 30 A 9.9.9.9"]


async def nobody() -> None:
    return None


async def for_ever() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise MeshError("no such workload")


@BOTH
@pytest.mark.parametrize("workload", [nobody, for_ever, broken])
async def test_who_is_not_known_gets_servfail(workload: object, transport: Transport) -> None:
    async with (
        name_server() as (upstream, questions),
        dns_proxy([upstream], workload=workload, workload_wait=0.05) as proxy,  # type: ignore[arg-type]
    ):
        assert (await proxy.ask("www.bing.com.", "A", transport)).rcode() == dns.rcode.SERVFAIL
        assert questions == []
        assert proxy.metrics.counted == [("request", "a", transport, None)]


# --- what is counted ---


@BOTH
async def test_a_question_that_the_mesh_answers_is_counted_once(transport: Transport) -> None:
    async with dns_proxy() as proxy:
        await proxy.ask("productpage.", "AAAA", transport)
        assert proxy.metrics.counted == [("request", "aaaa", transport, CLIENT)]


@BOTH
async def test_a_question_that_is_passed_on_is_counted_and_timed(transport: Transport) -> None:
    async with name_server() as (upstream, _questions), dns_proxy([upstream]) as proxy:
        await proxy.ask("www.bing.com.", "A", transport)
        kinds = ["request", "upstream request", "upstream duration"]
        assert proxy.metrics.counted == [(kind, "a", transport, CLIENT) for kind in kinds]
        assert all(0 < seconds < 10 for seconds in proxy.metrics.seconds)


@pytest.mark.parametrize(("name", "type"), [("unknown.example.", "A"), ("www.bing.com.", "MX")])
async def test_what_nobody_knows_is_counted_as_a_failure(name: str, type: str) -> None:
    async with name_server() as (upstream, _questions), dns_proxy([upstream]) as proxy:
        await proxy.ask(name, type)
        kinds = [kind for kind, *_labels in proxy.metrics.counted]
        assert kinds == ["request", "upstream request", "upstream duration", "upstream failure"]


# --- a directory with a mistake ---


class Broken(Directory):
    def services(self, hostname: str) -> Sequence[Service]:
        raise RuntimeError(hostname)


@BOTH
async def test_a_mistake_of_ours_is_answered_with_servfail_and_logged(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with dns_proxy(directory=Broken(())) as proxy:
        assert (await proxy.ask("productpage.", "A", transport)).rcode() == dns.rcode.SERVFAIL
    assert "productpage. IN A was not answered" in caplog.text
