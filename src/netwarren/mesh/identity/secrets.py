"""The certificates of a proxy's workloads: fetched once for all who ask, renewed at half their life, kept while valid.

Rules: one loop; one task per identity, none after `close`; the clock and the randomness are parameters.
Does not belong here: where certificates come from (`Fetch`), TLS.
"""

import asyncio
import functools
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from netwarren.mesh.identity.certificate import Certificate, describe, identities
from netwarren.mesh.identity.clock import Clock, WallClock
from netwarren.mesh.identity.failure import IdentityError
from netwarren.mesh.model import Identity

Fetch: TypeAlias = Callable[[Identity], Awaitable[Certificate]]

CONCURRENCY = 8
MAX_BACKOFF = 150.0
MIN_WAIT = 0.1


class Priority(IntEnum):
    """Who is served first where fetches wait for each other: a connection, a workload to come, a renewal."""

    REAL_TIME = 0
    WARMUP = 1
    BACKGROUND = 2


def backoff(failures: int, rng: random.Random) -> float:
    """How many seconds to wait after that many failures in a row (1 or more): 1 s, doubling, +-20 %, at most 150 s."""
    return min(MAX_BACKOFF, 2.0 ** min(failures - 1, 16) * rng.uniform(0.8, 1.2))


def renewal(certificate: Certificate, now: float) -> float:
    """How many seconds until a certificate is renewed: at half its life, or halfway to its end if that is past."""
    rest = certificate.half_life - now
    return max(MIN_WAIT, rest if rest > 0 else (certificate.not_after - now) / 2)


def _settle(due: asyncio.Future[None]) -> None:
    if not due.done():
        due.set_result(None)


def _reason(error: BaseException) -> str:
    """Why a fetch failed, for an `IdentityError`, which one that it raised itself would say twice."""
    return error.why if isinstance(error, IdentityError) else str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class SecretState:
    """One identity as an admin page shows it; ``state`` is Available, Initializing or "Unavailable: why"."""

    identity: Identity
    state: str
    certificate: Certificate | None

    def described(self) -> dict[str, object]:
        """One entry of ``certificates`` in ztunnel's ``/config_dump``: public parts only."""
        chain, roots = (self.certificate.chain, self.certificate.roots) if self.certificate else ((), ())
        return {
            "identity": str(self.identity),
            "state": self.state,
            "certChain": [describe(each)._asdict() for each in chain],
            "rootCerts": [describe(each)._asdict() for each in roots],
        }


@dataclass(slots=True, eq=False)
class _Entry:
    identity: Identity
    priority: Priority  # of the next fetch
    certificate: Certificate | None = None
    error: IdentityError | None = None
    failures: int = 0
    settled: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # an answer is there: a certificate, an error
    due: asyncio.Future[None] | None = None  # waited for until the next fetch
    turn: asyncio.Future[None] | None = None  # waited for while others fetch
    task: asyncio.Task[None] | None = None


class _Turns:
    """At most so many fetches at once; who waits is let in by priority, then by order of asking."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._order = itertools.count()
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []

    def ask(self, priority: Priority, turn: asyncio.Future[None]) -> None:
        """Put ``turn`` in the queue; again, with another priority, is to be served at the better of the two."""
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        self._serve()

    def give_back(self) -> None:
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # those that were served at a better priority, or gave up
                self._free -= 1
                turn.set_result(None)


class SecretManager:
    """Certificates by identity, from ``fetch``; to be used on one loop.

    While fetching fails, a certificate that is still valid stays in use; without one, `get` raises the last failure
    at once and the next attempt comes after a pause (`backoff`). Whatever ``fetch`` raises is such a failure, as
    are a certificate of another identity and one that has expired. ``fetch`` sets its own time limit.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        concurrency: int = CONCURRENCY,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._fetch = fetch
        self._clock = clock or WallClock()
        self._rng = rng or random.Random()
        self._turns = _Turns(concurrency)
        self._entries: dict[Identity, _Entry] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def get(self, identity: Identity) -> Certificate:
        """The identity's certificate, valid now; fetched first of all others if there is none.

        Raises `IdentityError` if it cannot be had, is forgotten meanwhile, or the manager was closed.
        """
        entry = self._entry(identity, Priority.REAL_TIME)
        while True:
            certificate = entry.certificate
            if certificate is not None and not certificate.expired(self._clock.now()):
                return certificate
            if entry.error is not None:
                raise IdentityError(identity, entry.error.why)
            entry.settled.clear()
            self._hurry(entry)
            await entry.settled.wait()

    def peek(self, identity: Identity) -> Certificate | None:
        """The certificate that `get` would give without waiting, if there is one."""
        entry = self._entries.get(identity)
        certificate = entry.certificate if entry else None
        return None if certificate is None or certificate.expired(self._clock.now()) else certificate

    def prefetch(self, identity: Identity) -> None:
        """Have the identity's certificate soon; nothing where it is known already. Raises `IdentityError` if closed."""
        self._entry(identity, Priority.WARMUP)

    def forget(self, identity: Identity) -> None:
        """Drop the identity and renew it no longer; who waits for it gets an error. Nothing for an unknown one."""
        entry = self._entries.pop(identity, None)
        if entry is not None:
            self._end(entry, "the identity was forgotten")

    def states(self) -> list[SecretState]:
        """All identities known, in their order."""
        return [self._state(self._entries[identity]) for identity in sorted(self._entries)]

    async def close(self) -> None:
        """End all fetches and renewals; who waits gets an error. Again is nothing."""
        self._closed = True
        for identity in list(self._entries):
            self._end(self._entries.pop(identity), "the proxy has ended")
        if self._ending:
            await asyncio.wait(self._ending)

    # --- one identity -----------------------------------------------------------------------------

    def _state(self, entry: _Entry) -> SecretState:
        certificate = self.peek(entry.identity)
        if certificate is not None:
            return SecretState(entry.identity, "Available", certificate)
        state = "Initializing" if entry.error is None else f"Unavailable: {entry.error.why}"
        return SecretState(entry.identity, state, None)

    def _entry(self, identity: Identity, priority: Priority) -> _Entry:
        entry = self._entries.get(identity)
        if entry is None:
            if self._closed:
                raise IdentityError(identity, "the proxy has ended")
            entry = self._entries[identity] = _Entry(identity, priority)
            name = f"certificate of {identity}"
            entry.task = asyncio.get_running_loop().create_task(self._keep(entry), name=name)
        return entry

    def _hurry(self, entry: _Entry) -> None:
        """A connection waits: let the fetch begin, or overtake the others that wait for their turn."""
        if entry.priority is Priority.REAL_TIME:
            return  # so did another one before
        entry.priority = Priority.REAL_TIME
        if entry.due is not None:
            _settle(entry.due)
        if entry.turn is not None and not entry.turn.done():
            self._turns.ask(Priority.REAL_TIME, entry.turn)

    def _end(self, entry: _Entry, why: str) -> None:
        entry.certificate = None
        entry.error = IdentityError(entry.identity, why)
        entry.settled.set()
        if entry.task is not None:
            entry.task.cancel()
            self._ending.add(entry.task)
            entry.task.add_done_callback(self._ending.discard)

    async def _keep(self, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._take_turn(entry, loop.create_future())
            try:
                delay = await self._renew(entry)
            finally:
                self._turns.give_back()
            entry.priority = Priority.BACKGROUND
            entry.due = loop.create_future()
            timer = self._clock.call_later(delay, functools.partial(_settle, entry.due))
            try:
                await entry.due
            finally:
                timer.cancel()

    async def _take_turn(self, entry: _Entry, turn: asyncio.Future[None]) -> None:
        entry.turn = turn
        self._turns.ask(entry.priority, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in and ended in the same moment
                self._turns.give_back()
            raise

    async def _renew(self, entry: _Entry) -> float:
        """One fetch; how long to wait until the next."""
        try:
            certificate = await self._fetch(entry.identity)
            self._check(entry.identity, certificate)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            entry.failures += 1
            delay = backoff(entry.failures, self._rng)
            kept, now = entry.certificate, self._clock.now()
            if kept is not None and not kept.expired(now):
                delay = max(MIN_WAIT, min(delay, kept.not_after - now))
            else:
                entry.certificate = None
                entry.error = IdentityError(entry.identity, _reason(error))
        else:
            entry.failures = 0
            entry.certificate, entry.error = certificate, None
            delay = renewal(certificate, self._clock.now())
        entry.settled.set()
        return delay

    def _check(self, identity: Identity, certificate: Certificate) -> None:
        names = identities(certificate.chain[0])
        if identity not in names:
            raise IdentityError(
                identity, f"the authority gave one for {', '.join(map(str, names)) or 'nobody'}"
            )
        if certificate.expired(self._clock.now()):
            raise IdentityError(identity, "the authority gave one that has expired")
