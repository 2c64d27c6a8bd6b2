"""The mesh as the proxy looks things up in it: indices over workloads, services and policies.

Rules: each change costs what it changes, whatever the size of the mesh; whoever reads gets frozen data; one thread.
``version`` counts the changes. What names nothing is kept, and found once it is there.
Does not belong here: choosing among what was found (see `balancer`), deciding (see `outbound`, `inbound`, `rbac`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from netwarren.mesh.model import CidrAddress, NamespacedName, NetworkAddress, Policy, Service, Workload
from netwarren.mesh.state.dump import plain_endpoint, plain_policy, plain_service, plain_workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.rbac import ConnectionFacts, PolicySet, Verdict, authorize
from netwarren.mesh.state.residents import Residents
from netwarren.topology.addresses import Network

GLOBAL = ""
"""The namespace whose policies apply everywhere."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workload behind a service; ``ports`` is ``{service port: target port}``, which the service's own yield to."""

    workload: Workload
    ports: Mapping[int, int] = field(hash=False)


Found: TypeAlias = Workload | Service


class State:
    """What the proxy knows of a mesh. A workload's key is its uid, a service's and a policy's `NamespacedName`.

    ``residents`` are the identities on ``node``.
    """

    def __init__(self, config: Config | None = None, *, node: str = "") -> None:
        self.version = 0
        self.residents = Residents(node)
        self._clear()
        self._load(config or Config())

    def _clear(self) -> None:
        self.residents.clear()
        self._workloads: dict[str, Workload] = {}
        # Those that have an address, the one that it means first.
        self._at: dict[NetworkAddress, tuple[Workload, ...]] = {}
        self._named: dict[tuple[str, str, str], dict[str, Workload]] = {}
        self._services: dict[NamespacedName, Service] = {}
        self._by_host: dict[str, dict[NamespacedName, Service]] = {}
        self._by_vip: dict[NetworkAddress, dict[NamespacedName, Service]] = {}
        self._by_cidr: dict[tuple[str, int], dict[int, dict[int, dict[NamespacedName, Service]]]] = {}
        # Of each service, known or not, all that say they are its endpoints, by uid.
        self._members: dict[NamespacedName, dict[str, Endpoint]] = {}
        self._usable: dict[NamespacedName, tuple[Endpoint, ...]] = {}
        self._remembered: dict[NamespacedName, dict[Any, Any]] = {}
        self._policies: dict[NamespacedName, Policy] = {}
        # Of each namespace, and of all, the policies that apply to whatever is in it.
        self._scoped: dict[str, dict[NamespacedName, Policy]] = {}
        self._sets: dict[str, PolicySet] = {}
        # Of each workload's list of policies those that there are, and the names of those that there are not.
        self._selected: dict[tuple[NamespacedName, ...], tuple[PolicySet, tuple[NamespacedName, ...]]] = {}

    def replace(self, config: Config) -> None:
        """Forgets everything, and knows ``config`` instead."""
        self._clear()
        self._load(config)
        self.version += 1

    def _load(self, config: Config) -> None:
        for workload in config.workloads:
            self._insert_workload(workload)
        for policy in config.policies:
            self._insert_policy(policy)
        for service in config.services:
            self._insert_service(service)

    # --- changes ----------------------------------------------------------------------------------

    def add_workload(self, workload: Workload) -> None:
        """Adds ``workload``, in place of the one that has its uid."""
        self._insert_workload(workload)
        self.version += 1

    def remove_workload(self, uid: str) -> None:
        """Removes a workload; one that is not there is no error."""
        self._drop_workload(uid)
        self.version += 1

    def add_service(self, service: Service) -> None:
        """Adds ``service``, in place of the one that has its key; its endpoints stay."""
        self._insert_service(service)
        self.version += 1

    def remove_service(self, key: NamespacedName) -> None:
        """Removes a service; one that is not there is no error."""
        self._drop_service(key)
        self.version += 1

    def add_policy(self, policy: Policy) -> None:
        """Adds ``policy``, in place of the one that has its key."""
        self._insert_policy(policy)
        self.version += 1

    def remove_policy(self, key: NamespacedName) -> None:
        """Removes a policy; one that is not there is no error."""
        self._drop_policy(key)
        self.version += 1

    def _insert_workload(self, workload: Workload) -> None:
        self._drop_workload(workload.uid)
        self._workloads[workload.uid] = workload
        self.residents.add(workload)
        self._named.setdefault(_info_of(workload), {})[workload.uid] = workload
        for address in _indexed(workload):
            owners = self._at.get(address)
            if owners is None:
                self._at[address] = (workload,)
            else:  # sorted() is stable: of equals the one that came last
                self._at[address] = tuple(sorted((workload, *owners), key=_precedence))
        for key, ports in workload.services.items():
            self._members.setdefault(key, {})[workload.uid] = Endpoint(workload, ports)
            self._forget(key)

    def _drop_workload(self, uid: str) -> None:
        workload = self._workloads.pop(uid, None)
        if workload is None:
            return
        self.residents.remove(workload)
        _drop(self._named, _info_of(workload), uid)
        for address in _indexed(workload):
            left = tuple([each for each in self._at.get(address, ()) if each.uid != uid])
            if left:
                self._at[address] = left
            else:
                self._at.pop(address, None)
        for key in workload.services:
            _drop(self._members, key, uid)
            self._forget(key)

    def _insert_service(self, service: Service) -> None:
        key = service.key
        self._drop_service(key)
        self._services[key] = service
        self._by_host.setdefault(service.hostname, {})[key] = service
        for vip in service.vips:
            self._by_vip.setdefault(vip, {})[key] = service
        for cidr in service.cidr_vips:
            lengths = self._by_cidr.setdefault(_range_of(cidr), {})
            lengths.setdefault(cidr.cidr.prefixlen, {}).setdefault(_bits_of(cidr.cidr), {})[key] = service

    def _drop_service(self, key: NamespacedName) -> None:
        self._forget(key)
        service = self._services.pop(key, None)
        if service is None:
            return
        _drop(self._by_host, service.hostname, key)
        for vip in service.vips:
            _drop(self._by_vip, vip, key)
        for cidr in service.cidr_vips:
            lengths = self._by_cidr.get(_range_of(cidr), {})
            values = lengths.get(cidr.cidr.prefixlen, {})
            _drop(values, _bits_of(cidr.cidr), key)
            if not values:
                lengths.pop(cidr.cidr.prefixlen, None)

    def _forget(self, key: NamespacedName) -> None:
        self._usable.pop(key, None)
        self._remembered.pop(key, None)

    def _insert_policy(self, policy: Policy) -> None:
        self._drop_policy(policy.key)
        self._policies[policy.key] = policy
        where = _scope_of(policy)
        if where is not None:
            self._scoped.setdefault(where, {})[policy.key] = policy
            self._sets.setdefault(where, PolicySet()).add(policy)

    def _drop_policy(self, key: NamespacedName) -> None:
        self._selected.clear()
        policy = self._policies.pop(key, None)
        where = _scope_of(policy) if policy else None
        if where is not None:
            _drop(self._scoped, where, key)
            self._sets[where].remove(key)

    # --- workloads --------------------------------------------------------------------------------

    @property
    def workloads(self) -> Iterable[Workload]:
        return self._workloads.values()

    def workload(self, uid: str) -> Workload | None:
        return self._workloads.get(uid)

    def workload_at(self, address: NetworkAddress) -> Workload | None:
        """The workload that an address means: pods before those that take HBONE before others, then the latest.

        Workloads in their host's network are not found: their addresses are their node's.
        """
        owners = self._at.get(address)
        return owners[0] if owners else None

    def workload_named(self, hostname: str, namespace: str) -> Workload | None:
        """A workload by its hostname; looks at all of them."""
        for workload in self._workloads.values():
            if workload.hostname == hostname and workload.namespace == namespace:
                return workload
        return None

    def workload_of(self, name: str, namespace: str, service_account: str) -> Workload | None:
        """The workload that a node agent's words mean (ZDS ``WorkloadInfo``)."""
        return next(iter(self._named.get((namespace, name, service_account), {}).values()), None)

    # --- services ---------------------------------------------------------------------------------

    @property
    def services(self) -> Iterable[Service]:
        return self._services.values()

    def service(self, key: NamespacedName) -> Service | None:
        return self._services.get(key)

    def service_named(self, hostname: str, namespace: str, preferred: str | None = None) -> Service | None:
        """The service that a client in ``namespace`` means by ``hostname`` (see `best`)."""
        return best(self._by_host.get(hostname, {}).values(), namespace, preferred)

    def service_asked_for(self, hostname: str, namespace: str) -> Service | None:
        """The service that a proxy in ``namespace`` is asked for by ``hostname``, by clients of any namespace."""
        return _first_choice(self._by_host.get(hostname, {}).values(), namespace)

    def services_called(self, hostname: str) -> list[Service]:
        """The services of all namespaces with that hostname."""
        return list(self._by_host.get(hostname, {}).values())

    def service_at(self, address: NetworkAddress, namespace: str) -> Service | None:
        """The service that a client in ``namespace`` means by a virtual address: by itself, else by a range.

        Of ranges, those of the client's namespace come first, then longer ones, then canonical services.
        """
        found = best(self._by_vip.get(address, {}).values(), namespace)
        if found is not None or not self._by_cidr:
            return found
        ranks = [
            ((service.namespace == namespace, length, service.canonical), service)
            for length, service in self._ranges_at(address)
            if visible(service, namespace)
        ]
        return max(ranks, key=lambda each: each[0])[1] if ranks else None

    def _ranges_at(self, address: NetworkAddress) -> Iterator[tuple[int, Service]]:
        """The services with a range that an address is in, each with the range's length."""
        value, width = int(address.address), address.address.max_prefixlen
        for length, values in self._by_cidr.get((address.network, address.address.version), {}).items():
            for service in values.get(value >> (width - length), {}).values():
                yield length, service

    def services_of(self, workload: Workload) -> list[Service]:
        """The services that ``workload`` is an endpoint of, in the order in which it names them."""
        return [found for key in workload.services if (found := self._services.get(key)) is not None]

    def endpoints(self, service: Service) -> tuple[Endpoint, ...]:
        """Those behind ``service`` that may be used: healthy ones, or all where its health policy is AllowAll."""
        key = service.key
        usable = self._usable.get(key)
        if usable is None:
            takes_all = service.takes_all
            members = self._members.get(key, {}).values()
            usable = tuple(
                [each for each in members if takes_all or service.health_of(each.workload) == "Healthy"]
            )
            if self._services.get(key) is service:
                self._usable[key] = usable
        return usable

    def remembered(self, service: Service) -> dict[Any, Any]:
        """A place for what was worked out from ``service`` and its endpoints; empty again when they change."""
        if self._services.get(service.key) is not service:
            return {}
        return self._remembered.setdefault(service.key, {})

    def endpoint(self, service: Service, uid: str) -> Endpoint | None:
        """The endpoint of ``service`` that the workload ``uid`` is, if it may be used."""
        found = self._members.get(service.key, {}).get(uid)
        if found is None or service.takes_all or service.health_of(found.workload) == "Healthy":
            return found
        return None

    # --- either -----------------------------------------------------------------------------------

    def find_address(self, address: NetworkAddress, namespace: str) -> Found | None:
        """The workload or else the service that an address means to a client in ``namespace``."""
        return self.workload_at(address) or self.service_at(address, namespace)

    def all_at(self, address: NetworkAddress) -> list[Found]:
        """All that an address may mean, to clients of any namespace: the workload, or else every service."""
        workload = self.workload_at(address)
        if workload is not None:
            return [workload]
        ranges = (service for _, service in self._ranges_at(address))
        return [*self._by_vip.get(address, {}).values(), *ranges]

    def find(self, destination: NetworkAddress | NamespacedName, namespace: str) -> Found | None:
        """What a waypoint or gateway refers to: a hostname is first a service's, then a workload's."""
        if isinstance(destination, NetworkAddress):
            return self.find_address(destination, namespace)
        return self._named_so(destination)

    def all_meant(self, destination: NetworkAddress | NamespacedName) -> list[Found]:
        """All that a waypoint or gateway may refer to, for clients of any namespace (see `find`)."""
        if isinstance(destination, NetworkAddress):
            return self.all_at(destination)
        found = self._named_so(destination)
        return [] if found is None else [found]

    def _named_so(self, name: NamespacedName) -> Found | None:
        return self._services.get(name) or self.workload_named(name.name, name.namespace)

    # --- policies ---------------------------------------------------------------------------------

    @property
    def policies(self) -> Iterable[Policy]:
        return self._policies.values()

    def policy(self, key: NamespacedName) -> Policy | None:
        return self._policies.get(key)

    def policies_of(self, workload: Workload) -> list[Policy]:
        """The policies that apply to ``workload``: of its namespace, of all, and those that select it."""
        found = {**self._scoped.get(workload.namespace, {}), **self._scoped.get(GLOBAL, {})}
        for key in workload.authorization_policies:
            if key in self._policies:
                found[key] = self._policies[key]
        return list(found.values())

    def authorize(self, workload: Workload, facts: ConnectionFacts) -> Verdict:
        """Whether ``workload`` takes a connection."""
        sets = [
            self._sets[where] for where in dict.fromkeys((workload.namespace, GLOBAL)) if where in self._sets
        ]
        unknown: tuple[NamespacedName, ...] = ()
        if workload.authorization_policies:
            chosen, unknown = self._selecting(workload.authorization_policies)
            sets.append(chosen)
        verdict = authorize(sets, facts)
        return replace(verdict, unknown=unknown) if unknown else verdict

    def _selecting(self, keys: tuple[NamespacedName, ...]) -> tuple[PolicySet, tuple[NamespacedName, ...]]:
        """The policies that a workload names, and those of its names that are no policy's."""
        found = self._selected.get(keys)
        if found is None:
            found = (
                PolicySet.of(self._policies[key] for key in keys if key in self._policies),
                tuple([key for key in keys if key not in self._policies]),
            )
            self._selected[keys] = found
        return found

    # --- written out ------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """What ``/config_dump`` shows of it: JSON-able, each list sorted by key."""
        services = []
        for _, service in sorted(self._services.items()):
            plain = plain_service(service)
            plain["endpoints"] = {
                each.workload.uid: plain_endpoint(each.workload, each.ports, service.health_of(each.workload))
                for each in self.endpoints(service)
            }
            services.append(plain)
        return {
            "workloads": [plain_workload(each) for _, each in sorted(self._workloads.items())],
            "services": services,
            "policies": [plain_policy(each) for _, each in sorted(self._policies.items())],
            "stagedServices": {
                str(key): {
                    uid: plain_endpoint(each.workload, each.ports, each.workload.status)
                    for uid, each in members.items()
                }
                for key, members in sorted(self._members.items())
                if key not in self._services
            },
        }


def visible(service: Service, namespace: str) -> bool:
    """Whether clients in ``namespace`` see ``service``."""
    return service.visibility == "Public" or service.namespace == namespace


def best(services: Iterable[Service], namespace: str, preferred: str | None = None) -> Service | None:
    """Of services that share an address or a hostname the one that a client in ``namespace`` means.

    The one in its namespace, else a canonical one, else the one in the ``preferred`` namespace, else the first.
    """
    return _first_choice((each for each in services if visible(each, namespace)), namespace, preferred)


def _first_choice(
    services: Iterable[Service], namespace: str, preferred: str | None = None
) -> Service | None:
    first = canonical = in_preferred = None
    for service in services:
        if service.namespace == namespace:
            return service
        first = first or service
        if service.canonical:
            canonical = canonical or service
        if service.namespace == preferred:
            in_preferred = in_preferred or service
    return canonical or in_preferred or first


def _info_of(workload: Workload) -> tuple[str, str, str]:
    return workload.namespace, workload.name, workload.service_account


def _indexed(workload: Workload) -> list[NetworkAddress]:
    if workload.network_mode == "HostNetwork":
        return []
    return [NetworkAddress(workload.network, address) for address in dict.fromkeys(workload.addresses)]


def _precedence(workload: Workload) -> tuple[bool, bool]:
    return "//Pod/" not in workload.uid, workload.protocol != "HBONE"


def _range_of(cidr: CidrAddress) -> tuple[str, int]:
    return cidr.network, cidr.cidr.version


def _bits_of(cidr: Network) -> int:
    return int(cidr.network_address) >> (cidr.max_prefixlen - cidr.prefixlen)


def _scope_of(policy: Policy) -> str | None:
    match policy.scope:
        case "Global":
            return GLOBAL
        case "Namespace":
            return policy.namespace
    return None


def _drop(index: dict[Any, dict[Any, Any]], outer: object, inner: object) -> None:
    """Takes one thing out of an index, and its place with it when that is empty."""
    place = index.get(outer)
    if place is not None:
        place.pop(inner, None)
        if not place:
            del index[outer]
