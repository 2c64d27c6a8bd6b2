"""The records of a cluster, against Kubernetes' DNS-Based Service Discovery 1.1.0, section by section."""

import pytest

from netwarren.names.kubernetes import SOA, Asker, askers
from netwarren.topology.services import ServicePort, ServiceSpec
from tests.names.zones import SVC, ask, service, snapshot, values, zone


def test_the_version_of_the_schema_is_told() -> None:
    assert values(zone(), "dns-version.cluster.local", "TXT") == ['"1.1.0"']


# --- 2.3: services with a cluster IP ---


def test_a_service_has_its_cluster_ips() -> None:
    with_service = zone(service())
    assert values(with_service, f"web.{SVC}") == ["10.96.0.1"]
    assert values(with_service, f"web.{SVC}", "AAAA") == ["fd00:10:96::1"]


def test_a_service_has_its_cluster_ips_whether_anybody_is_ready_or_not() -> None:
    assert values(zone(service(), unready=("web-0", "web-1")), f"web.{SVC}") == ["10.96.0.1"]


def test_each_named_port_of_a_service_has_a_record_with_the_services_own_port() -> None:
    answer = ask(zone(service()), f"_http._tcp.web.{SVC}", "SRV")
    assert [record.value for record in answer.records] == [f"0 100 80 web.{SVC}."]
    assert [(r.name, r.type, r.value) for r in answer.additional] == [
        (f"web.{SVC}", "A", "10.96.0.1"),
        (f"web.{SVC}", "AAAA", "fd00:10:96::1"),
    ]
    assert values(zone(service()), f"_dns._udp.web.{SVC}", "SRV") == [f"0 100 53 web.{SVC}."]


def test_a_port_without_a_name_or_of_another_protocol_has_no_record() -> None:
    assert ask(zone(service()), f"_http._udp.web.{SVC}", "SRV").rcode == "NXDOMAIN"


def test_a_cluster_ip_leads_back_to_the_service() -> None:
    assert values(zone(service()), "1.0.96.10.in-addr.arpa", "PTR") == [f"web.{SVC}."]
    v6 = "1." + "0." * 19 + "6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"
    assert values(zone(service()), v6, "PTR") == [f"web.{SVC}."]


# --- 2.4: headless services ---


def test_a_headless_service_has_the_addresses_of_those_that_are_ready() -> None:
    headless = service(headless=True)
    assert values(zone(headless), f"web.{SVC}") == ["10.0.1.2", "10.0.1.3"]
    assert values(zone(headless, unready=("web-0",)), f"web.{SVC}") == ["10.0.1.3"]
    assert values(zone(headless), f"web.{SVC}", "AAAA") == ["fd00:10:0:1::2", "fd00:10:0:1::3"]


def test_a_headless_service_with_nobody_ready_does_not_exist() -> None:
    assert ask(zone(service(headless=True), unready=("web-0", "web-1")), f"web.{SVC}").rcode == "NXDOMAIN"


def test_each_pod_behind_a_headless_service_has_a_name_in_it() -> None:
    headless = zone(service(headless=True))
    assert values(headless, f"web-1.web.{SVC}") == ["10.0.1.3"]
    assert ask(headless, f"client.web.{SVC}").rcode == "NXDOMAIN"


def test_ports_of_a_headless_service_are_the_pods_own_and_lead_to_their_names() -> None:
    answer = ask(zone(service(headless=True)), f"_http._tcp.web.{SVC}", "SRV")
    assert [record.value for record in answer.records] == [
        f"0 100 8080 web-0.web.{SVC}.",
        f"0 100 8080 web-1.web.{SVC}.",
    ]
    assert {r.value for r in answer.additional} == {
        "10.0.1.2",
        "fd00:10:0:1::2",
        "10.0.1.3",
        "fd00:10:0:1::3",
    }


def test_a_pod_behind_a_headless_service_leads_back_to_its_name_in_it() -> None:
    headless = zone(service(headless=True))
    assert values(headless, "2.1.0.10.in-addr.arpa", "PTR") == [f"web-0.web.{SVC}."]


# --- pods and nodes ---


def test_a_pod_has_its_address_for_a_name() -> None:
    assert values(zone(), "10-0-1-2.default.pod.cluster.local") == ["10.0.1.2"]
    assert values(zone(), "fd00-10-0-1--2.default.pod.cluster.local", "AAAA") == ["fd00:10:0:1::2"]
    long = "fd00-0010-0000-0001-0000-0000-0000-0002.default.pod.cluster.local"
    assert values(zone(), long, "AAAA") == ["fd00:10:0:1::2"]


@pytest.mark.parametrize("name", ["10-0-1-2.prod", "10-0-1-9.default", "10-0-1.default"])
def test_an_address_that_no_pod_of_that_namespace_has_is_no_name(name: str) -> None:
    assert ask(zone(), f"{name}.pod.cluster.local").rcode == "NXDOMAIN"


def test_a_pod_has_its_own_name_in_its_namespace() -> None:
    assert values(zone(), "api.prod.svc.cluster.local") == ["10.0.2.3"]
    assert ask(zone(), f"api.{SVC}").rcode == "NXDOMAIN"
    assert values(zone(), "3.2.0.10.in-addr.arpa", "PTR") == ["api.prod.svc.cluster.local."]


@pytest.mark.parametrize("headless", [False, True])
def test_a_service_goes_before_a_pod_of_its_name(headless: bool) -> None:
    same = zone(service("client", headless=headless))
    assert "10.0.2.2" not in values(same, f"client.{SVC}")
    assert values(same, "2.2.0.10.in-addr.arpa", "PTR") == ["10-0-2-2.default.pod.cluster.local."]


def test_nodes_and_the_root_have_names() -> None:
    assert values(zone(), "node-b.cluster.local") == ["172.18.0.3"]
    assert values(zone(), "root.cluster.local") == values(zone(), "host.cluster.local") == ["172.18.0.1"]
    assert values(zone(), "3.0.18.172.in-addr.arpa", "PTR") == ["node-b.cluster.local."]
    assert values(zone(), "1.0.18.172.in-addr.arpa", "PTR") == ["root.cluster.local."]


def test_the_domain_says_who_answers_for_it() -> None:
    assert ask(zone(), "cluster.local", "SOA").records == (SOA,)
    answer = ask(zone(), "cluster.local", "NS")
    assert [record.value for record in answer.records] == ["ns.dns.cluster.local."]
    assert [record.value for record in answer.additional] == ["169.254.20.10", "fd00:169:254:20::10"]


def test_a_cluster_of_one_family_has_addresses_of_that_family_alone() -> None:
    assert values(zone(families="ipv6"), f"client.{SVC}") == []
    assert values(zone(families="ipv6"), f"client.{SVC}", "AAAA") == ["fd00:10:0:2::2"]


def test_everybody_is_known_by_his_addresses() -> None:
    known = {str(address): asker for address, asker in askers(snapshot()).items()}
    assert known["10.0.2.3"] == known["fd00:10:0:2::3"] == Asker("api", "prod")
    assert known["172.18.0.2"] == Asker("node-a")
    assert known["172.18.0.1"] == Asker("root")


def test_a_service_in_another_namespace_is_another_service() -> None:
    other = ServiceSpec("web", "prod", (ServicePort(80, 80),), service().cluster_ips[:1], None, ())
    assert values(zone(other), "web.prod.svc.cluster.local") == ["10.96.0.1"]
    assert ask(zone(other), f"web.{SVC}").rcode == "NXDOMAIN"
