"""Certificates that are shared, renewed, kept and given up, on a clock that the test moves."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.failure import IdentityError
from netwarren.mesh.identity.secrets import MAX_BACKOFF, SecretManager, backoff, renewal
from netwarren.mesh.model import Identity
from tests.mesh.identity.peers import CLIENT, SERVER, ManualClock

AUTHORITY = Authority()
START = ManualClock().now()


def named(account: str) -> Identity:
    return Identity("cluster.local", "default", account)


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Source:
    """Where certificates come from: fetches are counted, held open or made to fail at the test's order."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[Identity] = []
        self.held: list[asyncio.Future[None]] | None = None
        self.failure: BaseException | None = None
        self.lifetime = 10.0
        self.open = self.most = 0

    async def __call__(self, identity: Identity) -> Certificate:
        self.asked.append(identity)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if self.held is not None:
                self.held.append(asyncio.get_running_loop().create_future())
                await self.held[-1]
            if self.failure is not None:
                raise self.failure
            return AUTHORITY.issue(identity, lifetime=self.lifetime, now=self.clock.now())
        finally:
            self.open -= 1

    async def let_go(self, which: int = 0) -> None:
        assert self.held is not None
        self.held.pop(which).set_result(None)
        await settle()


class Kept:
    def __init__(self, concurrency: int = 8) -> None:
        self.clock = ManualClock()
        self.source = Source(self.clock)
        self.secrets = SecretManager(
            self.source, concurrency=concurrency, clock=self.clock, rng=random.Random(1)
        )

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()

    def state(self, identity: Identity = CLIENT) -> str:
        return {state.identity: state.state for state in self.secrets.states()}[identity]


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    kept = Kept()
    yield kept
    await kept.secrets.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert kept.clock.pending == []


async def test_those_who_ask_at_once_share_one_fetch(kept: Kept) -> None:
    certificates = await asyncio.gather(*(kept.secrets.get(CLIENT) for _ in range(50)))
    assert kept.source.asked == [CLIENT]
    assert len(set(map(id, certificates))) == 1
    assert await kept.secrets.get(CLIENT) is certificates[0]
    assert kept.source.asked == [CLIENT]


async def test_one_who_stops_waiting_does_not_stop_the_fetch_of_others(kept: Kept) -> None:
    kept.source.held = []
    one = asyncio.ensure_future(kept.secrets.get(CLIENT))
    other = asyncio.ensure_future(kept.secrets.get(CLIENT))
    await settle()
    one.cancel()
    await settle()
    assert one.cancelled()
    await kept.source.let_go()
    assert (await other).identity == CLIENT
    assert kept.source.asked == [CLIENT]


async def test_it_is_renewed_at_half_its_life(kept: Kept) -> None:
    first = await kept.secrets.get(CLIENT)
    await kept.advance(4.9)
    assert await kept.secrets.get(CLIENT) is first
    await kept.advance(0.2)
    second = await kept.secrets.get(CLIENT)
    assert second.serial != first.serial
    assert second.not_before == first.not_before + 5
    await kept.advance(100)
    assert not (await kept.secrets.get(CLIENT)).expired(kept.clock.now())


async def test_while_a_renewal_is_on_its_way_the_certificate_is_in_use(kept: Kept) -> None:
    first = await kept.secrets.get(CLIENT)
    kept.source.held = []
    await kept.advance(6)
    assert kept.source.asked == [CLIENT, CLIENT]
    assert await kept.secrets.get(CLIENT) is first
    await kept.source.let_go()
    assert await kept.secrets.get(CLIENT) is not first


async def test_a_failed_renewal_keeps_what_is_valid_until_its_end(kept: Kept) -> None:
    first = await kept.secrets.get(CLIENT)
    kept.source.failure = MeshError("the authority is away")
    await kept.advance(5.5)
    assert len(kept.source.asked) == 2
    assert await kept.secrets.get(CLIENT) is first
    assert kept.state() == "Available"
    for _ in range(50):
        await kept.advance(0.1)
    assert kept.state() == "Unavailable: the authority is away"
    with pytest.raises(IdentityError, match=f"no certificate for {CLIENT}: the authority is away") as caught:
        await kept.secrets.get(CLIENT)
    assert caught.value.flag == "IDENTITY_ERROR"
    assert kept.secrets.peek(CLIENT) is None


async def test_a_retry_comes_at_the_certificates_end_at_the_latest(kept: Kept) -> None:
    await kept.secrets.get(CLIENT)
    kept.source.failure = MeshError("away")
    await kept.advance(5.5)
    while kept.clock.now() < START + 9.5:
        (delay,) = kept.clock.pending
        assert kept.clock.now() + delay <= START + 10.1
        await kept.advance(delay)
    kept.source.failure = None
    await kept.advance(2)
    assert kept.state() == "Available"


async def test_the_first_failure_is_told_at_once_and_tried_again_later(kept: Kept) -> None:
    kept.source.failure = OSError("no route")
    for _ in range(3):
        with pytest.raises(IdentityError, match="no route"):
            await kept.secrets.get(CLIENT)
    assert kept.source.asked == [CLIENT]
    kept.source.failure = None
    await kept.advance(1.3)
    assert (await kept.secrets.get(CLIENT)).identity == CLIENT


async def test_pauses_double_and_begin_anew_after_a_success(kept: Kept) -> None:
    kept.source.failure = MeshError("away")
    pauses = []
    for _ in range(3):
        with pytest.raises(IdentityError):
            await kept.secrets.get(CLIENT)
        pauses.append(kept.clock.pending[0])
        await kept.advance(pauses[-1])
    assert all(0.8 * 2**n <= pause <= 1.2 * 2**n for n, pause in enumerate(pauses))
    kept.source.failure = None
    await kept.advance(10)
    await kept.secrets.get(CLIENT)
    kept.source.failure = MeshError("away")
    await kept.advance(5.1)
    assert 0.8 <= kept.clock.pending[0] <= 1.2


def test_pauses_never_exceed_their_limit() -> None:
    rng = random.Random(0)
    assert max(backoff(failures, rng) for failures in range(1, 5000)) == MAX_BACKOFF
    assert len({backoff(1, rng) for _ in range(10)}) == 10


def test_a_certificate_past_half_its_life_is_renewed_halfway_to_its_end() -> None:
    certificate = AUTHORITY.issue(CLIENT, lifetime=100, now=START)
    assert renewal(certificate, START) == 50
    assert renewal(certificate, START + 80) == 10
    assert renewal(certificate, START + 1000) > 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda now: AUTHORITY.issue(SERVER, now=now), f"gave one for {SERVER}"),
        (lambda now: AUTHORITY.issue(CLIENT, lifetime=-5, now=now), "has expired"),
    ],
)
async def test_what_was_not_asked_for_is_a_failure(answer: Callable[[float], Certificate], why: str) -> None:
    clock = ManualClock()

    async def fetch(identity: Identity) -> Certificate:
        return answer(clock.now())

    secrets = SecretManager(fetch, clock=clock)
    with pytest.raises(IdentityError, match=why):
        await secrets.get(CLIENT)
    await secrets.close()


async def test_a_workload_of_which_no_trust_domain_or_account_is_told_has_a_certificate(kept: Kept) -> None:
    bare = Identity("", "default", "")
    assert (await kept.secrets.get(bare)).identity == bare


async def test_why_there_is_no_certificate_is_told_once() -> None:
    async def fetch(identity: Identity) -> Certificate:
        return AUTHORITY.issue(SERVER)

    secrets = SecretManager(fetch)
    with pytest.raises(IdentityError) as caught:
        await secrets.get(CLIENT)
    assert str(caught.value) == f"no certificate for {CLIENT}: the authority gave one for {SERVER}"
    await secrets.close()


async def test_a_fetch_that_cancels_itself_is_a_failure(kept: Kept) -> None:
    kept.source.failure = asyncio.CancelledError()
    with pytest.raises(IdentityError, match="CancelledError"):
        await kept.secrets.get(CLIENT)


async def test_no_more_fetches_run_at_once_than_allowed() -> None:
    kept = Kept(concurrency=2)
    kept.source.held = []
    for number in range(6):
        kept.secrets.prefetch(named(f"a{number}"))
    await settle()
    assert kept.source.open == 2
    for _ in range(6):
        await kept.source.let_go()
    assert (len(kept.source.asked), kept.source.most) == (6, 2)
    await kept.secrets.close()


async def test_a_connection_overtakes_workloads_to_come_and_these_overtake_renewals() -> None:
    kept = Kept(concurrency=1)
    old, first, second, urgent, new = map(named, ("old", "first", "second", "urgent", "new"))
    await kept.secrets.get(old)
    kept.source.held = []
    kept.secrets.prefetch(first)
    await settle()
    await kept.advance(5.5)  # the renewal of `old` now waits for its turn
    for identity in (second, urgent):
        kept.secrets.prefetch(identity)
    await settle()
    waiting = []
    for identity in (new, urgent):
        waiting.append(asyncio.ensure_future(kept.secrets.get(identity)))
        await settle()
    for _ in range(5):
        await kept.source.let_go()
    assert kept.source.asked == [old, first, new, urgent, second, old]
    assert [certificate.identity for certificate in await asyncio.gather(*waiting)] == [new, urgent]
    await kept.secrets.close()


async def test_a_connection_hurries_a_prefetch_that_has_not_begun() -> None:
    crowded = Kept(concurrency=1)
    crowded.source.held = []
    for account in ("a", "b", "c"):
        crowded.secrets.prefetch(named(account))
    waiting = asyncio.ensure_future(crowded.secrets.get(named("c")))
    await settle()
    await crowded.source.let_go()
    await crowded.source.let_go()
    assert (await waiting).identity == named("c")
    assert crowded.source.asked[:2] == [named("a"), named("c")]
    await crowded.secrets.close()


async def test_a_prefetched_certificate_is_there_when_asked_for(kept: Kept) -> None:
    assert kept.secrets.peek(CLIENT) is None
    kept.secrets.prefetch(CLIENT)
    kept.secrets.prefetch(CLIENT)
    assert kept.state() == "Initializing"
    await settle()
    assert kept.secrets.peek(CLIENT) is await kept.secrets.get(CLIENT)
    assert kept.source.asked == [CLIENT]


async def test_what_is_forgotten_is_renewed_no_longer(kept: Kept) -> None:
    await kept.secrets.get(CLIENT)
    kept.secrets.forget(CLIENT)
    kept.secrets.forget(CLIENT)
    await kept.advance(100)
    assert kept.source.asked == [CLIENT]
    assert kept.secrets.states() == []
    await kept.secrets.get(CLIENT)
    assert kept.source.asked == [CLIENT, CLIENT]


async def test_who_waits_for_what_is_forgotten_gets_an_error(kept: Kept) -> None:
    kept.source.held = []
    waiting = asyncio.ensure_future(kept.secrets.get(CLIENT))
    await settle()
    kept.secrets.forget(CLIENT)
    with pytest.raises(IdentityError, match="forgotten"):
        await waiting


async def test_forgetting_what_waits_for_its_turn_lets_the_others_in() -> None:
    kept = Kept(concurrency=1)
    kept.source.held = []
    for account in ("a", "b", "c"):
        kept.secrets.prefetch(named(account))
    await settle()
    kept.secrets.forget(named("b"))
    kept.secrets.forget(named("a"))
    await settle()
    assert kept.source.asked == [named("a"), named("c")]
    await kept.secrets.close()


async def test_forgetting_what_was_let_in_this_moment_lets_the_others_in() -> None:
    kept = Kept(concurrency=1)
    kept.source.held = []
    for account in ("a", "b", "c"):
        kept.secrets.prefetch(named(account))
    await settle()
    kept.source.held[0].set_result(None)
    while not kept.secrets._entries[named("b")].turn.done():  # type: ignore[union-attr]
        await asyncio.sleep(0)
    kept.secrets.forget(named("b"))
    await settle()
    assert kept.source.asked == [named("a"), named("c")]
    await kept.secrets.close()


async def test_states_are_those_of_the_admin_page(kept: Kept) -> None:
    await kept.secrets.get(SERVER)
    kept.source.failure = MeshError("forgotten")
    with pytest.raises(IdentityError):
        await kept.secrets.get(CLIENT)
    kept.source.held = []
    kept.secrets.prefetch(named("x"))
    shown = [(state.identity, state.state, state.certificate is not None) for state in kept.secrets.states()]
    assert shown == [
        (CLIENT, "Unavailable: forgotten", False),
        (SERVER, "Available", True),
        (named("x"), "Initializing", False),
    ]


async def test_after_the_end_nobody_waits_and_nothing_is_fetched() -> None:
    kept = Kept(concurrency=1)
    kept.source.held = []
    waiting = [asyncio.ensure_future(kept.secrets.get(named(account))) for account in ("a", "b")]
    await settle()
    await kept.secrets.close()
    for each in waiting:
        with pytest.raises(IdentityError, match="the proxy has ended"):
            await each
    with pytest.raises(IdentityError, match="the proxy has ended"):
        await kept.secrets.get(CLIENT)
    with pytest.raises(IdentityError, match="the proxy has ended"):
        kept.secrets.prefetch(CLIENT)
    await kept.secrets.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_clock_that_jumped_past_the_end_makes_a_connection_wait_for_the_renewal(kept: Kept) -> None:
    """As after a debugger's pause: the certificate is over, and its renewal has not come yet."""
    first = await kept.secrets.get(CLIENT)
    kept.clock._now += 60
    assert kept.state() == "Initializing"
    assert (await kept.secrets.get(CLIENT)).not_before > first.not_after


async def test_it_renews_by_the_loops_own_clock() -> None:
    renewed = asyncio.Event()
    asked = 0

    async def fetch(identity: Identity) -> Certificate:
        nonlocal asked
        asked += 1
        if asked == 2:
            renewed.set()
        return AUTHORITY.issue(identity, lifetime=0)

    secrets = SecretManager(fetch)
    await secrets.get(CLIENT)
    async with asyncio.timeout(30):
        await renewed.wait()
    await secrets.close()


async def test_an_authority_is_a_source(kept: Kept) -> None:
    authority = Authority()
    fetch: Callable[[Identity], Awaitable[Certificate]] = authority.fetcher(lifetime=60)
    secrets = SecretManager(fetch)
    assert (await secrets.get(CLIENT)).identity == CLIENT
    authority.refuse(SERVER)
    with pytest.raises(IdentityError, match=f"refuses {SERVER}"):
        await secrets.get(SERVER)
    await secrets.close()
