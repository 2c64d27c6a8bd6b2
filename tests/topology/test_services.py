"""Who is behind a service."""

from netwarren.topology.model import ClusterModel
from netwarren.topology.services import Endpoint, ServicePort, ServiceSpec, endpoints_of

PORTS = (ServicePort(80, 8080),)


def model() -> ClusterModel:
    made = ClusterModel("dual")
    made.add_node("node-a")
    made.add_node("node-b")
    made.add_pod("one", "node-a", labels={"app": "web", "version": "1"})
    made.add_pod("two", "node-b", labels={"app": "web", "version": "2"})
    made.add_pod("three", "node-b", labels={"app": "web"}, namespace="other")
    made.add_pod("four", "node-b")
    return made


def behind(service: ServiceSpec) -> list[str]:
    return [endpoint.pod for endpoint in endpoints_of(service, model().pods.values())]


def test_a_selector_takes_the_pods_of_its_namespace_that_have_all_its_labels() -> None:
    assert behind(ServiceSpec("web", "default", PORTS, selector={"app": "web"})) == ["one", "two"]
    assert behind(ServiceSpec("web", "other", PORTS, selector={"app": "web"})) == ["three"]
    assert behind(ServiceSpec("web", "default", PORTS, selector={"app": "web", "version": "2"})) == ["two"]
    assert behind(ServiceSpec("web", "default", PORTS, selector={"app": "db"})) == []


def test_pods_that_are_named_are_taken_from_any_namespace() -> None:
    assert behind(ServiceSpec("web", "default", PORTS, pods=("four", "three", "gone"))) == ["three", "four"]


def test_an_endpoint_has_its_pods_node_addresses_and_readiness() -> None:
    service = ServiceSpec("web", "default", PORTS, selector={"app": "web"})
    first, second = endpoints_of(service, model().pods.values(), unready={"two"})
    pod = model().pod("one")
    assert first == Endpoint("one", "node-a", tuple(each.ip for each in pod.interfaces), ready=True)
    assert not second.ready
    assert first.address_in(6) == pod.interfaces[1].ip
