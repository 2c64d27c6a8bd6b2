"""The texts that ride on a CONNECT."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.errors import MeshError
from netwarren.mesh.model import Locality, SocketAddress
from netwarren.mesh.state.headers import (
    Baggage,
    Forwarded,
    HostPort,
    TraceParent,
    format_baggage,
    parse_authority,
    parse_baggage,
    parse_forwarded,
    values_of,
)
from tests.mesh.state.builders import pod, to
from tests.mesh.state.drawn import examples

names = st.text(st.sampled_from("abcXYZ019-_./"), max_size=10)


# --- authority ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["10.0.0.2:80", "[fd00::2]:80", "[::1]:65535", "0.0.0.0:1"])
def test_an_address_with_a_port_is_an_authority(text: str) -> None:
    assert parse_authority(text) == to(text)


def test_a_hostname_with_a_port_is_an_authority() -> None:
    assert parse_authority("web.default.svc.cluster.local:80") == HostPort(
        "web.default.svc.cluster.local", 80
    )


def test_an_ipv4_address_in_ipv6_form_is_an_ipv4_address() -> None:
    assert parse_authority("[::ffff:10.0.0.2]:80") == to("10.0.0.2:80")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "10.0.0.2",
        "10.0.0.2:",
        "10.0.0.2:0",
        "10.0.0.2:65536",
        "10.0.0.2:+80",
        "10.0.0.2:8_0",
        "10.0.0.2: 80",
        "10.0.0.2:٨٠",
        "fd00::2:80",
        "[10.0.0.2]:80",
        "[fd00::2%eth0]:80",
        "[web]:80",
        "[]:80",
        ":80",
        "user@web:80",
        "we b:80",
        "web\r\n:80",
        "web/path:80",
        "http://web:80",
        f"{'a' * 254}:80",
        "web.default",
    ],
)
def test_anything_else_is_no_authority(text: str) -> None:
    with pytest.raises(MeshError, match="invalid CONNECT address"):
        parse_authority(text)


@examples()
@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_authority_is_read_as_it_is_written(address: object, port: int) -> None:
    written = SocketAddress(address, port)  # type: ignore[arg-type]
    read = parse_authority(str(written))
    assert read == written or getattr(address, "ipv4_mapped", None) is not None


@examples()
@given(st.text(max_size=30))
def test_no_authority_is_worse_than_refused(text: str) -> None:
    try:
        read = parse_authority(text)
    except MeshError:
        return
    assert parse_authority(str(read)) == read


# --- baggage --------------------------------------------------------------------------------------


def test_baggage_has_an_order_and_leaves_out_what_is_not_known() -> None:
    whole = Baggage("K", "ns", "w", "s", "v", "r", "z")
    assert format_baggage(whole, "deployment") == (
        "k8s.cluster.name=K,k8s.namespace.name=ns,k8s.deployment.name=w,service.name=s,service.version=v,"
        "cloud.region=r,cloud.availability_zone=z"
    )
    assert format_baggage(Baggage(namespace="ns", zone="z"), "pod") == (
        "k8s.namespace.name=ns,cloud.availability_zone=z"
    )
    assert format_baggage(Baggage(), "pod") == ""


@examples()
@given(st.builds(Baggage, *[names] * 7), st.sampled_from(["deployment", "cronjob", "pod", "job"]))
def test_baggage_is_read_as_it_is_written(baggage: Baggage, kind: str) -> None:
    assert parse_baggage([format_baggage(baggage, kind)]) == baggage


def test_baggage_may_come_in_several_lines_and_with_what_nobody_knows() -> None:
    assert parse_baggage(
        ["k8s.cluster.name=K, service.name=s", "x=y,service.version=v=2,zone,,="]
    ) == Baggage(cluster="K", service="s", version="v")
    assert parse_baggage(["k8s.cluster.name="]) == parse_baggage([]) == Baggage()


@examples()
@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_baggage_fails(values: list[str]) -> None:
    parse_baggage(values)


def test_a_workloads_baggage_says_what_it_is_and_where() -> None:
    workload = pod(
        "web-abc",
        workload_name="web",
        canonical_name="web",
        canonical_revision="v1",
        locality=Locality("r", "z", "s"),
    )
    assert Baggage.of(workload) == Baggage("Kubernetes", "default", "web", "web", "v1", "r", "z")


# --- forwarded ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "text"),
    [
        (Forwarded(to("10.0.0.1:4711")), 'for="10.0.0.1:4711"'),
        (Forwarded(to("[fd00::1]:4711"), "web.ns"), 'for="[fd00::1]:4711";host=web.ns'),
        (Forwarded(None, "web.ns"), "host=web.ns"),
        (Forwarded(), ""),
    ],
)
def test_forwarded_is_read_as_it_is_written(forwarded: Forwarded, text: str) -> None:
    assert str(forwarded) == text
    assert parse_forwarded(text) == forwarded


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ('for="10.0.0.1:1";host="web.ns"', "web.ns"),
        ("Host=web.ns;proto=https", "web.ns"),
        ("for=unknown; host=web.ns", "web.ns"),
        ('for="a;host=trap";host=web.ns', "web.ns"),
        (r'for="a\";host=trap";host=web.ns', "web.ns"),
        ("host=web.ns;host=other", "web.ns"),
        ("host=", None),
        ("ghost=web.ns", None),
        (";;;", None),
    ],
)
def test_a_host_is_found_as_rfc_7239_writes_it(text: str, host: str | None) -> None:
    assert parse_forwarded(text).host == host


@examples()
@given(st.text(st.sampled_from('for=host;",\\ :[].1a'), max_size=40))
def test_no_forwarded_fails(text: str) -> None:
    parse_forwarded(text)


# --- traceparent ----------------------------------------------------------------------------------


def test_a_new_trace_is_drawn_from_the_callers_random_numbers() -> None:
    drawn = TraceParent.draw(Random(1))
    assert drawn == TraceParent.draw(Random(1)) != TraceParent.draw(Random(2))
    assert len(str(drawn)) == 55
    assert str(drawn).startswith("00-")
    assert str(drawn).endswith("-00")


@examples()
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(0, 255))
def test_a_trace_is_read_as_it_is_written(trace: int, parent: int, version: int, flags: int) -> None:
    made = TraceParent(trace, parent, version, flags)
    assert TraceParent.parse(str(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-" * 55,
        "0" * 55,
        f"00-{'1' * 32}-{'2' * 16}-0",
        f"00-{'1' * 32}-{'2' * 16}-000",
        f"00-{'1' * 32}-{'2' * 16}-0g",
        f"00-{'1' * 31}-{'2' * 17}-00",
        f"00-{'1' * 32}-{'2' * 16}-0\n",
        f"+0-{'1' * 32}-{'2' * 16}-00",
    ],
)
def test_anything_else_is_no_trace(text: str) -> None:
    with pytest.raises(MeshError, match="no traceparent"):
        TraceParent.parse(text)


def test_header_lines_are_found_whatever_their_case() -> None:
    assert values_of([("Baggage", "a"), ("x", "y"), ("baggage", "b")], "baggage") == ["a", "b"]
