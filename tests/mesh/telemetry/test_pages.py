"""What the ports of readiness and of metrics answer."""

import asyncio
import gzip
import http.client
import socket
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

import pytest
from prometheus_client.parser import text_string_to_metric_families as plain_families

from netwarren.mesh.telemetry.http import HttpServer, Request
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.metrics_page import OPEN_METRICS, metrics_page
from netwarren.mesh.telemetry.readiness import Readiness, readiness_page
from tests.mesh.telemetry.scene import parsed


def _get(path: str, **headers: str) -> Request:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request("GET", path, {}, named)


def test_a_proxy_is_ready_once_nothing_is_pending() -> None:
    readiness = Readiness("workload proxy manager", "state manager")
    answer = readiness_page(readiness, _get("/healthz/ready"))
    assert answer.status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert answer.body == b"not ready, pending: state manager, workload proxy manager\n"
    readiness.done("state manager")
    readiness.done("state manager")
    assert not readiness.ready
    readiness.done("workload proxy manager")
    answer = readiness_page(readiness, _get("/healthz/ready"))
    assert (answer.status, answer.body) == (HTTPStatus.OK, b"ready\n")


def test_a_task_that_begins_again_is_pending_again() -> None:
    readiness = Readiness()
    assert readiness.ready
    readiness.begin("workload proxy manager")
    assert repr(readiness) == "<Readiness: workload proxy manager>"
    assert not readiness.wait(0)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/healthz/ready", 405),
        ("HEAD", "/healthz/ready", 405),
        ("GET", "/healthz/ready/", 404),
        ("GET", "/", 404),
        ("POST", "/", 404),
    ],
)
def test_readiness_answers_nothing_else(method: str, path: str, status: int) -> None:
    answer = readiness_page(Readiness(), Request(method, path, {}))
    assert (answer.status, answer.body) == (status, b"")


async def test_readiness_is_waited_for_from_a_coroutine_and_from_a_thread() -> None:
    readiness = Readiness("dns")
    waits = [asyncio.create_task(readiness.wait_async(60)), asyncio.to_thread(readiness.wait, 60)]
    gathered = asyncio.gather(*waits)
    await asyncio.sleep(0)
    readiness.done("dns")
    assert await gathered == [True, True]


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
def test_metrics_are_plain_text_for_whoever_does_not_say(path: str) -> None:
    metrics = Metrics()
    answer = metrics_page(metrics, _get(path))
    assert answer.status == HTTPStatus.OK
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.body.endswith(b"# EOF\n")
    assert "content-encoding" not in dict(answer.headers)
    assert {family.name for family in plain_families(answer.body.decode())} >= {"istio_build"}


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/json, Application/OpenMetrics-Text; version=1.0.0",
        "application/vnd.google.protobuf;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
    ],
)
def test_metrics_are_openmetrics_for_who_accepts_that(accept: str) -> None:
    answer = metrics_page(Metrics(), _get("/metrics", accept=accept))
    assert answer.content_type == OPEN_METRICS == "application/openmetrics-text;charset=utf-8;version=1.0.0"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/stats", "/healthz/ready"])
def test_metrics_are_nowhere_else(path: str) -> None:
    assert metrics_page(Metrics(), _get(path)).status == HTTPStatus.NOT_FOUND


def test_metrics_are_coded_as_the_client_likes() -> None:
    answer = metrics_page(Metrics(), _get("/metrics", accept_encoding="gzip;q=0.5, identity;q=0.1"))
    assert dict(answer.headers)["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body).endswith(b"# EOF\n")


@pytest.fixture
async def served() -> AsyncIterator[tuple[Metrics, tuple[str, int]]]:
    metrics = Metrics()
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(listener, partial(metrics_page, metrics))
    address = listener.getsockname()
    await server.start()
    yield metrics, address
    await server.close()


async def test_a_scraper_gets_what_was_counted(served: tuple[Metrics, tuple[str, int]]) -> None:
    metrics, (host, port) = served
    metrics.sockets_open.labels(("source",)).add(3)

    def scrape(accepted: str) -> tuple[str | None, bytes]:
        client = http.client.HTTPConnection(host, port, timeout=30)
        client.request("GET", "/metrics", headers={"Accept-Encoding": accepted})
        answer = client.getresponse()
        coding, body = answer.getheader("content-encoding"), answer.read()
        client.close()
        return coding, body

    coding, body = await asyncio.to_thread(scrape, "identity")
    assert coding is None
    assert parsed(body.decode())["istio_tcp_sockets_open"].samples[0].value == 3
    coding, body = await asyncio.to_thread(scrape, "gzip")
    assert coding == "gzip"
    assert b'istio_tcp_sockets_open{reporter="source"} 3\n' in gzip.decompress(body)
