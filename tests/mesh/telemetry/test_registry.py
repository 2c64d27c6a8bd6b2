"""Metrics and their text."""

import threading

import pytest

from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.registry import Histogram, Registry
from tests.mesh.telemetry.scene import parsed


def test_a_counter_is_written_as_openmetrics_has_it() -> None:
    registry = Registry()
    registry.counter("istio_things", "Things", ("kind", "colour")).labels(("a", "red")).add(2)
    assert registry.encode() == (
        "# HELP istio_things Things.\n"
        "# TYPE istio_things counter\n"
        'istio_things_total{kind="a",colour="red"} 2\n'
        "# EOF\n"
    )


def test_a_family_without_a_series_is_not_in_the_text() -> None:
    registry = Registry()
    registry.counter("never", "Never counted")
    assert registry.encode() == "# EOF\n"


def test_a_gauge_goes_up_and_down_and_has_no_ending() -> None:
    registry = Registry()
    gauge = registry.gauge("open_things", "Open things").labels()
    gauge.add()
    gauge.add(2)
    gauge.add(-1)
    assert "\nopen_things 2\n" in registry.encode()
    gauge.set(0)
    assert "\nopen_things 0\n" in registry.encode()


def test_a_histogram_has_cumulative_buckets_with_their_bounds_included() -> None:
    registry = Registry()
    family = registry.histogram("wait_seconds", "Waits", (0.5, 1.0), ("kind",), unit="seconds")
    for seconds in (0.25, 0.5, 0.75, 2.0):
        family.labels(("a",)).observe(seconds)
    assert registry.encode() == (
        "# HELP wait_seconds Waits.\n"
        "# TYPE wait_seconds histogram\n"
        "# UNIT wait_seconds seconds\n"
        'wait_seconds_bucket{kind="a",le="0.5"} 2\n'
        'wait_seconds_bucket{kind="a",le="1.0"} 3\n'
        'wait_seconds_bucket{kind="a",le="+Inf"} 4\n'
        'wait_seconds_sum{kind="a"} 3.5\n'
        'wait_seconds_count{kind="a"} 4\n'
        "# EOF\n"
    )


def test_label_values_that_would_break_the_text_are_read_back_as_they_were() -> None:
    registry = Registry()
    nasty = 'a"b\\c\nd}'
    registry.counter("x", "X", ("label",)).labels((nasty,)).add()
    assert parsed(registry.encode())["x"].samples[0].labels == {"label": nasty}


def test_an_empty_label_is_an_absent_one() -> None:
    registry = Registry()
    registry.counter("x", "X", ("a", "b")).labels(("1", "")).add()
    assert '\nx_total{a="1"} 1\n' in registry.encode()


def test_too_few_values_for_the_labels_are_refused() -> None:
    with pytest.raises(ValueError):
        Registry().counter("x", "X", ("a", "b")).labels(("1",))


def test_what_is_measured_is_measured_when_it_is_read() -> None:
    registry = Registry()
    numbers = iter([3, 5])
    registry.measured("depth", "Depth", lambda: next(numbers))
    assert "\ndepth 3\n" in registry.encode()
    assert "\ndepth 5\n" in registry.encode()


def test_nothing_is_lost_when_threads_count_and_read_at_once() -> None:
    registry = Registry()
    family = registry.counter("x", "X", ("series",))
    stop = threading.Event()

    def count(worker: int) -> None:
        for turn in range(2000):
            family.labels((f"{worker}-{turn % 50}",)).add()
            family.labels(("shared",)).add()

    def read() -> None:
        while not stop.is_set():
            assert registry.encode().endswith("# EOF\n")
            registry.samples()

    reader = threading.Thread(target=read)
    counters = [threading.Thread(target=count, args=(worker,)) for worker in range(4)]
    for thread in (reader, *counters):
        thread.start()
    for thread in counters:
        thread.join()
    stop.set()
    reader.join()
    values = {sample.labels["series"]: sample.value for sample in registry.samples()}
    assert values.pop("shared") == 8000
    assert sum(values.values()) == 8000


def _touched() -> Metrics:
    metrics = Metrics()
    for family in metrics.registry._families:
        series = family.labels(tuple(f"v{number}" for number in range(len(family.label_names))))
        series.observe(1) if isinstance(series, Histogram) else series.add(1)
    return metrics


def test_all_metrics_together_are_openmetrics_for_the_real_parser() -> None:
    families = parsed(_touched().encode())
    assert families["istio_tcp_connections_opened"].type == "counter"
    assert families["istio_tcp_sockets_open"].type == "gauge"
    assert families["istio_dns_upstream_request_duration_seconds"].type == "histogram"


def test_the_names_of_samples_are_those_of_ztunnel() -> None:
    names = {line.partition("{")[0].partition(" ")[0] for line in _touched().encode().splitlines()}
    assert {
        "istio_build",
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_received_bytes_total",
        "istio_tcp_sent_bytes_total",
        "process_open_fds",
        "process_max_fds",
        "istio_tcp_connections_failed_total",
        "istio_tcp_sockets_open",
        "istio_on_demand_dns_total",
        "istio_crl_policy_rejections_total",
        "istio_crl_untracked_connections_total",
        "istio_dns_requests_total",
        "istio_dns_upstream_requests_total",
        "istio_dns_upstream_failures_total",
        "istio_dns_upstream_request_duration_seconds_bucket",
        "istio_dns_upstream_request_duration_seconds_sum",
        "istio_dns_upstream_request_duration_seconds_count",
        "istio_xds_connection_terminations_total",
        "istio_xds_message_total",
        "istio_xds_message_bytes_total",
        "workload_manager_active_proxy_count",
        "workload_manager_pending_proxy_count",
        "workload_manager_proxies_started_total",
        "workload_manager_proxies_stopped_total",
        "#",
    } == names


def test_what_is_not_stable_says_so_and_no_header_is_named_total() -> None:
    stable = {
        "istio_build",
        "istio_tcp_connections_opened",
        "istio_tcp_connections_closed",
        "istio_tcp_received_bytes",
        "istio_tcp_sent_bytes",
        "process_open_fds",
        "process_max_fds",
    }
    for line in _touched().encode().splitlines():
        if line.startswith("# HELP"):
            name = line.split()[2]
            assert ("unstable" in line) == (name not in stable)
        if line.startswith("#"):
            assert "_total" not in line


def test_a_proxy_that_has_done_nothing_tells_of_its_build_and_its_descriptors() -> None:
    lines = Metrics().encode().splitlines()
    assert [line.split()[2] for line in lines if line.startswith("# TYPE")] == [
        "istio_build",
        "process_open_fds",
        "process_max_fds",
    ]
    assert any(
        line.startswith('istio_build{component="ztunnel",tag="') and line.endswith(" 1") for line in lines
    )
