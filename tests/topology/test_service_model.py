"""Which address and node ports a service gets, and what it may not ask for."""

from ipaddress import ip_address

import pytest

from netwarren.errors import AddressError, AddressTaken, InvalidName, NetwarrenError, RangeExhausted
from netwarren.topology.pools import NodePortPool
from netwarren.topology.ranges import DEFAULT_RANGES, Ranges
from netwarren.topology.service_model import ServiceModel
from netwarren.topology.services import ServicePort, ServiceSpec

DUAL = (DEFAULT_RANGES[4], DEFAULT_RANGES[6])


def add(model: ServiceModel, name: str, **options: object) -> ServiceSpec:
    return model.add(name, **{"ports": 80, "pods": (), **options})  # type: ignore[arg-type]


def addresses(spec: ServiceSpec) -> list[str]:
    return [str(each) for each in spec.cluster_ips]


def test_services_get_the_lowest_free_addresses_of_each_family() -> None:
    model = ServiceModel(DUAL)
    assert addresses(add(model, "one")) == ["10.96.0.1", "fd00:10:96::1"]
    assert addresses(add(model, "two", cluster_ip="fd00:10:96::9")) == ["10.96.0.2", "fd00:10:96::9"]
    assert addresses(add(model, "three", cluster_ip=["10.96.0.3", "fd00:10:96::3"])) == [
        "10.96.0.3",
        "fd00:10:96::3",
    ]
    model.remove("one")
    assert addresses(add(model, "four")) == ["10.96.0.1", "fd00:10:96::1"]
    assert repr(model) == "<ServiceModel 10.96.0.0/12, fd00:10:96::/112: 3 services>"


def test_families_are_in_the_clusters_order() -> None:
    assert addresses(add(ServiceModel(DUAL[::-1]), "one")) == ["fd00:10:96::1", "10.96.0.1"]


def test_a_refusal_gives_back_what_was_taken_before_it() -> None:
    model = ServiceModel(DUAL)
    add(model, "one", node_ports={80: 30080})
    for wanted in (
        {"cluster_ip": ["10.96.0.2", "fd00:10:96::1"]},
        {"ports": [80, 81], "node_ports": {80: 30000, 81: 30080}},
    ):
        with pytest.raises(AddressTaken, match=r"taken by service one\.default"):
            add(model, "two", **wanted)
    two = add(model, "two", ports=[80, 81], node_ports=True)
    assert addresses(two) == ["10.96.0.2", "fd00:10:96::2"]
    assert [port.node_port for port in two.ports] == [30000, 30001]


def test_node_ports_are_per_protocol_and_come_back_with_the_service() -> None:
    model = ServiceModel(DUAL)
    dns = add(model, "dns", ports=["53/udp", "53/tcp"], node_ports={"53/udp": 30053, 53: 30053})
    assert [port.node_port for port in dns.ports] == [30053, 30053]
    model.remove("dns")
    again = add(model, "dns", ports=ServicePort(53, 53, "udp", node_port=30053))
    assert again.ports == (ServicePort(53, 53, "udp", node_port=30053),)


def test_a_port_that_asks_for_the_lowest_node_port_gets_it_before_those_that_take_any() -> None:
    ports = [ServicePort(80, 80), ServicePort(81, 81, node_port=30000)]
    service = add(ServiceModel(DUAL), "web", ports=ports, node_ports=True)
    assert [port.node_port for port in service.ports] == [30001, 30000]


def test_all_node_ports_taken_is_an_error_that_names_the_range() -> None:
    pool = NodePortPool("udp")
    ports = [pool.take(owner="somebody") for _ in range(2768)]
    assert (ports[0], ports[-1]) == (30000, 32767)
    assert repr(pool) == "<NodePortPool udp: 2768 taken>"
    with pytest.raises(RangeExhausted, match="no udp node port is left in 30000-32767"):
        pool.take(owner="me")
    pool.give_back(31000)
    assert pool.take(owner="me") == 31000


def test_a_headless_service_takes_nothing() -> None:
    model = ServiceModel(DUAL)
    assert addresses(add(model, "none", headless=True, ports=())) == []
    assert addresses(add(model, "one")) == ["10.96.0.1", "fd00:10:96::1"]
    model.remove("none")
    assert list(model.services) == [("default", "one")]


@pytest.mark.parametrize("name", ["a" * 64, "1a", "-a", "a-", "a.b", "A", "", "localhost"])
def test_a_name_that_is_no_rfc_1035_label_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="RFC 1035 label"):
        add(ServiceModel(DUAL), name)


@pytest.mark.parametrize(
    ("services", "sentence"),
    [
        ("fd00:10::/64", r"the pod range fd00:10::/48 overlap; .* such as fd00:10:96::/112"),
        ("fd00:172:18::/112", "the node range fd00:172:18::/64 overlap"),
        ("fd00:169:254:20::/112", r"the name server's address fd00:169:254:20::10/128 overlap"),
        ("fe80::/112", "link-local"),
        ("fd00:1::/127", "/126 or wider would do"),
        ("fd00:1::1/112", "is inside a range"),
        (["fd00:1::/112", "fd00:2::/112"], "ask for one per family"),
    ],
)
def test_a_range_that_cannot_work_is_refused(services: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        ServiceModel(DUAL, services)


def test_a_remedy_for_overlapping_ranges_is_one_that_works() -> None:
    wide = Ranges.parse("10.0.0.0/8", 24, "192.168.0.0/16")
    with pytest.raises(AddressError) as refused:
        ServiceModel([wide])
    remedy = str(refused.value).split("such as ")[1]
    assert addresses(add(ServiceModel([wide], remedy), "web")) == ["172.30.0.1"]


def test_a_service_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    model = ServiceModel(DUAL)
    add(model, "web", namespace="test")
    with pytest.raises(NetwarrenError, match=r"no service is called 'web\.default'; there are: web\.test"):
        model.remove("web")


def test_policies_and_affinity_are_as_kubernetes_has_them() -> None:
    service = add(
        ServiceModel(DUAL),
        "web",
        session_affinity=True,
        internal_traffic_policy="Local",
        external_traffic_policy="local",
    )
    assert (service.affinity, service.internal_policy, service.external_policy) == (10800, "local", "local")


def test_an_address_that_somebody_else_has_is_no_services() -> None:
    others = {ip_address("10.96.0.1"): "the address of the host's name server"}
    model = ServiceModel(DUAL, others=others)
    assert addresses(add(model, "one"))[0] == "10.96.0.2"
    with pytest.raises(AddressError, match=r"10\.96\.0\.1 is the address of the host's name server"):
        add(model, "two", cluster_ip="10.96.0.1")
