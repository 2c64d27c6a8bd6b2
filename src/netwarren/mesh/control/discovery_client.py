"""Following a control plane: streams of discovery, one after the other, for as long as the proxy runs.

Rules: as istio/ztunnel does (`src/xds/client.rs`): a stream that ends is begun anew, after 10 ms to 15 s; what is known
stays known meanwhile; logs and metrics are ztunnel's. On the proxy's loop.
Does not belong here: what is asked and answered (see `subscription`), connections (see `endpoint`).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netwarren.errors import MeshError
from netwarren.mesh.backoff import Backoff
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.control.endpoint import Endpoint
from netwarren.mesh.control.failure import Broken, CallFailed
from netwarren.mesh.control.grpc import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, UNKNOWN
from netwarren.mesh.control.grpc_client import Call
from netwarren.mesh.control.messages import DISCOVERY_PATH
from netwarren.mesh.control.subscription import Apply, Heard, Subscription
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.records import FieldValue, Level

FIRST_WAIT, LONGEST_WAIT = 0.01, 15.0
"""Seconds before another attempt, which double from failure to failure."""

CONNECT_SECONDS = 10.0
"""Until a control plane has taken the call."""

ALIVE_SECONDS = 10.0
"""A control plane that has been silent for so long is asked whether it is there, and is given up after as long again."""

_PASSING = {UNKNOWN, CANCELLED, DEADLINE_EXCEEDED}
_PASSING_REASONS = ("transport is closing", "received prior goaway")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a proxy hears of its mesh, and as whom it asks: a node's id and metadata, and credentials."""

    endpoint: Endpoint
    node_id: str
    metadata: Mapping[str, str]
    credentials: Credentials


class DiscoveryClient:
    """Keeps what is known of a mesh up to date from ``source``; `run` it.

    ``apply`` changes what is known; ``on_complete`` is called when all has been heard of, and after each change then.
    """

    def __init__(
        self,
        source: Source,
        apply: Apply,
        metrics: Metrics,
        log: Log,
        on_complete: Callable[[], None] = lambda: None,
    ) -> None:
        self._endpoint = source.endpoint
        self._credentials = source.credentials
        self._subscription = Subscription(source.node_id, source.metadata, apply)
        self._metrics = metrics
        self._log = log
        self._on_complete = on_complete
        self._streams = 0
        self._backoff = Backoff(2 * FIRST_WAIT, LONGEST_WAIT)
        self._call: Call | None = None

    async def run(self) -> None:
        """Follow, until it is cancelled."""
        while True:
            self._streams += 1
            self._call = None
            try:
                await self._follow()
            except MeshError as error:
                seconds = self._failed(error)
            else:
                seconds = self._completed()
            await asyncio.sleep(seconds)

    async def _follow(self) -> None:
        """One stream, to its end. Raises `MeshError`."""
        headers = self._credentials.headers()
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit, self._endpoint.open() as (reader, writer):
                self._call = call = Call(self._endpoint.authority, DISCOVERY_PATH, headers)
                for request in self._subscription.begin():
                    call.say(request)
                while not call.ended:
                    writer.write(call.data_to_send())
                    await writer.drain()
                    begun = call.begun
                    messages = call.receive(await self._read(reader, writer, call))
                    if call.begun and not begun:
                        limit.reschedule(None)
                        self._write("info", "Stream established")
                    for message in messages:
                        self._take(message, call)
        except TimeoutError:
            raise Broken(f"{self._endpoint.what} has not answered within {CONNECT_SECONDS:g} s") from None

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: Call) -> bytes:
        """What comes next. Raises `Broken` where nothing does, also when asked."""
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                return await reader.read(1 << 16)
        except TimeoutError:
            call.ping()
            writer.write(call.data_to_send())
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                return await reader.read(1 << 16)
        except TimeoutError:
            raise Broken(f"{self._endpoint.what} is silent") from None

    def _take(self, message: bytes, call: Call) -> None:
        heard = self._subscription.hear(message)
        self._tell(heard)
        if not call.ended:
            call.say(heard.answer)
        if self._subscription.complete:
            self._on_complete()

    # --- telling ---

    def _failed(self, error: MeshError) -> float:
        """Tell of it; seconds until the next attempt."""
        if self._call is None or not self._call.begun:
            wait = self._backoff.wait()
            self._count("ConnectionError")
            where = f"gRPC connection error connecting to {self._endpoint.url}: {error}"
            self._write("warn", f"XDS client connection error: {where}, retrying in {_text(wait)}")
            return wait
        if _passing(error):
            self._backoff.reset()
            self._count("Reconnect")
            self._write("debug", f"XDS client terminated: {error}, retrying in {_text(FIRST_WAIT)}")
            return FIRST_WAIT
        wait = self._backoff.wait()
        self._count("Error")
        self._write("warn", f"XDS client error: {error}, retrying in {_text(wait)}")
        return wait

    def _completed(self) -> float:
        self._count("Complete")
        self._write("warn", "XDS client complete")
        self._backoff.reset()
        return FIRST_WAIT

    def _count(self, reason: str) -> None:
        self._metrics.xds_terminations.labels((reason,)).add()

    def _tell(self, heard: Heard) -> None:
        self._metrics.xds_messages.labels((heard.url,)).add()
        self._metrics.xds_message_bytes.labels((heard.url,)).add(heard.size)
        self._write(
            "info", "received response", type_url=heard.url, size=heard.resources, removes=heard.removed
        )
        for name in heard.unknown:
            self._log.write("warn", "xds", f"tried to remove {name}, but it was not found")
        level: Level = "error" if heard.refusals else "debug"
        self._write(
            level,
            "sending response",
            type_url=heard.url,
            nonce=heard.nonce,
            type="Nack" if heard.refusals else "Ack",
            error="; ".join(heard.refusals) or None,
        )

    def _write(self, level: Level, message: str, **fields: FieldValue) -> None:
        self._log.write(level, "xds::client", message, fields, span=f"xds{{id={self._streams}}}")


def _passing(error: MeshError) -> bool:
    """Whether it says no more than that the stream has to be begun anew."""
    if not isinstance(error, CallFailed):
        return isinstance(error, Broken)
    unavailable = error.status == UNAVAILABLE and any(each in error.reason for each in _PASSING_REASONS)
    return error.status in _PASSING or unavailable


def _text(seconds: float) -> str:
    """As Rust writes a duration: ``20ms``, ``1.28s``."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
