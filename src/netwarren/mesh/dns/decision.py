"""What a client in the mesh is answered to a question, or that others are to be asked.

Rules: pure, but for the order of addresses, which ``rng`` gives; as Istio's ztunnel decides
(`src/dns/server.rs`); a service that a client must not see is to it as if there were none.
Does not belong here: bytes (see `message`), asking others (see `upstream`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from netwarren.mesh.dns.aliases import Alias, aliases, search_domains, wildcards
from netwarren.mesh.model import IpFamilies, Service, Workload
from netwarren.names.answer import Answer, Question
from netwarren.names.records import Record, address_record
from netwarren.topology.addresses import Address

TTL = 30
"""Seconds."""

NOTHING = Answer()
"""There is such a name, but it has no address of that family (and so this is not NXDOMAIN)."""

_WITHOUT: dict[IpFamilies | None, str] = {"IPv4": "AAAA", "IPv6": "A"}


class ServiceDirectory(Protocol):
    """What the mesh has, as far as names go."""

    def services(self, hostname: str) -> Sequence[Service]:
        """The services of all namespaces with that hostname (in small letters; may begin with ``*.``)."""
        ...

    def endpoints(self, service: Service) -> Iterable[Workload]:
        """The workloads behind a service that may be used."""
        ...


@dataclass(frozen=True, slots=True)
class Naming:
    """How names are looked for.

    ``domain`` is the cluster's. ``search`` is the search list of the pod's resolv.conf, where it is known (a
    dedicated proxy); None is what Kubernetes gives a pod of the client's namespace (a shared one).
    ``preferred_namespace``: whose services are taken where the client's own namespace has none of that
    hostname and none is canonical. ``ipv6``: whether there are AAAA records at all.
    """

    domain: str = "cluster.local"
    search: tuple[str, ...] | None = None
    preferred_namespace: str = ""
    ipv6: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """A service, the hostname that it was found under, and the alias that led there."""

    service: Service
    hostname: str
    alias: Alias


def decide(
    question: Question, client: Workload, directory: ServiceDirectory, naming: Naming, rng: Random
) -> Answer | None:
    """The answer to ``client``, whose rest of the mesh is in ``directory``; None: it is to be had upstream."""
    name, type = question.name, question.type
    if type not in ("A", "AAAA"):
        return None
    match = find(name, client, directory, naming)
    if match is None:
        return None
    if (type == "AAAA" and not naming.ipv6) or type == _WITHOUT.get(match.service.ip_families):
        return NOTHING
    addresses = list(_addresses(match.service, client, directory, 4 if type == "A" else 6))
    if not addresses:
        return NOTHING
    rng.shuffle(addresses)
    records: list[Record] = []
    stripped = match.alias.stripped
    if stripped is not None and not match.hostname.startswith("*."):
        records.append(Record(name, "CNAME", f"{stripped}.", TTL))
        name = stripped
    records.extend(address_record(name, address, TTL) for address in addresses)
    return Answer(records=tuple(records))


def find(name: str, client: Workload, directory: ServiceDirectory, naming: Naming) -> Match | None:
    """The service that ``client`` means by ``name``, if it is one of the mesh."""
    if not name or "\\" in name:  # the root; and labels with dots in them, which no service has
        return None
    search = naming.search
    if search is None:
        search = search_domains(client.namespace, naming.domain)
    for alias in aliases(name, client.namespace, naming.domain, search):
        for hostname in (alias.name, *wildcards(alias.name)):
            service = best(_candidates(hostname, client, directory, naming), client, naming)
            if service is not None:
                return Match(service, hostname, alias)
    return None


def best(services: Iterable[Service], client: Workload, naming: Naming) -> Service | None:
    """Of services with one hostname: that of the client's namespace, a canonical, a preferred, the first."""

    def rank(service: Service) -> int:
        if service.namespace == client.namespace:
            return 0
        if service.canonical:
            return 1
        return 2 if service.namespace == naming.preferred_namespace else 3

    return min(services, key=rank, default=None)


def _candidates(
    hostname: str, client: Workload, directory: ServiceDirectory, naming: Naming
) -> Iterator[Service]:
    for service in directory.services(hostname):
        visible = service.visibility == "Public" or service.namespace == client.namespace
        # Without an address of its own a service is Kubernetes' headless one, or has its names elsewhere.
        if visible and (service.vips or hostname.endswith(f".svc.{naming.domain}")):
            yield service


def _addresses(
    service: Service, client: Workload, directory: ServiceDirectory, version: int
) -> Iterator[Address]:
    if service.vips:
        for vip in service.vips:
            if vip.network == client.network and vip.address.version == version:
                yield vip.address
        return
    for workload in directory.endpoints(service):
        yield from [each for each in workload.addresses if each.version == version][:1]
