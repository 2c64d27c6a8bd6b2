"""Ports of services, as users may write them."""

from typing import Any

import pytest

from netwarren.errors import ConfigurationError, InvalidName
from netwarren.topology.service_ports import describe_port, parse_ports, with_node_ports
from netwarren.topology.services import ServicePort


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (80, [ServicePort(80, 80)]),
        ("53/udp", [ServicePort(53, 53, "udp")]),
        ("53/UDP", [ServicePort(53, 53, "udp")]),
        ({80: 8080}, [ServicePort(80, 8080)]),
        ({"80": 8080, "53/udp": 5353}, [ServicePort(80, 8080), ServicePort(53, 5353, "udp")]),
        ([80, "80/udp"], [ServicePort(80, 80), ServicePort(80, 80, "udp")]),
        (ServicePort(80, 8080, name="http"), [ServicePort(80, 8080, name="http")]),
        ([ServicePort(80, 8080, name="http"), 443], [ServicePort(80, 8080, name="http"), ServicePort(443, 443)]),
        ((), []),
    ],
)  # fmt: skip
def test_ports_may_be_written_in_several_ways(written: Any, meant: list[ServicePort]) -> None:
    assert list(parse_ports(written)) == meant


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("http", "'http' is no port; write ports like"),
        ("80/sctp", "'sctp' is no protocol"),
        (0, "0 is no port"),
        (65536, "65536 is no port"),
        (True, "True is no port"),
        ({80: 0}, "0 is no target port"),
        ({80: "8080"}, "'8080' is no target port"),
        ([80, {}], "{} is no port"),
        (None, "None are no ports"),
        ([80, "80/tcp"], "two ports of the service are 80/tcp"),
        (
            [ServicePort(1, 1, name="a"), ServicePort(2, 2, name="a")],
            "two ports of the service are called 'a'",
        ),
    ],
)
def test_what_is_no_port_is_refused_with_what_is(written: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_ports(written)


def test_the_name_of_a_port_is_a_label() -> None:
    with pytest.raises(InvalidName, match="service port name 'HTTP'"):
        parse_ports(ServicePort(80, 80, name="HTTP"))


def test_node_ports_are_for_all_ports_for_those_named_or_for_those_that_say_so() -> None:
    web, dns, own = ports = (
        ServicePort(80, 80),
        ServicePort(53, 53, "udp"),
        ServicePort(9, 9, node_port=30009),
    )
    assert with_node_ports(ports, True) == {web: None, dns: None, own: 30009}
    assert with_node_ports(ports, False) == {own: 30009}
    assert with_node_ports(ports, {"53/udp": 30053}) == {dns: 30053, own: 30009}
    with pytest.raises(ConfigurationError, match=r"port 53/tcp.*its ports are: 80/tcp, 53/udp, 9/tcp"):
        with_node_ports(ports, {53: 30053})


def test_a_port_in_words_names_its_target_where_that_is_another() -> None:
    assert describe_port(ServicePort(80, 8080)) == "80->8080/tcp"
    assert describe_port(ServicePort(53, 53, "udp")) == "53/udp"
