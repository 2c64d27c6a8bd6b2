"""Who may connect: authorization policies, and the verdict on a connection.

Rules: exactly Istio's semantics (a matching DENY, then no ALLOW at all, then a matching ALLOW, then no); policies
are indexed when they are added by what a rule asks for, so that a verdict looks only at rules that may match.
Does not belong here: which policies apply to a workload (see `store`), what a refused client is told (`refusals`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from netwarren.mesh.model import (
    Identity,
    Match,
    NamespacedName,
    Policy,
    ServiceAccountMatch,
    SocketAddress,
    StringMatch,
)
from netwarren.topology.addresses import Address, Network


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What policies can ask of a connection; the destination's port is the application's, never 15008.

    ``source_identity`` is None where the connection came in plain text.
    """

    source: Address
    source_identity: Identity | None
    destination: SocketAddress


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a policy that only logs would have done; ``policy`` is None where none of them matched."""

    message: Literal[
        "dry-run: deny policy match", "dry-run: allow policy match", "dry-run: no allow policies match"
    ]
    policy: NamespacedName | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a connection is allowed; ``policy`` is the one that denied it, or the one that allowed it.

    ``unknown`` are those that the workload names and nobody has given: they had no say.
    """

    allowed: bool
    policy: NamespacedName | None = None
    dry_run: tuple[DryRun, ...] = ()
    unknown: tuple[NamespacedName, ...] = ()


# --- matching -------------------------------------------------------------------------------------


def matches(policy: Policy, facts: ConnectionFacts) -> bool:
    """Whether one of the rules of ``policy`` matches: rules or-ed, clauses and-ed, a clause's matches or-ed.

    No rules never match, a rule without clauses and a clause without matches do, an empty match does not.
    """
    return any(_rule_matches(rule, facts) for rule in policy.rules)


def _rule_matches(rule: Sequence[Sequence[Match]], facts: ConnectionFacts) -> bool:
    return all(not clause or any(_matches(each, facts) for each in clause) for clause in rule)


_EMPTY = Match()


def _matches(match: Match, facts: ConnectionFacts) -> bool:
    if match == _EMPTY:
        return False
    identity = facts.source_identity
    target, port = facts.destination
    own = identity.namespace if identity else None
    return (
        _among(port, match.destination_ports, match.not_destination_ports)
        and _strings(own, match.namespaces, match.not_namespaces)
        and _strings(_principal(identity), match.principals, match.not_principals)
        and _accounts(identity, match)
        and _networks(facts.source, match.source_ips, match.not_source_ips)
        and _networks(target, match.destination_ips, match.not_destination_ips)
    )


def _principal(identity: Identity | None) -> str | None:
    return str(identity).removeprefix("spiffe://") if identity else None


def _among(port: int, wanted: tuple[int, ...], unwanted: tuple[int, ...]) -> bool:
    return (not wanted or port in wanted) and port not in unwanted


def _networks(address: Address, wanted: tuple[Network, ...], unwanted: tuple[Network, ...]) -> bool:
    return (not wanted or any(address in each for each in wanted)) and not any(
        address in each for each in unwanted
    )


def _strings(value: str | None, wanted: tuple[StringMatch, ...], unwanted: tuple[StringMatch, ...]) -> bool:
    return (not wanted or any(_string(value, each) for each in wanted)) and not any(
        _string(value, each) for each in unwanted
    )


def _string(value: str | None, pattern: StringMatch) -> bool:
    if value is None:
        return False
    match pattern.kind:
        case "Exact":
            return value == pattern.value
        case "Prefix":
            return value.startswith(pattern.value)
        case "Suffix":
            return value.endswith(pattern.value)
    return value != ""


def _accounts(identity: Identity | None, match: Match) -> bool:
    def is_it(account: ServiceAccountMatch) -> bool:
        return identity is not None and (
            identity.service_account == account.service_account and identity.namespace == account.namespace
        )

    return (not match.service_accounts or any(map(is_it, match.service_accounts))) and not any(
        map(is_it, match.not_service_accounts)
    )


# --- the index ------------------------------------------------------------------------------------

# What a rule asks for at least: the field, how it is asked (an operator or a length), and the value.
_Key: TypeAlias = tuple[str, object, object]
_Rule: TypeAlias = tuple[tuple[Match, ...], ...]
_ALWAYS: _Key = ("", "", "")


class _RuleIndex:
    """The rules of policies of one sort, under what each asks for."""

    def __init__(self) -> None:
        self.policies: dict[NamespacedName, list[_Key]] = {}
        # Of each key the policies, and of those the rules.
        self._under: dict[_Key, dict[NamespacedName, list[_Rule]]] = {}
        # The lengths of prefixes, suffixes and networks that were ever asked for: what to look under.
        self._lengths: dict[tuple[str, object], set[int]] = {}

    def add(self, policy: Policy) -> None:
        keys: list[_Key] = []
        for rule in policy.rules:
            for key in _needs(rule):
                self._under.setdefault(key, {}).setdefault(policy.key, []).append(rule)
                keys.append(key)
                if isinstance(key[1], tuple):
                    self._lengths.setdefault((key[0], key[1][0]), set()).add(key[1][1])
        self.policies[policy.key] = keys

    def remove(self, key: NamespacedName) -> None:
        for each in self.policies.pop(key, ()):
            if under := self._under.get(each):
                under.pop(key, None)
                if not under:
                    del self._under[each]

    def matching(self, facts: ConnectionFacts) -> Iterator[NamespacedName]:
        """The policies that match; one may come more than once."""
        under = self._under
        for key in self._of(facts):
            for policy, rules in under.get(key, {}).items():
                if any(_rule_matches(rule, facts) for rule in rules):
                    yield policy

    def _of(self, facts: ConnectionFacts) -> Iterator[_Key]:
        """What a connection like this offers."""
        yield _ALWAYS
        yield "port", "=", facts.destination.port
        yield from self._of_network("source", facts.source)
        yield from self._of_network("destination", facts.destination.address)
        identity = facts.source_identity
        if identity is not None:
            yield from self._of_string("namespace", identity.namespace)
            yield from self._of_string("principal", str(identity).removeprefix("spiffe://"))
            yield "account", "=", (identity.namespace, identity.service_account)

    def _of_network(self, name: str, address: Address) -> Iterator[_Key]:
        value, width, version = int(address), address.max_prefixlen, address.version
        for length in self._lengths.get((name, version), ()):
            yield name, (version, length), value >> (width - length)

    def _of_string(self, name: str, value: str) -> Iterator[_Key]:
        yield name, "=", value
        if value:
            yield name, "present", True
        for length in self._lengths.get((name, "prefix"), ()):
            if length <= len(value):
                yield name, ("prefix", length), value[:length]
        for length in self._lengths.get((name, "suffix"), ()):
            if length <= len(value):
                yield name, ("suffix", length), value[len(value) - length :]


def _needs(rule: _Rule) -> Iterable[_Key]:
    """Keys of which a connection must offer at least one for ``rule`` to match; none if it never does."""
    best: list[_Key] | None = None
    for clause in rule:
        possible = [match for match in clause if match != _EMPTY]
        if clause and not possible:
            return ()
        keys = [_needed(match) for match in possible]
        if keys and all(keys):
            flat = list(dict.fromkeys(key for each in keys for key in each))
            if best is None or len(flat) < len(best):
                best = flat
    return [_ALWAYS] if best is None else best


def _needed(match: Match) -> list[_Key]:
    """Of a match's fields the one that tells connections apart best; empty if it only says what must not be."""
    if match.principals:
        return [_string_key("principal", each) for each in match.principals]
    if match.service_accounts:
        return [("account", "=", (each.namespace, each.service_account)) for each in match.service_accounts]
    if match.source_ips:
        return [_network_key("source", each) for each in match.source_ips]
    if match.namespaces:
        return [_string_key("namespace", each) for each in match.namespaces]
    if match.destination_ports:
        return [("port", "=", each) for each in match.destination_ports]
    return [_network_key("destination", each) for each in match.destination_ips]


def _string_key(name: str, pattern: StringMatch) -> _Key:
    match pattern.kind:
        case "Exact":
            return name, "=", pattern.value
        case "Prefix":
            return name, ("prefix", len(pattern.value)), pattern.value
        case "Suffix":
            return name, ("suffix", len(pattern.value)), pattern.value
    return name, "present", True


def _network_key(name: str, network: Network) -> _Key:
    value = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
    return name, (network.version, network.prefixlen), value


@dataclass(slots=True)
class PolicySet:
    """Policies that apply together, as those of a namespace do; adding one of a known name replaces it."""

    deny: _RuleIndex = field(default_factory=_RuleIndex)
    allow: _RuleIndex = field(default_factory=_RuleIndex)
    dry_deny: _RuleIndex = field(default_factory=_RuleIndex)
    dry_allow: _RuleIndex = field(default_factory=_RuleIndex)

    @classmethod
    def of(cls, policies: Iterable[Policy]) -> "PolicySet":
        made = cls()
        for policy in policies:
            made.add(policy)
        return made

    def add(self, policy: Policy) -> None:
        self.remove(policy.key)
        if policy.dry_run:
            (self.dry_deny if policy.action == "Deny" else self.dry_allow).add(policy)
        else:
            (self.deny if policy.action == "Deny" else self.allow).add(policy)

    def remove(self, key: NamespacedName) -> None:
        for index in (self.deny, self.allow, self.dry_deny, self.dry_allow):
            index.remove(key)


def authorize(sets: Sequence[PolicySet], facts: ConnectionFacts) -> Verdict:
    """The verdict of the policies in ``sets`` on a connection, and what those that only log have to say."""
    logs = _dry_run(sets, facts)
    for each in sets:
        for policy in each.deny.matching(facts):
            return Verdict(False, policy, logs)
    if not any(each.allow.policies for each in sets):
        return Verdict(True, None, logs)
    for each in sets:
        for policy in each.allow.matching(facts):
            return Verdict(True, policy, logs)
    return Verdict(False, None, logs)


def _dry_run(sets: Sequence[PolicySet], facts: ConnectionFacts) -> tuple[DryRun, ...]:
    denied = dict.fromkeys(policy for each in sets for policy in each.dry_deny.matching(facts))
    logs = [DryRun("dry-run: deny policy match", policy) for policy in denied]
    if any(each.dry_allow.policies for each in sets):
        allowed = dict.fromkeys(policy for each in sets for policy in each.dry_allow.matching(facts))
        logs += [DryRun("dry-run: allow policy match", policy) for policy in allowed] or [
            DryRun("dry-run: no allow policies match", None)
        ]
    return tuple(logs)
