"""Connections that are listed, and ended by somebody else than their ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address

import pytest

from netwarren.mesh.failure import Drained, PolicyChanged, ProxyError
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.telemetry.connections import Connections, Inbound, Outbound, Registration
from tests.mesh.telemetry.scene import CLIENT_ADDRESS, SERVER_ADDRESS


def _inbound(facts: str) -> Inbound[str]:
    return Inbound(CLIENT_ADDRESS, SERVER_ADDRESS, "HBONE", facts, "10.0.3.4:8080")


OUTBOUND = Outbound(CLIENT_ADDRESS, SocketAddress(ip_address("10.96.0.1"), 80), SERVER_ADDRESS, "HBONE")

Carry = Callable[[Registration[str]], Awaitable["asyncio.Task[str]"]]


@pytest.fixture
async def carry() -> AsyncIterator[Carry]:
    """Carries a connection in a task of its own, which gives why it ended."""
    tasks: list[asyncio.Task[str]] = []

    async def work(registration: Registration[str], entered: asyncio.Event) -> str:
        try:
            async with registration:
                entered.set()
                await asyncio.Event().wait()
        except ProxyError as reason:
            return str(reason)
        finally:
            entered.set()
        return "ended by itself"

    async def start(registration: Registration[str]) -> "asyncio.Task[str]":
        entered = asyncio.Event()
        tasks.append(asyncio.create_task(work(registration, entered)))
        await entered.wait()
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_change_of_policy_ends_those_that_now_fail_and_no_others(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    first = await carry(connections.register(_inbound("bad")))
    second = await carry(connections.register(_inbound("good")))
    outbound = await carry(connections.register(OUTBOUND))
    assert connections.reevaluate(lambda facts: facts != "bad") == 1
    assert await first == "connection closed due to policy change"
    assert len(connections) == 2
    assert not second.done()
    assert not outbound.done()


async def test_one_that_is_still_being_checked_when_policy_changes_is_not_let_in() -> None:
    connections: Connections[str] = Connections()
    registration = connections.register(_inbound("bad"))
    connections.reevaluate(lambda facts: False)
    with pytest.raises(PolicyChanged):
        async with registration:
            pytest.fail("it was let in")
    assert len(connections) == 0


async def test_the_first_reason_is_the_one(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    registration = connections.register(_inbound("a"))
    told: list[ProxyError] = []
    registration.on_end(told.append)
    task = await carry(registration)
    registration.end(PolicyChanged())
    registration.end(Drained())
    assert await task == str(PolicyChanged())
    assert [type(reason) for reason in told] == [PolicyChanged]


async def test_who_asks_late_is_told_at_once() -> None:
    connections: Connections[str] = Connections()
    registration = connections.register(_inbound("a"))
    registration.end(PolicyChanged())
    told: list[ProxyError] = []
    registration.on_end(told.append)
    assert told == [registration.reason]


async def test_work_that_ends_by_itself_is_no_longer_listed() -> None:
    connections: Connections[str] = Connections()
    async with connections.register(_inbound("a")) as registration:
        assert len(connections) == 1
    assert len(connections) == 0
    registration.release()
    assert registration.reason is None


async def test_an_error_of_the_work_stays_that_error() -> None:
    connections: Connections[str] = Connections()
    with pytest.raises(OSError, match="refused"):
        async with connections.register(_inbound("a")):
            raise OSError("refused")
    assert len(connections) == 0


async def test_a_task_that_somebody_else_cancels_stays_cancelled(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    registration = connections.register(_inbound("a"))
    task = await carry(registration)
    registration.end(PolicyChanged())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(connections) == 0


async def test_a_task_goes_on_after_its_connection_was_ended() -> None:
    connections: Connections[str] = Connections()
    registration = connections.register(_inbound("a"))
    with pytest.raises(PolicyChanged):
        async with registration:
            registration.end(PolicyChanged())
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_task_that_ends_its_own_connection_and_leaves_is_not_cancelled_later() -> None:
    connections: Connections[str] = Connections()
    with pytest.raises(PolicyChanged):
        async with connections.register(_inbound("a")):
            connections.reevaluate(lambda facts: False)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_the_work_that_was_interrupted_stays_that_error() -> None:
    connections: Connections[str] = Connections()
    with pytest.raises(OSError, match="while tidying up"):
        async with connections.register(_inbound("a")) as registration:
            asyncio.get_running_loop().call_soon(registration.end, PolicyChanged())
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("while tidying up")


async def test_a_graceful_drain_lets_connections_finish() -> None:
    connections: Connections[str] = Connections()
    finished = asyncio.Event()
    steps: list[str] = []
    connections.at_drain(lambda: steps.append("listeners closed"))
    connections.at_drain(lambda: steps.append("goaway"))
    connections.at_drain(finished.set)

    async def work() -> None:
        async with connections.register(_inbound("a")):
            await finished.wait()
            steps.append("finished")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert await connections.drain(60) == 0
    await task
    assert steps == ["listeners closed", "goaway", "finished"]


async def test_a_drain_ends_what_is_left_at_its_deadline(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    task = await carry(connections.register(_inbound("a")))
    assert await connections.drain(0.01) == 1
    assert await task == "connection closed due to connection drain"


async def test_an_immediate_drain_cuts_a_graceful_one_short(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    task = await carry(connections.register(_inbound("a")))
    graceful = asyncio.create_task(connections.drain(600))
    await asyncio.sleep(0)
    assert connections.draining
    assert await connections.drain(0) == 1
    assert await graceful == 0
    assert await task == str(Drained())


async def test_after_a_drain_nothing_gets_in() -> None:
    connections: Connections[str] = Connections()
    await connections.drain(0)
    late: list[str] = []
    connections.at_drain(lambda: late.append("hook"))
    assert late == ["hook"]
    with pytest.raises(Drained):
        async with connections.register(_inbound("a")):
            pytest.fail("it was let in")


async def test_a_hook_that_fails_does_not_keep_the_others_from_being_called() -> None:
    connections: Connections[str] = Connections()
    called: list[str] = []

    def fail() -> None:
        raise OSError("no")

    connections.at_drain(fail)
    connections.at_drain(lambda: called.append("second"))
    registration = connections.register(_inbound("a"))
    registration.on_end(lambda reason: registration.release())
    with pytest.raises(OSError, match="no"):
        await connections.drain(0)
    assert called == ["second"]
    assert isinstance(registration.reason, Drained)


async def test_a_connection_that_does_not_let_go_does_not_hold_up_the_end() -> None:
    connections: Connections[str] = Connections(release_seconds=0.01)
    registration = connections.register(_inbound("a"))
    assert await connections.drain(0) == 1
    assert isinstance(registration.reason, Drained)


async def test_the_listing_names_both_ends() -> None:
    connections: Connections[str] = Connections()
    connections.register(_inbound("a"))
    connections.register(Inbound(CLIENT_ADDRESS, SERVER_ADDRESS, "TCP", "b"))
    connections.register(OUTBOUND)
    assert connections.listing() == {
        "inbound": [
            {
                "src": "10.0.2.3:41000",
                "originalDst": "10.0.3.4:8080",
                "actualDst": "10.0.3.4:15008",
                "protocol": "HBONE",
            },
            {"src": "10.0.2.3:41000", "actualDst": "10.0.3.4:15008", "protocol": "TCP"},
        ],
        "outbound": [
            {
                "src": "10.0.2.3:41000",
                "originalDst": "10.96.0.1:80",
                "actualDst": "10.0.3.4:15008",
                "protocol": "HBONE",
            }
        ],
    }


async def test_a_thousand_connections_are_ended_and_forgotten(carry: Carry) -> None:
    connections: Connections[str] = Connections()
    tasks = [await carry(connections.register(_inbound(str(number)))) for number in range(1000)]
    assert connections.reevaluate(lambda facts: int(facts) % 2 == 0) == 500
    assert await connections.drain(0) == 500
    reasons = await asyncio.gather(*tasks)
    assert reasons.count(str(PolicyChanged())) == reasons.count(str(Drained())) == 500
    assert len(connections) == 0
