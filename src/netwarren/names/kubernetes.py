"""The records that a cluster has: Kubernetes' DNS-Based Service Discovery, and names of pods and nodes besides.

Rules: pure; records follow from a snapshot, and a snapshot is all they follow from. The specification is
https://github.com/kubernetes/dns/blob/master/docs/specification.md, version 1.1.0.
Does not belong here: records that a user has added, who asks and is answered (see `answer`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from netwarren.names.records import Record, address_record
from netwarren.topology.addresses import Address, Family, Interface
from netwarren.topology.services import Endpoint, ServicePort, ServiceSpec
from netwarren.topology.specs import DEFAULT_NAMESPACE, NodeSpec, PodSpec
from netwarren.topology.wellknown import CLUSTER_DOMAIN, NAME_SERVER

SCHEMA_VERSION = "1.1.0"

_NAME_SERVER_NAME = f"ns.dns.{CLUSTER_DOMAIN}"

# As CoreDNS has them: refresh, retry, expire, and for how long a name that is not there may be remembered.
SOA = Record(CLUSTER_DOMAIN, "SOA", f"{_NAME_SERVER_NAME}. hostmaster.{CLUSTER_DOMAIN}. 1 7200 1800 86400 5")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cluster has at one moment; ``root`` is the root's bridge addresses."""

    families: tuple[Family, ...] = ()
    root: tuple[Interface, ...] = ()
    nodes: tuple[NodeSpec, ...] = ()
    pods: tuple[PodSpec, ...] = ()
    services: tuple[tuple[ServiceSpec, tuple[Endpoint, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the name of a pod, of a node, ``root``, or an address; ``namespace`` is Kubernetes'."""

    name: str
    namespace: str = DEFAULT_NAMESPACE


def askers(snapshot: Snapshot) -> dict[Address, Asker]:
    """Who has which address in the cluster."""
    found: dict[Address, Asker] = {each.ip: Asker("root") for each in snapshot.root}
    found |= {each.address: Asker(node.name) for node in snapshot.nodes for each in node.families}
    found |= {each.ip: Asker(pod.name, pod.namespace) for pod in snapshot.pods for each in pod.interfaces}
    return found


def search_list(namespace: str) -> tuple[str, ...]:
    """What is tried behind a name by programs in a pod of ``namespace``, in that order."""
    return (f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)


def records(snapshot: Snapshot) -> Iterator[Record]:
    """All records of a cluster."""
    yield SOA
    yield Record(CLUSTER_DOMAIN, "NS", f"{_NAME_SERVER_NAME}.")
    yield Record(f"dns-version.{CLUSTER_DOMAIN}", "TXT", f'"{SCHEMA_VERSION}"')
    for family in snapshot.families:
        yield address_record(_NAME_SERVER_NAME, NAME_SERVER[family])
    nodes = {node.name for node in snapshot.nodes}
    for name in ("root", "host"):
        if name not in nodes:
            yield from _named(f"{name}.{CLUSTER_DOMAIN}", (each.ip for each in snapshot.root))
    yield from _back(f"root.{CLUSTER_DOMAIN}", (each.ip for each in snapshot.root))
    for node in snapshot.nodes:
        addresses = [each.address for each in node.families]
        yield from _named(f"{node.name}.{CLUSTER_DOMAIN}", addresses)
        yield from _back(f"{node.name}.{CLUSTER_DOMAIN}", addresses)
    behind: set[Address] = set()
    for service, endpoints in snapshot.services:
        if service.headless:
            ready = [each for each in endpoints if each.ready]
            behind.update(address for each in ready for address in each.addresses)
            yield from _headless(service, ready)
        else:
            yield from _service(service)
    services = {(service.name, service.namespace) for service, _endpoints in snapshot.services}
    for pod in snapshot.pods:
        yield from _pod(pod, (pod.name, pod.namespace) not in services, behind)


def _service(service: ServiceSpec) -> Iterator[Record]:
    name = service_name(service)
    yield from _named(name, service.cluster_ips)
    yield from _back(name, service.cluster_ips)
    for port in service.ports:
        if port.name:
            yield _srv(name, port, port.port, name)


def _headless(service: ServiceSpec, ready: Iterable[Endpoint]) -> Iterator[Record]:
    """A headless service without a ready endpoint has no records, and so its name does not exist."""
    name = service_name(service)
    for endpoint in ready:
        hostname = f"{endpoint.pod}.{name}"
        yield from _named(name, endpoint.addresses)
        yield from _named(hostname, endpoint.addresses)
        yield from _back(hostname, endpoint.addresses)
        for port in service.ports:
            if port.name:  # behind no cluster IP, clients reach the pods' own port
                yield _srv(name, port, port.target, hostname)


def _pod(pod: PodSpec, by_name: bool, behind: set[Address]) -> Iterator[Record]:
    addresses = [each.ip for each in pod.interfaces]
    above = f"{pod.namespace}.pod.{CLUSTER_DOMAIN}"
    for address in addresses:
        for spelling in dict.fromkeys((str(address), address.exploded)):
            yield address_record(f"{_dashes(spelling)}.{above}", address)
    name = f"{pod.name}.{pod.namespace}.svc.{CLUSTER_DOMAIN}"
    if by_name:
        yield from _named(name, addresses)
    else:
        name = f"{_dashes(str(addresses[0]))}.{above}"
    yield from _back(name, (address for address in addresses if address not in behind))


def service_name(service: ServiceSpec) -> str:
    """The whole name of a service."""
    return f"{service.name}.{service.namespace}.svc.{CLUSTER_DOMAIN}"


def _named(name: str, addresses: Iterable[Address]) -> Iterator[Record]:
    return (address_record(name, address) for address in addresses)


def _back(name: str, addresses: Iterable[Address]) -> Iterator[Record]:
    return (Record(address.reverse_pointer, "PTR", f"{name}.") for address in addresses)


def _srv(service: str, port: ServicePort, number: int, target: str) -> Record:
    """Priority and weight are CoreDNS' for a single target."""
    return Record(f"_{port.name}._{port.protocol}.{service}", "SRV", f"0 100 {number} {target}.")


def _dashes(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")
