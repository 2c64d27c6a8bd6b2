"""One connection: counted and logged once, whatever happens."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from netwarren.mesh.failure import ProxyError
from netwarren.mesh.model import NamespacedName
from netwarren.mesh.state.rbac import Verdict
from netwarren.mesh.state.refusals import PolicyRejection
from netwarren.mesh.telemetry.connection import Connection, Opened, early_deny
from netwarren.mesh.telemetry.labels import Peer
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from tests.mesh.telemetry.scene import (
    CLIENT_ADDRESS,
    INBOUND,
    OUTBOUND,
    PASSED_THROUGH,
    SERVER_ADDRESS,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def log() -> Log:
    return Log("debug", now=lambda: 0.0)


def _clock(*readings: float) -> Iterator[float]:
    return iter(readings)


def _opened(metrics: Metrics, log: Log, opened: Opened = OUTBOUND, seconds: float = 0.0139) -> Connection:
    readings = _clock(100.0, 100.0 + seconds)
    return Connection(metrics, log, opened, clock=lambda: next(readings))


def _count(metrics: Metrics, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in metrics.registry.samples()
        if sample.name == f"istio_tcp_{name}_total" and labels.items() <= sample.labels.items()
    )


def test_a_connection_that_ends_well_is_one_line_of_plain_text(metrics: Metrics, log: Log) -> None:
    connection = _opened(metrics, log)
    connection.count_received(4)
    connection.count_sent(8)
    connection.record()
    ends = (
        'src.addr=10.0.2.3:41000 src.workload="client-1" src.namespace="default" '
        'src.identity="spiffe://cluster.local/ns/default/sa/client" src.cluster="Kubernetes" '
        "dst.addr=10.0.3.4:15008 dst.hbone_addr=10.0.3.4:8080 "
        'dst.service="server.shop.svc.cluster.local" dst.workload="server-1" dst.namespace="shop" '
        'dst.identity="spiffe://cluster.local/ns/shop/sa/server" dst.cluster="Kubernetes" '
        'direction="outbound"'
    )
    time = "1970-01-01T00:00:00.000000Z"
    assert log.lines() == [
        f"{time}\tdebug\taccess\tconnection opened\t{ends}",
        f'{time}\tinfo\taccess\tconnection complete\t{ends} bytes_sent=4 bytes_recv=8 duration="13ms"',
    ]


def test_inbound_the_log_counts_bytes_as_the_server_does(metrics: Metrics, log: Log) -> None:
    connection = _opened(metrics, log, INBOUND)
    connection.count_received(4)
    connection.count_sent(8)
    connection.record()
    fields = log.records()[-1].fields
    assert (fields["direction"], fields["bytes_sent"], fields["bytes_recv"]) == ("inbound", 8, 4)


@pytest.mark.parametrize("opened", [OUTBOUND, INBOUND])
def test_metrics_count_bytes_the_same_way_for_both_reporters(
    metrics: Metrics, log: Log, opened: Opened
) -> None:
    connection = _opened(metrics, log, opened)
    connection.count_received(4)
    connection.count_sent(8)
    assert _count(metrics, "received_bytes", reporter=opened.reporter) == 4
    assert _count(metrics, "sent_bytes", reporter=opened.reporter) == 8
    connection.record()


def test_a_connection_counts_as_opened_and_then_as_closed(metrics: Metrics, log: Log) -> None:
    connection = _opened(metrics, log)
    assert _count(metrics, "connections_opened", response_flags="-") == 1
    assert _count(metrics, "connections_closed") == 0
    connection.record()
    assert _count(metrics, "connections_closed", response_flags="-") == 1
    assert _count(metrics, "connections_failed") == 0


def test_an_error_is_logged_as_one_and_flags_the_end(metrics: Metrics, log: Log) -> None:
    _opened(metrics, log, INBOUND).record(PolicyRejection(Verdict(False, NamespacedName("shop", "no"))))
    record = log.records()[-1]
    assert (record.level, record.message) == ("error", "connection complete")
    assert list(record.fields)[-1] == "error"
    assert record.fields["error"] == (
        "connection closed due to policy rejection: explicitly denied by: shop/no"
    )
    assert _count(metrics, "connections_opened", response_flags="-") == 1
    assert _count(metrics, "connections_closed", response_flags="DENY") == 1
    assert _count(metrics, "connections_failed", response_flags="DENY") == 1


def test_without_mutual_tls_no_identity_is_logged(metrics: Metrics, log: Log) -> None:
    _opened(metrics, log, replace(INBOUND, security="unknown")).record()
    assert not {"src.identity", "dst.identity"} & log.records()[-1].fields.keys()


def test_what_is_not_known_is_not_in_the_log(metrics: Metrics, log: Log) -> None:
    _opened(metrics, log, PASSED_THROUGH).record()
    assert list(log.records()[-1].fields) == [
        "src.addr",
        "src.workload",
        "src.namespace",
        "src.cluster",
        "dst.addr",
        "direction",
        "bytes_sent",
        "bytes_recv",
        "duration",
    ]


def test_only_the_first_end_counts(metrics: Metrics, log: Log) -> None:
    connection = _opened(metrics, log)
    connection.record()
    connection.record(ProxyError("connection failed: too late"))
    del connection
    gc.collect()
    assert _count(metrics, "connections_closed") == 1
    assert [record.level for record in log.records()] == ["debug", "info"]


def test_a_connection_that_is_dropped_has_been_drained(metrics: Metrics, log: Log) -> None:
    connection = _opened(metrics, log)
    del connection
    gc.collect()
    assert log.records()[-1].fields["error"] == "connection closed due to connection drain"
    assert _count(metrics, "connections_closed", response_flags="CONNECT") == 1


def test_one_that_the_garbage_collector_finds_amid_counting_is_counted(metrics: Metrics, log: Log) -> None:
    cycle: list[object] = [_opened(metrics, log)]
    cycle.append(cycle)
    del cycle
    with metrics.changes.lock, log.changes.lock:
        gc.collect()
    assert _count(metrics, "connections_closed") == 1


def test_leaving_its_block_ends_it_well(metrics: Metrics, log: Log) -> None:
    with _opened(metrics, log):
        pass
    assert log.records()[-1].level == "info"


def test_an_error_that_leaves_its_block_is_its_end(metrics: Metrics, log: Log) -> None:
    with pytest.raises(ProxyError), _opened(metrics, log):
        raise ProxyError("connection failed: refused")
    assert log.records()[-1].fields["error"] == "connection failed: refused"


async def test_a_task_that_is_cancelled_has_been_drained(metrics: Metrics, log: Log) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        with _opened(metrics, log):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log.records()[-1].fields["error"] == "connection closed due to connection drain"
    assert _count(metrics, "connections_closed") == 1


def test_a_refusal_before_it_is_opened_is_logged_and_not_counted(metrics: Metrics, log: Log) -> None:
    early_deny(log, "source", CLIENT_ADDRESS, SERVER_ADDRESS, ValueError("no healthy upstream: x"))
    assert log.lines() == [
        "1970-01-01T00:00:00.000000Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.2.3:41000 "
        'dst.addr=10.0.3.4:15008 direction="outbound" error="no healthy upstream: x"'
    ]
    assert _count(metrics, "connections_opened") == 0


def test_without_a_debug_log_only_the_end_is_told(metrics: Metrics) -> None:
    log = Log("info")
    _opened(metrics, log).record()
    assert [record.message for record in log.records()] == ["connection complete"]


@pytest.mark.parametrize("found", [True, False])
def test_one_whose_end_is_asked_for_counts_for_whom_was_found_or_else_for_the_next_hop(
    metrics: Metrics, log: Log, found: bool
) -> None:
    connection = Connection(metrics, log, OUTBOUND, asking=True)
    assert _count(metrics, "connections_opened") == 0
    if found:
        connection.found(Peer(workload="far"))
    connection.record()
    assert OUTBOUND.destination is not None
    name = "far" if found else OUTBOUND.destination.workload
    for event in ("opened", "closed"):
        assert _count(metrics, f"connections_{event}") == 1
        assert _count(metrics, f"connections_{event}", destination_workload=name) == 1
