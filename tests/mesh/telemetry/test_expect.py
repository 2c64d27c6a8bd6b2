"""A test's expectations of metrics and of the log, from another thread than the one that tells."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.telemetry.connection import Connection
from netwarren.mesh.telemetry.expect import (
    expect,
    expect_record,
    expect_record_sync,
    expect_sync,
    snapshot,
)
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from tests.mesh.telemetry.scene import INBOUND, OUTBOUND

OPENED = "istio_tcp_connections_opened_total"
SENT = "istio_tcp_sent_bytes_total"


@pytest.fixture
def proxy() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs functions on the loop of another thread, as a proxy does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(function: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(function)

    yield call
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _carry(metrics: Metrics, log: Log) -> None:
    for opened in (OUTBOUND, INBOUND):
        with Connection(metrics, log, opened) as connection:
            connection.count_received(4)
            connection.count_sent(4)
            connection.count_sent(4)


async def test_a_coroutine_gets_the_change_of_a_metric(
    proxy: Callable[[Callable[[], None]], None],
) -> None:
    metrics, log = Metrics(), Log()
    _carry(metrics, log)
    before = snapshot(metrics)
    proxy(lambda: _carry(metrics, log))
    await expect(before, SENT, {"reporter": "source"}, 8)
    await expect(before, SENT, {}, 16)
    await expect(before, OPENED, {"reporter": "destination", "source_workload": "client"}, 1)


def test_a_thread_gets_the_change_of_a_metric(proxy: Callable[[Callable[[], None]], None]) -> None:
    metrics, log = Metrics(), Log()
    before = snapshot(metrics)
    proxy(lambda: _carry(metrics, log))
    expect_sync(before, "istio_tcp_connections_closed_total", {"response_flags": "-"}, 2)
    assert before.delta(SENT, {"reporter": "source"}) == 8


def test_a_gauge_is_awaited_until_it_is_back(proxy: Callable[[Callable[[], None]], None]) -> None:
    metrics = Metrics()
    gauge = metrics.sockets_open.labels(("source",))
    before = snapshot(metrics)
    gauge.add(1)
    proxy(lambda: gauge.add(-1))
    expect_sync(before, "istio_tcp_sockets_open", {"reporter": "source"}, 0)


async def test_who_is_disappointed_reads_what_has_changed_instead() -> None:
    metrics, log = Metrics(), Log()
    before = snapshot(metrics)
    _carry(metrics, log)
    with pytest.raises(AssertionError) as caught:
        await expect(before, SENT, {"reporter": "source"}, 9, seconds=0.01)
    message = str(caught.value)
    assert message.startswith(f'{SENT}{{reporter="source"}} has changed by +8, not by +9; since then:\n')
    assert f'  {SENT}{{reporter="destination",source_workload="client",' in message
    assert message.count(" +8\n") + message.endswith(" +8") == 2


async def test_nothing_of_that_name_is_said_to_be_so() -> None:
    before = snapshot(Metrics())
    with pytest.raises(AssertionError, match=r"changed by \+0, not by \+1; since then:\n  \(nothing"):
        await expect(before, SENT, {}, 1, seconds=0)


@pytest.mark.parametrize("name", ["istio_tcp_sent_bytes", "istio_tcp_opened_total", ""])
async def test_a_name_that_no_metric_has_is_refused_at_once(name: str) -> None:
    before = snapshot(Metrics())
    with pytest.raises(MeshError, match="no metric is called"):
        await expect(before, name, {}, 0)
    with pytest.raises(MeshError, match="no metric is called"):
        before.delta(name, {})


async def test_a_histogram_is_awaited_by_its_count() -> None:
    metrics = Metrics()
    before = snapshot(metrics)
    metrics.dns_upstream_seconds.labels(("a", "udp", "client", "v1")).observe(0.2)
    await expect(before, "istio_dns_upstream_request_duration_seconds_count", {}, 1)
    await expect(before, "istio_dns_upstream_request_duration_seconds_bucket", {"le": "0.1"}, 0)


async def test_a_coroutine_gets_the_record_that_it_waits_for(
    proxy: Callable[[Callable[[], None]], None],
) -> None:
    metrics, log = Metrics(), Log()
    proxy(lambda: _carry(metrics, log))
    record = await expect_record(log, "connection complete", {"direction": "inbound", "error": ""})
    assert (record.fields["bytes_sent"], record.fields["bytes_recv"]) == (8, 4)


def test_a_thread_gets_a_record_after_those_there_were(
    proxy: Callable[[Callable[[], None]], None],
) -> None:
    log = Log()
    log.write("info", "access", "connection complete", {"bytes_sent": 1})
    since = log.count
    proxy(lambda: log.write("info", "access", "connection complete", {"bytes_sent": 2}))
    record = expect_record_sync(log, "connection complete", since=since)
    assert record.fields == {"bytes_sent": 2}


async def test_a_record_is_awaited_by_whatever_it_must_be_like() -> None:
    log = Log()
    for sent in (1, 2, 3):
        log.write("info", "access", "connection complete", {"bytes_sent": sent})
    record = await expect_record(
        log, "connection complete", where=lambda record: int(record.fields["bytes_sent"]) > 1
    )
    assert record.fields["bytes_sent"] == 2


async def test_without_such_a_record_the_others_are_shown() -> None:
    log = Log()
    log.write("info", "access", "connection complete", {"direction": "outbound", "error": "x"})
    with pytest.raises(AssertionError) as caught:
        await expect_record(log, "connection complete", {"direction": "outbound", "error": ""}, seconds=0.01)
    assert "with {'direction': 'outbound', 'error': ''} has come" in str(caught.value)
    assert 'direction="outbound" error="x"' in str(caught.value)
