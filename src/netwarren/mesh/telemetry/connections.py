"""The connections that a proxy carries now: listed, and ended when policy or the proxy's end wants it.

Rules: of one loop and its thread; a connection registers before it is checked, so that no change of policy falls
between; ending one twice is ending it once.
Does not belong here: who may connect (it is given), tunnels (see `hbone`), counting and logging (see `connection`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar

from netwarren.mesh.failure import Drained, PolicyChanged, ProxyError
from netwarren.mesh.model import SocketAddress

Protocol: TypeAlias = Literal["TCP", "HBONE", "DOUBLEHBONE"]

RELEASE_SECONDS = 1.0
"""How long one that was ended may take to let go, before the proxy ends without it."""

F = TypeVar("F", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Inbound(Generic[F]):
    """A connection to the pod. ``facts`` is what policies judge it by."""

    source: SocketAddress
    destination: SocketAddress
    protocol: Protocol
    facts: F
    original_destination: str | None = None
    """The authority asked for."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A connection from the pod: where it wanted to go, and the next hop."""

    source: SocketAddress
    original_destination: SocketAddress
    destination: SocketAddress
    protocol: Protocol


class Registration(Generic[F]):
    """A connection's place in the list; made by `Connections`, given back with `release`.

    As an async context manager around the work of the connection: when somebody ends the connection, the task is
    cancelled inside the block and the reason, a `ProxyError`, is raised out of it; leaving releases.
    """

    def __init__(self, connections: "Connections[F]", connection: Inbound[F] | Outbound) -> None:
        self.connection = connection
        self.reason: ProxyError | None = None
        """Why it has been ended, or None."""
        self._connections = connections
        self._callbacks: list[Callable[[ProxyError], None]] = []
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self._cancel_soon: asyncio.Handle | None = None
        self._requests = 0

    def __repr__(self) -> str:
        return f"<Registration of {self.connection}: {self.reason or 'open'}>"

    def on_end(self, callback: Callable[[ProxyError], None]) -> None:
        """Have ``callback`` called, once, with the reason when somebody ends the connection; at once if they have."""
        if self.reason is not None:
            callback(self.reason)
        else:
            self._callbacks.append(callback)

    def end(self, reason: ProxyError) -> None:
        """End the connection; only the first reason counts."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._task is not None:
            if self._task is asyncio.current_task():
                # Its next wait is interrupted, if it comes to one before it leaves.
                self._cancel_soon = asyncio.get_running_loop().call_soon(self._interrupt)
            else:
                self._interrupt()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(reason)

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._cancelled = True

    def release(self) -> None:
        """The connection has ended; repeatable."""
        self._callbacks.clear()
        self._connections._forget(self)

    async def __aenter__(self) -> Self:
        if self.reason is not None:
            self.release()
            raise self.reason
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a registration is entered in a task")
        self._task = task
        self._requests = task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self.release()
        if self._cancel_soon is not None:
            self._cancel_soon.cancel()
        if self.reason is None:
            return
        # As in `asyncio.timeout`: our own cancellation becomes the reason, one of somebody else stays theirs.
        ours = task is not None and self._cancelled and task.uncancel() <= self._requests
        if error is None or (ours and kind is asyncio.CancelledError):
            raise self.reason from None


class Connections(Generic[F]):
    """All connections of one pod, or of one proxy."""

    def __init__(self, release_seconds: float = RELEASE_SECONDS) -> None:
        self._release_seconds = release_seconds
        self._registered: dict[Registration[F], None] = {}
        self._drain_hooks: list[Callable[[], None]] = []
        self._draining = False
        self._ended = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Connections: {len(self)}{' draining' if self._draining else ''}>"

    def __len__(self) -> int:
        return len(self._registered)

    @property
    def draining(self) -> bool:
        """Whether no new ones are wanted."""
        return self._draining

    def register(self, connection: Inbound[F] | Outbound) -> Registration[F]:
        """Enter a connection, before it is checked. After the end of a drain it has been ended already."""
        registration = Registration(self, connection)
        if self._ended:
            registration.reason = Drained()
        else:
            self._registered[registration] = None
            self._empty.clear()
        return registration

    def reevaluate(self, allowed: Callable[[F], bool]) -> int:
        """End, with `PolicyChanged`, the inbound connections that ``allowed`` no longer lets in; how many it were."""
        return self._end_those(
            lambda connection: isinstance(connection, Inbound) and not allowed(connection.facts),
            PolicyChanged,
        )

    def at_drain(self, hook: Callable[[], None]) -> None:
        """Have ``hook`` called when a drain begins, in order: to close listeners, to send GOAWAY. At once if it has."""
        if self._draining:
            hook()
        else:
            self._drain_hooks.append(hook)

    async def drain(self, deadline: float) -> int:
        """Want no new connections, give those there are ``deadline`` seconds, then end them; how many had to be.

        A ``deadline`` of 0 ends them at once (the pod has been deleted). Returns when all have been released, or
        have not been although ended `RELEASE_SECONDS` ago.
        Repeatable: a second, shorter drain cuts the first one short. Raises in the end what a hook raised.
        """
        self._draining = True
        hooks, self._drain_hooks = self._drain_hooks, []
        failures: list[Exception] = []
        for hook in hooks:
            try:
                hook()
            except Exception as error:
                failures.append(
                    error
                )  # told in the end: it keeps neither the others nor the drain from happening
        if deadline > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline):
                    await self._empty.wait()
        self._ended = True
        ended = self._end_those(lambda connection: True, Drained)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._release_seconds):
                await self._empty.wait()
        if failures:
            raise failures[0]
        return ended

    def listing(self) -> dict[str, list[dict[str, str]]]:
        """The connections as ``workloadState`` of ``/config_dump`` shows them."""
        shown: dict[str, list[dict[str, str]]] = {"inbound": [], "outbound": []}
        for registration in self._registered:
            connection = registration.connection
            if isinstance(connection, Inbound):
                shown["inbound"].append(dict(_shown(connection)))
            else:
                shown["outbound"].append(dict(_shown(connection)))
        return shown

    def _end_those(
        self, unwanted: Callable[[Inbound[F] | Outbound], bool], reason: Callable[[], ProxyError]
    ) -> int:
        ended = [
            registration
            for registration in self._registered
            if registration.reason is None and unwanted(registration.connection)
        ]
        for registration in ended:
            registration.end(reason())
        return len(ended)

    def _forget(self, registration: Registration[F]) -> None:
        self._registered.pop(registration, None)
        if not self._registered:
            self._empty.set()


def _shown(connection: Inbound[F] | Outbound) -> Iterator[tuple[str, str]]:
    yield "src", str(connection.source)
    if connection.original_destination is not None:
        yield "originalDst", str(connection.original_destination)
    yield "actualDst", str(connection.destination)
    yield "protocol", connection.protocol
