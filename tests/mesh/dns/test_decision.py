"""What a client in the mesh is answered, by data alone."""

from dataclasses import replace
from random import Random

import pytest

from netwarren.mesh.dns.decision import NOTHING, TTL, Naming, decide
from netwarren.mesh.model import Workload
from netwarren.names.answer import Answer, Question
from netwarren.names.records import plain
from tests.mesh.dns.directory import CASES, CLIENT, MESH, PREFERRED, Case, Directory, service

NAMING = Naming(preferred_namespace=PREFERRED)


def asked(
    name: str, type: str = "A", *, client: Workload = CLIENT, naming: Naming = NAMING, seed: int = 0
) -> Answer | None:
    return decide(Question(plain(name), type), client, MESH, naming, Random(seed))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_names_are_answered(case: Case) -> None:
    answer = asked(case.name, case.type)
    if case.records is None:
        assert answer is None
        return
    assert answer is not None
    assert (answer.rcode, answer.authoritative) == ("NOERROR", True)
    records = [(record.name, record.type, plain(record.value)) for record in answer.records]
    expected = [tuple(plain(part) for part in record.split()) for record in case.records]
    assert sorted(records) == sorted((name, type.upper(), value) for name, type, value in expected)
    assert {record.ttl for record in answer.records} <= {TTL}


def test_the_cname_comes_first() -> None:
    answer = asked("headless.ns1.ns1.svc.cluster.local")
    assert answer is not None
    assert [record.type for record in answer.records] == ["CNAME", "A", "A"]


def test_addresses_come_in_any_order() -> None:
    orders = set()
    for seed in range(50):
        answer = asked("details.ns2.svc.cluster.remote", seed=seed)
        assert answer is not None
        orders.add(tuple(record.value for record in answer.records))
    assert len(orders) > 10


def test_without_ipv6_there_are_no_ipv6_records() -> None:
    naming = replace(NAMING, ipv6=False)
    assert asked("dual.localhost", "AAAA", naming=naming) == NOTHING
    assert asked("dual.localhost", "A", naming=naming) == asked("dual.localhost", "A")
    assert asked("unknown.example", "AAAA", naming=naming) is None


def test_without_a_preferred_namespace_the_first_is_taken() -> None:
    answer = asked("preferred.io", naming=Naming())
    assert answer is not None
    assert [record.value for record in answer.records] == ["10.10.10.210"]


def test_a_client_elsewhere_sees_its_own_services() -> None:
    client = replace(CLIENT, namespace="ns2", network="nw2")
    assert asked("hidden.io", client=client) == NOTHING  # there, and its address is in nw1
    assert asked("nw2-only", client=client) is None
    answer = asked("nw2-only.ns1", client=client)
    assert answer is not None
    assert [record.value for record in answer.records] == ["20.20.20.20"]


def test_a_known_search_list_replaces_that_of_the_namespace() -> None:
    naming = replace(NAMING, search=("corp.example",))
    assert asked("www.google.com.ns1.svc.cluster.local", naming=naming) is None
    answer = asked("productpage.corp.example", naming=naming)
    assert answer is not None
    assert [(record.name, record.type) for record in answer.records] == [
        ("productpage.corp.example", "CNAME"),
        ("productpage", "A"),
    ]


def test_a_service_in_a_cluster_of_another_domain_is_found() -> None:
    mesh = Directory((service("web.ns1.svc.corp", "ns1", "10.0.0.1"),))
    answer = decide(Question("web", "A"), CLIENT, mesh, Naming(domain="corp"), Random(0))
    assert answer is not None
    assert [record.value for record in answer.records] == ["10.0.0.1"]
