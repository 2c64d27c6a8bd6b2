"""Tunnel connections that are used again, each for one source, one set of acceptable peers and one place.

Rules: one handshake for a key at a time, others wait for it; a connection that came to its most streams, or said
GOAWAY, or died is not used again; one that nobody asked for in ``idle`` seconds ends with its last stream.
Does not belong here: connecting (it comes as a callable), where to connect to.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from netwarren.mesh.hbone.events import Headers
from netwarren.mesh.hbone.failure import ConnectionLost
from netwarren.mesh.hbone.transport import OpenedStream, Tunnel
from netwarren.mesh.model import SocketAddress
from netwarren.topology.addresses import Address

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What must be the same for a connection to be used again.

    ``destinations`` are the SPIFFE identities of which the peer must have one; ``source_address`` is the address
    that the connection comes from.
    """

    source: object
    destinations: frozenset[object]
    destination: SocketAddress
    source_address: Address


class _Shelf:
    """The connections of one key that may take another stream, and who makes the next one."""

    def __init__(self) -> None:
        self.tunnels: list[Tunnel] = []
        self.making = asyncio.Lock()
        self.timer: asyncio.TimerHandle | None = None


class Pool:
    """Connections by key. ``connect(key)`` makes a new one; ``most_streams`` is for one, ``idle`` is in seconds."""

    def __init__(
        self,
        connect: Callable[[PoolKey], Awaitable[Tunnel]],
        *,
        most_streams: int = 100,
        idle: float = 300.0,
    ) -> None:
        self._connect = connect
        self._most_streams = most_streams
        self._idle = idle
        self._shelves: dict[PoolKey, _Shelf] = {}
        self._alive: set[Tunnel] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many connections live, also those that only wait for their last stream."""
        return len(self._alive)

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """Those connections."""
        return tuple(self._alive)

    async def open_stream(
        self, key: PoolKey, authority: str, headers: Headers = ()
    ) -> tuple[OpenedStream, Tunnel]:
        """A tunnel to ``authority`` over a connection of ``key``, an existing one if there is one.

        Raises what ``connect`` and `Tunnel.open_stream` raise, and `ConnectionLost` if the pool is closed.
        """
        for attempt in range(_ATTEMPTS):
            tunnel, fresh = await self._checkout(key)
            try:
                return await tunnel.open_stream(authority, headers), tunnel
            except ConnectionLost:
                # The peer may have ended one that was there between our look at it and the request's arrival. One that
                # was made for the request and is lost was refused, and another would be, too.
                if fresh or attempt + 1 == _ATTEMPTS or tunnel.usable:
                    raise
        raise AssertionError("not reached")

    async def _checkout(self, key: PoolKey) -> tuple[Tunnel, bool]:
        """A connection that may take a stream, and whether it was made for this one."""
        self._refuse_if_closed()
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = _Shelf()
        self._restart_idle(key, shelf)
        if (tunnel := self._take(shelf)) is not None:
            return tunnel, False
        async with shelf.making:
            self._refuse_if_closed()
            if (tunnel := self._take(shelf)) is not None:
                return tunnel, False
            tunnel = await self._connect(key)
            self._watch(tunnel)
            if self._closed:
                await tunnel.close()
                self._refuse_if_closed()
            shelf.tunnels.append(tunnel)
            self._restart_idle(key, shelf)
            taken = self._take(shelf)
            return tunnel if taken is None else taken, True

    def _take(self, shelf: _Shelf) -> Tunnel | None:
        # What it returns must be used before anything else runs, for it counts as one stream from then on only.
        while shelf.tunnels:
            tunnel = shelf.tunnels[-1]
            if not tunnel.usable:
                shelf.tunnels.pop()
                continue
            most = min(self._most_streams, tunnel.most_streams)
            if tunnel.stream_count + 1 >= most:
                # This stream is its last: it is off the shelf for good, also when streams have ended again.
                shelf.tunnels.pop()
                asyncio.get_running_loop().call_soon(tunnel.release)
            if tunnel.stream_count < most:
                return tunnel
        return None

    def _watch(self, tunnel: Tunnel) -> None:
        self._alive.add(tunnel)
        watcher = asyncio.get_running_loop().create_task(tunnel.wait_closed())
        self._watchers.add(watcher)

        def ended(_: "asyncio.Task[None]") -> None:
            self._alive.discard(tunnel)
            self._watchers.discard(watcher)
            for shelf in self._shelves.values():
                if tunnel in shelf.tunnels:
                    shelf.tunnels.remove(tunnel)

        watcher.add_done_callback(ended)

    def _restart_idle(self, key: PoolKey, shelf: _Shelf) -> None:
        if shelf.timer is not None:
            shelf.timer.cancel()
        shelf.timer = asyncio.get_running_loop().call_later(self._idle, self._release_idle, key, shelf)

    def _release_idle(self, key: PoolKey, shelf: _Shelf) -> None:
        if shelf.making.locked():
            self._restart_idle(key, shelf)
            return
        if self._shelves.get(key) is shelf:
            del self._shelves[key]
        for tunnel in shelf.tunnels:
            tunnel.release()
        shelf.tunnels.clear()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConnectionLost("the pool of connections was closed")

    async def close(self) -> None:
        """Ends all its connections now, with their streams, and waits until they are gone. May be called again."""
        self._closed = True
        for shelf in self._shelves.values():
            if shelf.timer is not None:
                shelf.timer.cancel()
        self._shelves.clear()
        await asyncio.gather(*(tunnel.close() for tunnel in self._alive))
        if self._watchers:
            await asyncio.wait(self._watchers)
