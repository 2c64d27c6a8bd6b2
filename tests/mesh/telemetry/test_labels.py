"""The labels of TCP metrics."""

from netwarren.mesh.telemetry.labels import (
    DNS_LABELS,
    ON_DEMAND_DNS_LABELS,
    TCP_LABELS,
    Peer,
    dns_labels,
    on_demand_dns_labels,
    tcp_labels,
    with_flag,
)
from tests.mesh.telemetry.scene import CLIENT, SERVER, SERVICE


def test_two_known_ends_and_a_service_fill_all_labels() -> None:
    values = tcp_labels("source", Peer.of(CLIENT), Peer.of(SERVER), SERVICE, CLIENT.identity, "mutual_tls")
    assert dict(zip(TCP_LABELS, values, strict=True)) == {
        "reporter": "source",
        "source_workload": "client",
        "source_canonical_service": "client",
        "source_canonical_revision": "v1",
        "source_workload_namespace": "default",
        "source_principal": "spiffe://cluster.local/ns/default/sa/client",
        "source_app": "client",
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "destination_service": "server.shop.svc.cluster.local",
        "destination_service_namespace": "shop",
        "destination_service_name": "server",
        "destination_workload": "server",
        "destination_canonical_service": "server",
        "destination_canonical_revision": "v2",
        "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/server",
        "destination_app": "server",
        "destination_version": "v2",
        "destination_cluster": "Kubernetes",
        "request_protocol": "tcp",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        "source_region": "r1",
        "source_zone": "z1",
        "destination_region": "unknown",
        "destination_zone": "unknown",
    }


def test_what_is_not_known_is_unknown_and_has_no_locality() -> None:
    values = dict(zip(TCP_LABELS, tcp_labels("destination", None, None, None, None, "unknown"), strict=True))
    localities = {name: values.pop(name) for name in TCP_LABELS[-4:]}
    assert set(localities.values()) == {""}
    assert values.pop("reporter") == "destination"
    assert values.pop("request_protocol") == "tcp"
    assert values.pop("response_flags") == "-"
    assert set(values.values()) == {"unknown"}


def test_a_source_that_showed_no_certificate_has_no_principal() -> None:
    values = tcp_labels("destination", Peer.of(CLIENT), Peer.of(SERVER), None, None, "unknown")
    named = dict(zip(TCP_LABELS, values, strict=True))
    assert named["source_principal"] == "unknown"
    assert named["destination_principal"] == "spiffe://cluster.local/ns/shop/sa/server"


def test_a_flag_takes_the_place_of_the_dash_alone() -> None:
    before = tcp_labels("source", None, None, None, None, "unknown")
    after = with_flag(before, "DENY")
    changed = [name for name, one, other in zip(TCP_LABELS, before, after, strict=True) if one != other]
    assert changed == ["response_flags"]


def test_dns_metrics_name_the_asker() -> None:
    values = dict(zip(DNS_LABELS, dns_labels("AAAA", "udp", CLIENT), strict=True))
    assert values == {
        "request_query_type": "aaaa",
        "request_protocol": "udp",
        "source_canonical_service": "client",
        "source_canonical_revision": "v1",
    }
    assert dns_labels("A", "tcp", None)[2:] == ("unknown", "unknown")


def test_resolving_on_demand_is_counted_by_hostname() -> None:
    values = dict(zip(ON_DEMAND_DNS_LABELS, on_demand_dns_labels(CLIENT, "db.example.com"), strict=True))
    assert values["source_workload"] == "client"
    assert values["source_principal"] == "spiffe://cluster.local/ns/default/sa/client"
    assert values["hostname"] == "db.example.com"
