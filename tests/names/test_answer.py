"""What is answered: names that are not there, the search list, aliases, added records, faults."""

from ipaddress import ip_address

import pytest

from netwarren.names.answer import Question, decide
from netwarren.names.faults import Fault
from netwarren.names.kubernetes import SOA, Asker
from netwarren.names.records import Record
from tests.names.zones import SVC, ask, service, values, zone


def test_a_name_that_has_other_types_has_an_empty_answer_with_the_soa() -> None:
    answer = ask(zone(families="ipv4"), f"client.{SVC}", "AAAA")
    assert (answer.rcode, answer.records, answer.authority) == ("NOERROR", (), (SOA,))


@pytest.mark.parametrize("name", ["svc.cluster.local", SVC, f"_tcp.web.{SVC}"])
def test_a_name_below_which_there_are_others_exists(name: str) -> None:
    assert ask(zone(service()), name).rcode == "NOERROR"


def test_an_unknown_name_in_the_domain_does_not_exist_and_the_soa_says_how_long() -> None:
    answer = ask(zone(), f"nobody.{SVC}")
    assert (answer.rcode, answer.authority, answer.authoritative) == ("NXDOMAIN", (SOA,), True)


@pytest.mark.parametrize("name", ["www.example.com", "com", "", "notcluster.local", "9.9.9.9.in-addr.arpa"])
def test_a_name_outside_does_not_exist_either_unless_somebody_is_there_to_ask(name: str) -> None:
    decision = decide(Question(name, "A"), Asker("client"), zone())
    assert decision.answer is not None
    assert (decision.answer.rcode, decision.answer.authoritative) == ("NXDOMAIN", False)
    assert decision.outside


def test_names_in_the_domain_are_never_asked_for_outside() -> None:
    assert not decide(Question(f"nobody.{SVC}", "A"), Asker("client"), zone()).outside


def test_any_is_refused() -> None:
    assert ask(zone(), f"client.{SVC}", "ANY").rcode == "REFUSED"


# --- the search list ---


def test_a_short_name_is_looked_for_in_the_askers_namespace() -> None:
    assert values(zone(), "client", search=True) == ["10.0.2.2"]
    assert ask(zone(), "api", search=True).rcode == "NXDOMAIN"
    assert ask(zone(), "api", search=True, asker=Asker("x", "prod")).rcode == "NOERROR"


@pytest.mark.parametrize("name", ["api.prod", "api.prod.svc", "api.prod.svc.cluster.local"])
def test_longer_names_are_found_all_along_the_search_list(name: str) -> None:
    assert values(zone(), name, search=True) == ["10.0.2.3"]


def test_a_node_is_found_by_its_name() -> None:
    assert values(zone(), "node-a", search=True) == ["172.18.0.2"]


def test_an_answer_found_by_search_is_about_the_name_that_was_asked() -> None:
    assert [record.name for record in ask(zone(), "client", search=True).records] == ["client"]


def test_both_families_are_those_of_the_same_name() -> None:
    only_v4 = Record(f"x.{SVC}", "A", "10.0.0.9"), Record("x.cluster.local", "AAAA", "fd00::9")
    answer = ask(zone(added=only_v4), "x", "AAAA", search=True)
    assert (answer.rcode, answer.records) == ("NOERROR", ())


def test_without_search_a_short_name_is_not_found() -> None:
    assert ask(zone(), "client").rcode == "NXDOMAIN"


def test_a_name_with_five_dots_is_tried_as_it_is_first() -> None:
    both = Record("a.b.c.d.e.f", "A", "10.0.0.1"), Record(f"a.b.c.d.e.f.{SVC}", "A", "10.0.0.2")
    assert values(zone(added=both), "a.b.c.d.e.f", search=True) == ["10.0.0.1"]
    shorter = Record("b.c.d.e.f", "A", "10.0.0.1"), Record(f"b.c.d.e.f.{SVC}", "A", "10.0.0.2")
    assert values(zone(added=shorter), "b.c.d.e.f", search=True) == ["10.0.0.2"]


# --- aliases and added records ---


def test_an_alias_is_followed_and_shown() -> None:
    alias = Record("db.example.com", "CNAME", f"client.{SVC}.")
    answer = ask(zone(added=(alias,)), "db.example.com")
    assert [(r.name, r.type) for r in answer.records] == [("db.example.com", "CNAME"), (f"client.{SVC}", "A")]
    assert ask(zone(added=(alias,)), "db.example.com", "CNAME").records == (alias,)


def test_an_alias_of_a_name_that_does_not_exist_says_so() -> None:
    answer = ask(zone(added=(Record("db", "CNAME", f"nobody.{SVC}."),)), "db")
    assert (answer.rcode, len(answer.records)) == ("NXDOMAIN", 1)


def test_aliases_in_a_circle_come_to_an_end() -> None:
    circle = Record("a.example", "CNAME", "b.example."), Record("b.example", "CNAME", "a.example.")
    assert ask(zone(added=circle), "a.example").records == circle


def test_an_added_record_outside_exists_and_is_not_asked_for_elsewhere() -> None:
    added = (Record("www.example.com", "A", "10.0.0.1"),)
    assert values(zone(added=added), "www.example.com") == ["10.0.0.1"]
    assert not decide(Question("www.example.com", "AAAA"), Asker("x"), zone(added=added)).outside


def test_an_asterisk_stands_for_names_that_are_not_there() -> None:
    added = Record("*.example.com", "A", "10.0.0.1"), Record("www.example.com", "A", "10.0.0.2")
    assert values(zone(added=added), "a.b.example.com") == ["10.0.0.1"]
    assert values(zone(added=added), "www.example.com") == ["10.0.0.2"]
    assert ask(zone(added=added), "below.www.example.com").rcode == "NXDOMAIN"
    assert ask(zone(added=added), "a.example.com").records[0].name == "a.example.com"


# --- faults ---


def test_a_slow_answer_is_right_and_late_and_delays_add_up() -> None:
    faults = (Fault(seconds=0.5), Fault(seconds=1))
    decision = decide(Question(f"client.{SVC}", "A"), Asker("x"), zone(), faults)
    assert decision.delay == 1.5
    assert decision.answer == ask(zone(), f"client.{SVC}")


def test_a_silent_server_answers_nothing() -> None:
    assert decide(Question("x", "A"), Asker("x"), zone(), [Fault(silent=True)]).answer is None


def test_a_failing_server_answers_with_that_code_and_nothing_else() -> None:
    answer = ask(zone(), f"client.{SVC}", faults=(Fault(rcode="SERVFAIL"),))
    assert (answer.rcode, answer.records, answer.authority) == ("SERVFAIL", (), ())
    assert ask(zone(), f"client.{SVC}", faults=(Fault(rcode="NXDOMAIN"),)).authority == (SOA,)


def test_wrong_addresses_are_given_by_family_and_for_addresses_alone() -> None:
    wrong = (Fault(addresses=(ip_address("10.9.9.9"), ip_address("fd00::9"))),)
    assert [r.value for r in ask(zone(), "any.name", faults=wrong).records] == ["10.9.9.9"]
    assert [r.value for r in ask(zone(), "any.name", "AAAA", faults=wrong).records] == ["fd00::9"]
    assert [r.value for r in ask(zone(), "dns-version.cluster.local", "TXT", faults=wrong).records] == [
        '"1.1.0"'
    ]


def test_the_last_fault_decides() -> None:
    faults = (Fault(silent=True), Fault(rcode="REFUSED"))
    assert ask(zone(), "x", faults=faults).rcode == "REFUSED"


@pytest.mark.parametrize(
    ("pattern", "asked"),
    [
        ("client", "client"),
        ("client", f"client.{SVC}"),
        ("client", "client.svc.cluster.local"),
        ("CLIENT.default.svc.cluster.local.", "client"),
        ("client.default", f"client.{SVC}"),
        ("cli*", f"client.{SVC}"),
        ("*.example.com", "www.example.com"),
    ],
)
def test_a_fault_concerns_a_name_however_it_is_written(pattern: str, asked: str) -> None:
    faults = [Fault(name=pattern, silent=True)]
    assert decide(Question(asked, "A", True), Asker("x"), zone(), faults).answer is None


def test_a_fault_of_another_name_or_asker_does_not_matter() -> None:
    faults = (Fault(name="server", silent=True), Fault(asker="other", silent=True))
    assert ask(zone(), "client", search=True, faults=faults).records
    assert decide(Question("client", "A"), Asker("other"), zone(), faults).answer is None
