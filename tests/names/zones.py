"""A cluster as data, for tests of what its names are."""

from ipaddress import ip_address

from netwarren.names.answer import Answer, Question, decide
from netwarren.names.faults import Fault
from netwarren.names.kubernetes import Asker, Snapshot, records
from netwarren.names.records import Record, Zone
from netwarren.topology.model import ClusterModel
from netwarren.topology.services import ServicePort, ServiceSpec, endpoints_of

SVC = "default.svc.cluster.local"


def snapshot(*services: ServiceSpec, families: object = "dual", unready: tuple[str, ...] = ()) -> Snapshot:
    """node-a with web-0 and web-1 (app=web), node-b with client, and api in the namespace prod."""
    model = ClusterModel(families)  # type: ignore[arg-type]
    model.add_node("node-a")
    model.add_node("node-b")
    for name in ("web-0", "web-1"):
        model.add_pod(name, "node-a", labels={"app": "web"})
    model.add_pod("client", "node-b")
    model.add_pod("api", "node-b", namespace="prod")
    pods = tuple(model.pods.values())
    return Snapshot(
        model.families,
        model.root,
        tuple(model.nodes.values()),
        pods,
        tuple((service, endpoints_of(service, pods, unready)) for service in services),
    )


def zone(*services: ServiceSpec, added: tuple[Record, ...] = (), **options: object) -> Zone:
    return Zone([*records(snapshot(*services, **options)), *added])  # type: ignore[arg-type]


def service(name: str = "web", *, headless: bool = False) -> ServiceSpec:
    ips = () if headless else (ip_address("10.96.0.1"), ip_address("fd00:10:96::1"))
    ports = (ServicePort(80, 8080, name="http"), ServicePort(53, 5353, "udp", "dns"), ServicePort(9, 9))
    return ServiceSpec(name, "default", ports, ips, {"app": "web"})


def ask(
    zone: Zone,
    name: str,
    type: str = "A",
    *,
    search: bool = False,
    asker: Asker = Asker("client"),  # noqa: B008
    faults: tuple[Fault, ...] = (),
) -> Answer:
    decision = decide(Question(name, type, search), asker, zone, faults)
    assert decision.answer is not None
    return decision.answer


def values(zone: Zone, name: str, type: str = "A", *, search: bool = False) -> list[str]:
    return [record.value for record in ask(zone, name, type, search=search).records]
