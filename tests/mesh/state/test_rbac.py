"""Who may connect."""

import time
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.mesh.model import (
    Identity,
    Match,
    NamespacedName,
    Policy,
    ServiceAccountMatch,
    SocketAddress,
    StringMatch,
)
from netwarren.mesh.state.rbac import ConnectionFacts, DryRun, PolicySet, Verdict, authorize, matches
from tests.mesh.state.builders import identity
from tests.mesh.state.drawn import examples, matches_of, policies_of

CLIENT = identity("client", "ns")


def facts(
    *, source: str = "10.0.0.1", who: Identity | None = CLIENT, target: str = "10.0.0.2", port: int = 80
) -> ConnectionFacts:
    return ConnectionFacts(ip_address(source), who, SocketAddress(ip_address(target), port))


def policy(*rules: Any, name: str = "p", action: Any = "Deny", **more: Any) -> Policy:
    return Policy(name, "default", "Namespace", action, rules, **more)


def rule(*matches_: Match) -> Any:
    return (matches_,)


def exact(value: str) -> tuple[StringMatch]:
    return (StringMatch("Exact", value),)


def does(match: Match, connection: ConnectionFacts) -> bool:
    """Whether the match matches, asked in both ways."""
    asked = policy(rule(match))
    found = matches(asked, connection)
    assert authorize([PolicySet.of([asked])], connection).allowed is not found
    return found


NETWORK, OTHER = (ip_network("10.0.0.0/24"),), (ip_network("10.9.0.0/16"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("field", "matching", "other"),
    [
        ("namespaces", exact("ns"), exact("n")),
        ("namespaces", (StringMatch("Prefix", "n"),), (StringMatch("Prefix", "s"),)),
        ("namespaces", (StringMatch("Suffix", "s"),), (StringMatch("Suffix", "n"),)),
        ("namespaces", (StringMatch("Presence"),), exact("x")),
        ("namespaces", (*exact("x"), *exact("ns")), (*exact("x"), *exact("y"))),
        ("service_accounts", (ServiceAccountMatch("ns", "client"),), (ServiceAccountMatch("ns", "other"),)),
        ("service_accounts", (ServiceAccountMatch("ns", "client"),), (ServiceAccountMatch("x", "client"),)),
        ("service_accounts", (ServiceAccountMatch("ns", "client"),), (ServiceAccountMatch("", "client"),)),
        (
            "principals",
            exact("cluster.local/ns/ns/sa/client"),
            exact("spiffe://cluster.local/ns/ns/sa/client"),
        ),
        ("principals", (StringMatch("Prefix", "cluster.local/"),), (StringMatch("Prefix", "spiffe"),)),
        ("principals", (StringMatch("Suffix", "/sa/client"),), (StringMatch("Suffix", "/sa/cli"),)),
        ("principals", (StringMatch("Presence"),), exact("")),
        ("source_ips", NETWORK, OTHER),
        ("source_ips", (ip_network("10.0.0.1/32"),), (ip_network("10.0.0.2/32"),)),
        ("source_ips", (ip_network("0.0.0.0/0"),), (ip_network("::/0"),)),
        ("destination_ips", NETWORK, OTHER),
        ("destination_ports", (80,), (81, 15008)),
    ],
)
def test_a_field_matches_if_one_of_its_values_does_and_its_not_twin_if_none_does(
    field: str, matching: Any, other: Any
) -> None:
    assert does(Match(**{field: matching}), facts())
    assert not does(Match(**{field: other}), facts())
    assert not does(Match(**{f"not_{field}": matching}), facts())
    assert does(Match(**{f"not_{field}": other}), facts())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("namespaces", (StringMatch("Presence"),)),
        ("namespaces", (StringMatch("Prefix", ""),)),
        ("namespaces", exact("")),
        ("principals", (StringMatch("Prefix", ""),)),
        ("principals", (StringMatch("Presence"),)),
        ("service_accounts", (ServiceAccountMatch("", ""),)),
    ],
)
def test_without_an_identity_what_asks_for_one_fails_and_what_excludes_one_passes(
    field: str, values: Any
) -> None:
    assert not does(Match(**{field: values}), facts(who=None))
    assert does(Match(**{f"not_{field}": values}), facts(who=None))


def test_a_service_account_without_namespace_is_nobody_elses() -> None:
    match = Match(service_accounts=(ServiceAccountMatch("", "client"),))
    assert does(match, facts(who=identity("client", "")))
    for namespace in ("default", "ns"):  # the policy's own, too
        assert not does(match, facts(who=identity("client", namespace)))


def test_all_fields_of_a_match_must_match() -> None:
    assert does(Match(namespaces=exact("ns"), destination_ports=(80,)), facts())
    assert not does(Match(namespaces=exact("ns"), destination_ports=(81,)), facts())
    assert not does(Match(namespaces=exact("ns"), not_destination_ports=(80,)), facts())


YES, NO = Match(destination_ports=(80,)), Match(destination_ports=(81,))


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ((), False),
        (((),), True),
        ((((),),), True),
        (((), ((NO,),)), True),
        ((((Match(),),),), False),
        ((((Match(), YES),),), True),
        ((((YES,), (Match(),)),), False),
        ((((YES,),),), True),
        ((((NO,),),), False),
        ((((NO, YES),),), True),
        ((((YES,), (NO,)),), False),
        ((((YES,), ()),), True),
        ((((NO,), ()),), False),
        ((((NO,),), ((YES,),)), True),
        ((((NO,),), ((YES,), (NO,))), False),
    ],
)
def test_rules_are_or_ed_clauses_and_ed_matches_or_ed_and_empty_ones_mean_what_istio_means(
    rules: Any, found: bool
) -> None:
    asked = policy(*rules)
    assert matches(asked, facts()) is found
    assert authorize([PolicySet.of([asked])], facts()).allowed is not found


# --- verdicts -------------------------------------------------------------------------------------


def test_without_policies_everything_is_allowed() -> None:
    assert authorize([], facts()) == authorize([PolicySet()], facts()) == Verdict(True)


def test_step_1_a_deny_that_matches_comes_before_any_allow() -> None:
    deny, allow = policy(rule(YES), name="deny"), policy(rule(YES), name="allow", action="Allow")
    expected = Verdict(False, NamespacedName("default", "deny"))
    assert authorize([PolicySet.of([allow]), PolicySet.of([deny])], facts()) == expected


def test_step_2_without_an_allow_what_is_not_denied_is_allowed() -> None:
    assert authorize([PolicySet.of([policy(rule(NO))])], facts()) == Verdict(True)


def test_step_3_one_allow_that_matches_is_enough() -> None:
    sets = [
        PolicySet.of([policy(rule(NO), name="a", action="Allow")]),
        PolicySet.of([policy(rule(YES), name="b", action="Allow")]),
    ]
    assert authorize(sets, facts()) == Verdict(True, NamespacedName("default", "b"))


@pytest.mark.parametrize("rules", [(), (rule(NO),)])
def test_step_4_where_there_are_allows_and_none_matches_nobody_is_allowed(rules: Any) -> None:
    assert authorize([PolicySet.of([policy(*rules, action="Allow")])], facts()) == Verdict(False)


def test_policies_that_only_log_decide_nothing_and_are_reported() -> None:
    deny = policy(rule(YES), name="deny", dry_run=True)
    other = policy(rule(NO), name="other", dry_run=True)
    allow = policy(rule(YES), name="allow", action="Allow", dry_run=True)
    assert authorize([PolicySet.of([deny, other, allow])], facts()) == Verdict(
        True,
        None,
        (
            DryRun("dry-run: deny policy match", deny.key),
            DryRun("dry-run: allow policy match", allow.key),
        ),
    )


def test_allow_policies_that_only_log_report_that_none_matched() -> None:
    allow = policy(rule(NO), action="Allow", dry_run=True)
    assert authorize([PolicySet.of([allow])], facts()) == Verdict(
        True, None, (DryRun("dry-run: no allow policies match", None),)
    )


def test_a_policy_that_is_added_again_replaces_the_one_of_its_name() -> None:
    policies = PolicySet.of([policy(rule(YES))])
    policies.add(policy(rule(NO)))
    assert authorize([policies], facts()).allowed
    policies.add(policy(rule(YES), action="Allow"))
    assert authorize([policies], facts()) == Verdict(True, NamespacedName("default", "p"))
    policies.remove(NamespacedName("default", "p"))
    policies.remove(NamespacedName("default", "p"))
    assert authorize([policies], facts()) == Verdict(True)


# --- the index says what the policies say ---------------------------------------------------------

small = st.sampled_from(["", "a", "b", "ab", "td/ns/a/sa/b"])
nets = st.sampled_from(
    [
        ip_network(each)
        for each in ("10.0.0.0/31", "10.0.0.1/32", "0.0.0.0/0", "10.0.0.2/32", "::/0", "fd00::/16")
    ]
)
small_policies = policies_of(matches_of(small, st.sampled_from(["", "a", "b"]), nets, st.integers(80, 82)))
hosts = st.sampled_from([ip_address(each) for each in ("10.0.0.0", "10.0.0.1", "10.0.0.2", "fd00::1")])
connections = st.builds(
    ConnectionFacts,
    hosts,
    st.none() | st.builds(Identity, st.just("td"), st.sampled_from("ab"), st.sampled_from("ab")),
    st.builds(SocketAddress, hosts, st.integers(80, 82)),
)


@examples(150)
@given(st.lists(small_policies, max_size=4, unique_by=lambda each: each.key), connections)
def test_the_index_finds_what_asking_each_policy_finds(
    policies: list[Policy], asked: ConnectionFacts
) -> None:
    def matching(action: str, dry: bool) -> set[NamespacedName]:
        chosen = [each for each in policies if (each.action, each.dry_run) == (action, dry)]
        return {each.key for each in chosen if matches(each, asked)}

    verdict = authorize([PolicySet.of(policies)], asked)
    allows = any(each.action == "Allow" and not each.dry_run for each in policies)
    denied, allowed = matching("Deny", False), matching("Allow", False)
    assert verdict.allowed is (not denied and (not allows or bool(allowed)))
    if verdict.policy is not None:
        assert verdict.policy in (allowed if verdict.allowed else denied)
    logged = {each.policy for each in verdict.dry_run if each.policy}
    assert logged == matching("Deny", True) | matching("Allow", True)


@examples()
@given(st.lists(small_policies, max_size=4, unique_by=lambda each: each.key), connections)
def test_policies_that_were_removed_leave_nothing_behind(
    policies: list[Policy], asked: ConnectionFacts
) -> None:
    made = PolicySet.of(policies)
    for each in policies:
        made.remove(each.key)
    assert authorize([made], asked) == Verdict(True)


def test_thousands_of_rules_that_do_not_match_cost_next_to_nothing() -> None:
    def one(number: int) -> Policy:
        rules = [
            ((Match(namespaces=exact(f"ns-{number}-{each}")),), (Match(destination_ports=(each,)),))
            for each in range(1000, 1010)
        ]
        return policy(*rules, name=f"p{number}")

    policies = PolicySet.of(map(one, range(1_000)))
    asked = facts()
    assert authorize([policies], asked) == Verdict(True)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        authorize([policies], asked)
        took.append(time.perf_counter() - start)
    # One by one they take some tens of milliseconds.
    assert min(took) < 0.002
