"""A mesh as data, for tests of what its names are: the services and workloads of ztunnel's own tests of names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from netwarren.mesh.model import NamespacedName, NetworkAddress, Service, Workload

CLIENT = Workload("client", "client", "ns1", network="nw1", canonical_name="client", canonical_revision="v1")
PREFERRED = "preferred-ns"


@dataclass(frozen=True)
class Directory:
    """All services and workloads in two tuples."""

    all_services: tuple[Service, ...]
    workloads: tuple[Workload, ...] = ()

    def services(self, hostname: str) -> Sequence[Service]:
        return [service for service in self.all_services if service.hostname == hostname]

    def endpoints(self, service: Service) -> Iterable[Workload]:
        return [workload for workload in self.workloads if service.key in workload.services]


def service(hostname: str, namespace: str, *vips: str, **more: Any) -> Service:
    """A service with virtual addresses in the network nw1, or as ``network/address``."""
    addresses = [vip.rpartition("/") for vip in vips]
    return Service(
        hostname.partition(".")[0],
        namespace,
        hostname,
        tuple(NetworkAddress(network or "nw1", ip_address(address)) for network, _, address in addresses),
        ports={80: 80},
        **more,
    )


def kubernetes(name: str, namespace: str, *vips: str, **more: Any) -> Service:
    return service(f"{name}.{namespace}.svc.cluster.local", namespace, *vips, **more)


def workload(name: str, hostname: str, *addresses: str) -> Workload:
    """An endpoint in ns1 of the service of that hostname."""
    return Workload(
        name,
        name,
        "ns1",
        tuple(map(ip_address, addresses)),
        network="nw1",
        services={NamespacedName("ns1", hostname): {80: 80}},
    )


MESH = Directory(
    (
        service("www.google.com", "ns1", "1.1.1.1"),
        kubernetes("productpage", "ns1", "9.9.9.9"),
        kubernetes("example", "ns2", "10.10.10.10"),
        service("everywhere.io", "ns2", "10.10.10.110"),
        service("preferred.io", "ns2", "10.10.10.210"),
        service("everywhere.io", PREFERRED, "10.10.10.111"),
        service("preferred.io", PREFERRED, "10.10.10.211"),
        service("everywhere.io", "ns1", "10.10.10.112"),
        service("canonical.svc", "ns2", "10.10.10.140"),
        service("canonical.svc", PREFERRED, "10.10.10.142"),
        service("canonical.svc", "ns3", "10.10.10.141", canonical=True),
        service("canonical.with.local", "ns2", "10.10.10.151", canonical=True),
        service("canonical.with.local", "ns1", "10.10.10.150"),
        service(
            "details.ns2.svc.cluster.remote",
            "ns2",
            "11.11.11.11",
            "12.12.12.12",
            "13.13.13.13",
            "14.14.14.14",
        ),
        service("ipv4.localhost", "ns1", "2.2.2.2"),
        service("ipv6.localhost", "ns1", "2001:db8::ff00:42:8329"),
        service("dual.localhost", "ns1", "2.2.2.2", "2001:db8::ff00:42:8329"),
        service("*.wildcard", "ns1", "10.10.10.10"),
        service("*.b.wildcard", "ns1", "11.11.11.11"),
        service("*.svc.mesh.company.net", "ns1", "10.1.2.3"),
        kubernetes("nw2-only", "ns1", "nw2/20.20.20.20"),
        kubernetes("both-networks", "ns1", "21.21.21.21", "nw2/22.22.22.22"),
        kubernetes("headless", "ns1"),
        kubernetes("headless-ipv6", "ns1", ip_families="IPv6"),
        kubernetes("headless-ipv4", "ns1", ip_families="IPv4"),
        kubernetes("headless-empty", "ns1"),
        service("headless.example.com", "ns1"),
        service("hidden.io", "ns2", "10.10.10.160", visibility="Namespace"),
        service("mine.io", "ns1", "10.10.10.161", visibility="Namespace"),
        service("shadow.io", "ns2", "10.10.10.162", visibility="Namespace", canonical=True),
        service("shadow.io", "ns3", "10.10.10.163"),
        service("one.hidden-above.io", "ns2", "10.10.10.164", visibility="Namespace"),
        service("*.hidden-above.io", "ns2", "10.10.10.165"),
    ),
    (
        workload("pod-0", "headless.ns1.svc.cluster.local", "30.30.30.30", "2001:db8::30"),
        workload("pod-1", "headless.ns1.svc.cluster.local", "31.31.31.31", "2001:db8::31"),
        workload("pod-2", "headless-ipv6.ns1.svc.cluster.local", "33.33.33.33", "2001:db8::33"),
        workload("pod-3", "headless-ipv4.ns1.svc.cluster.local", "34.34.34.34", "2001:db8::34"),
        workload("outside", "headless.example.com", "32.32.32.32", "2001:db8::32"),
    ),
)


@dataclass(frozen=True)
class Case:
    """A question in ns1, and the records answered, sorted; None is that the name is not the mesh's."""

    says: str
    name: str
    records: tuple[str, ...] | None
    type: str = "A"


GOOGLE, PRODUCT = "www.google.com.", "productpage.ns1."
SVC = "ns1.svc.cluster.local."

CASES = (
    Case("another type of record is passed on", PRODUCT, None, "NS"),
    Case("a host outside Kubernetes that the mesh has", GOOGLE, (f"{GOOGLE} A 1.1.1.1",)),
    Case(
        "a host outside Kubernetes with a search domain behind it",
        GOOGLE + SVC,
        (f"{GOOGLE}{SVC} CNAME {GOOGLE}", f"{GOOGLE} A 1.1.1.1"),
    ),
    Case("a host that the mesh does not have is passed on", "www.bing.com.", None),
    Case("a service by its whole name", f"productpage.{SVC}", (f"productpage.{SVC} A 9.9.9.9",)),
    Case("a service by name and namespace", PRODUCT, (f"{PRODUCT} A 9.9.9.9",)),
    Case("a service by its name", "productpage.", ("productpage. A 9.9.9.9",)),
    Case("a service by its name in other letters", "ProductPage.", ("ProductPage. A 9.9.9.9",)),
    Case("a service by name, namespace and svc", "productpage.ns1.svc.", ("productpage.ns1.svc. A 9.9.9.9",)),
    Case(
        "a service with a search domain behind it",
        PRODUCT + SVC,
        (f"{PRODUCT}{SVC} CNAME {PRODUCT}", f"{PRODUCT} A 9.9.9.9"),
    ),
    Case("an IPv4 service with a search domain has no AAAA", PRODUCT + SVC, (), "AAAA"),
    Case(
        "another namespace's service by name and namespace", "example.ns2.", ("example.ns2. A 10.10.10.10",)
    ),
    Case(
        "another namespace's service by its whole name",
        "example.ns2.svc.cluster.local.",
        ("example.ns2.svc.cluster.local. A 10.10.10.10",),
    ),
    Case(
        "another namespace's service by name, namespace and svc",
        "example.ns2.svc.",
        ("example.ns2.svc. A 10.10.10.10",),
    ),
    Case("another namespace's service by its name is passed on", "example.", None),
    Case(
        "another cluster's service by its whole name",
        "details.ns2.svc.cluster.remote.",
        tuple(f"details.ns2.svc.cluster.remote. A {n}.{n}.{n}.{n}" for n in (11, 12, 13, 14)),
    ),
    Case("another cluster's service by name and namespace is passed on", "details.ns2.", None),
    Case("of both families the one that is asked for: A", "dual.localhost.", ("dual.localhost. A 2.2.2.2",)),
    Case(
        "of both families the one that is asked for: AAAA",
        "dual.localhost.",
        ("dual.localhost. AAAA 2001:db8::ff00:42:8329",),
        "AAAA",
    ),
    Case("an IPv6 host has no A", "ipv6.localhost.", ()),
    Case("an IPv4 host has no AAAA", "ipv4.localhost.", (), "AAAA"),
    Case("a wildcard", "foo.wildcard.", ("foo.wildcard. A 10.10.10.10",)),
    Case("a wildcard below another", "a.b.wildcard.", ("a.b.wildcard. A 11.11.11.11",)),
    Case("a wildcard stands for many labels", "a.c.wildcard.", ("a.c.wildcard. A 10.10.10.10",)),
    Case("a wildcard with a domain", "foo.svc.mesh.company.net.", ("foo.svc.mesh.company.net. A 10.1.2.3",)),
    Case(
        "a wildcard with a namespace and a domain",
        "foo.foons.svc.mesh.company.net.",
        ("foo.foons.svc.mesh.company.net. A 10.1.2.3",),
    ),
    Case(
        "a wildcard with a search domain keeps the name that was asked",
        f"foo.svc.mesh.company.net.{SVC}",
        (f"foo.svc.mesh.company.net.{SVC} A 10.1.2.3",),
    ),
    Case("an address in another network is none", f"nw2-only.{SVC}", ()),
    Case("of two networks the client's", f"both-networks.{SVC}", (f"both-networks.{SVC} A 21.21.21.21",)),
    Case(
        "a headless service has its endpoints' addresses: A",
        f"headless.{SVC}",
        (f"headless.{SVC} A 30.30.30.30", f"headless.{SVC} A 31.31.31.31"),
    ),
    Case(
        "a headless service has its endpoints' addresses: AAAA",
        f"headless.{SVC}",
        (f"headless.{SVC} AAAA 2001:db8::30", f"headless.{SVC} AAAA 2001:db8::31"),
        "AAAA",
    ),
    Case(
        "a headless IPv6 service has AAAA",
        f"headless-ipv6.{SVC}",
        (f"headless-ipv6.{SVC} AAAA 2001:db8::33",),
        "AAAA",
    ),
    Case("a headless IPv6 service has no A", f"headless-ipv6.{SVC}", ()),
    Case("a headless IPv4 service has no AAAA", f"headless-ipv4.{SVC}", (), "AAAA"),
    Case("a headless service without endpoints", f"headless-empty.{SVC}", ()),
    Case("a pod of a headless service is passed on", f"headless.pod0.{SVC}", None),
    Case("a pod of a headless service, short, is passed on", "headless.pod0.ns1.", None),
    Case("a headless host outside is passed on", "headless.example.com.", None),
    Case(
        "the preferred namespace's, where ours has none", "preferred.io.", ("preferred.io. A 10.10.10.211",)
    ),
    Case("our namespace's before the preferred", "everywhere.io.", ("everywhere.io. A 10.10.10.112",)),
    Case("a canonical before the preferred", "canonical.svc.", ("canonical.svc. A 10.10.10.141",)),
    Case(
        "our namespace's before a canonical",
        "canonical.with.local.",
        ("canonical.with.local. A 10.10.10.150",),
    ),
    Case("another namespace's private service is passed on", "hidden.io.", None),
    Case("our own private service", "mine.io.", ("mine.io. A 10.10.10.161",)),
    Case("a private service hides no public one", "shadow.io.", ("shadow.io. A 10.10.10.163",)),
    Case(
        "a private service hides no wildcard",
        "one.hidden-above.io.",
        ("one.hidden-above.io. A 10.10.10.165",),
    ),
    Case("the root is passed on", ".", None),
    Case("a label with a dot in it is passed on", "a\\.wildcard.", None),
)
