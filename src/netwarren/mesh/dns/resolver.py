"""One question in a pod, from its bytes to those of the answer: who asks, what the mesh has, who else knows.

Rules: there is always an answer to a question, SERVFAIL if no other; each is counted.
Does not belong here: the pod's sockets (see `server`), deciding (see `decision`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Literal, Protocol, TypeAlias

from netwarren.errors import MeshError
from netwarren.mesh.dns import message
from netwarren.mesh.dns.decision import Naming, ServiceDirectory, decide
from netwarren.mesh.dns.upstream import Upstream, UpstreamError
from netwarren.mesh.model import Workload
from netwarren.names.raw import SERVFAIL, bare

Transport: TypeAlias = Literal["udp", "tcp"]
WorkloadSource: TypeAlias = Callable[[], Awaitable[Workload | None]]
"""Gives the workload that the pod is, and may wait until it is known; None is as good as never."""

_log = logging.getLogger(__name__)


class DnsMetrics(Protocol):
    """What is counted, with its labels: ``istio_dns_requests_total``, ``istio_dns_upstream_requests_total``,
    ``istio_dns_upstream_failures_total`` and ``istio_dns_upstream_request_duration_seconds``.

    ``query_type`` is in small letters (``a``); ``source`` is the pod that asks, None while it is unknown.
    """

    def on_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None: ...

    def on_upstream_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None: ...

    def on_upstream_failure(self, query_type: str, protocol: Transport, source: Workload | None) -> None: ...

    def on_upstream_duration(
        self, query_type: str, protocol: Transport, source: Workload | None, seconds: float
    ) -> None: ...


class DnsResolver:
    """What the name server of one pod knows and whom it asks.

    ``workload_wait`` is how long, in seconds, a question waits until it is known which workload the pod is.
    """

    def __init__(
        self,
        *,
        workload: WorkloadSource,
        directory: ServiceDirectory,
        upstream: Upstream,
        metrics: DnsMetrics,
        naming: Naming | None = None,
        rng: Random | None = None,
        workload_wait: float = 5.0,
    ) -> None:
        self._workload = workload
        self._directory = directory
        self._upstream = upstream
        self._metrics = metrics
        self._naming = naming or Naming()
        self._rng = rng or Random()
        self._workload_wait = workload_wait

    async def answer(self, data: bytes, transport: Transport) -> bytes | None:
        """What to send back for ``data``; None is nothing."""
        request = message.read(data)
        if not isinstance(request, message.Request):
            return request
        try:
            return await self._answer(request, transport)
        except Exception:  # a mistake of ours, or of what we were given: others still get their answers
            _log.exception("DNS question %s was not answered", request.asked)
            return bare(data, SERVFAIL)

    async def _answer(self, request: message.Request, transport: Transport) -> bytes:
        source = await self._source()
        self._metrics.on_request(request.question.type.lower(), transport, source)
        if source is None:
            return message.failed(request)
        known = None
        if request.ours:
            known = decide(request.question, source, self._directory, self._naming, self._rng)
        if known is not None:
            return message.write(request, known, datagram=transport == "udp")
        return await self._pass_on(request, transport, source)

    async def _source(self) -> Workload | None:
        try:
            async with asyncio.timeout(self._workload_wait):
                return await self._workload()
        except (TimeoutError, MeshError):
            return None

    async def _pass_on(self, request: message.Request, transport: Transport, source: Workload) -> bytes:
        labels = (request.question.type.lower(), transport, source)
        self._metrics.on_upstream_request(*labels)
        began = time.monotonic()
        asked = request.asked
        try:
            response = await self._upstream.ask(asked.name, asked.rdtype, asked.rdclass)
        except UpstreamError as error:
            _log.debug("%s", error)
            response = None
        finally:
            self._metrics.on_upstream_duration(*labels, time.monotonic() - began)
        # ztunnel's resolver has no answer without records, so dashboards count NXDOMAIN here, too.
        if response is None or not response.answer:
            self._metrics.on_upstream_failure(*labels)
        if response is None:
            return message.failed(request)
        return message.passed_on(request, response, datagram=transport == "udp")
