"""A service's ports as users write them: an int, a text, a dictionary, `ServicePort`s.

Rules: what comes out is valid, one per port and protocol; what is not is refused with what would do.
Does not belong here: which node port a service gets (see `service_model`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias, cast

from netwarren.errors import ConfigurationError
from netwarren.topology.naming import check_name
from netwarren.topology.services import Protocol, ServicePort

# What users may write.
PortArgument: TypeAlias = int | str | ServicePort
PortsArgument: TypeAlias = PortArgument | Mapping[int | str, int] | Iterable[PortArgument]
NodePortsArgument: TypeAlias = bool | Mapping[int | str, int]

_PROTOCOLS = ("tcp", "udp")
_REMEDY = "write ports like {80: 8080}, 80, '53/udp', or ServicePort(53, 5353, 'udp')"
_LAST_PORT = 65535


def parse_ports(value: PortsArgument) -> tuple[ServicePort, ...]:
    """``ports=`` as `ServicePort`s, in order; raises `ConfigurationError`, and `InvalidName` for a name.

    A port that names no target has the same one behind it; one that names no protocol is TCP.
    """
    if isinstance(value, Mapping):
        ports = [replace(_port(key), target=target) for key, target in value.items()]
    elif isinstance(value, (int, str, ServicePort)):
        ports = [_port(value)]
    else:
        try:
            ports = [_port(each) for each in value]
        except TypeError:
            raise ConfigurationError(f"ports={value!r} are no ports; {_REMEDY}") from None
    seen: set[object] = set()
    for port in ports:
        _check(port)
        for unique in filter(None, ((port.port, port.protocol), port.name)):
            if unique in seen:
                what = f"{port.port}/{port.protocol}" if isinstance(unique, tuple) else f"called {unique!r}"
                raise ConfigurationError(f"two ports of the service are {what}; one is enough")
            seen.add(unique)
    return tuple(ports)


def with_node_ports(
    ports: tuple[ServicePort, ...], wanted: NodePortsArgument
) -> dict[ServicePort, int | None]:
    """Which of ``ports`` are to have a node port: the one asked for, or None for any that is free.

    ``wanted`` is True for all, or says which: ``{80: 30080}``. Raises `ConfigurationError`.
    """
    chosen: dict[ServicePort, int | None] = {
        port: port.node_port for port in ports if wanted is True or port.node_port is not None
    }
    if isinstance(wanted, Mapping):
        for key, number in wanted.items():
            asked = _port(key)
            found = [p for p in ports if (p.port, p.protocol) == (asked.port, asked.protocol)]
            if not found:
                have = ", ".join(f"{p.port}/{p.protocol}" for p in ports) or "none"
                raise ConfigurationError(
                    f"node_ports asks for {number} for port {asked.port}/{asked.protocol}, which the service "
                    f"does not have; its ports are: {have}"
                )
            chosen[found[0]] = _number("node port", number)
    return chosen


def describe_port(port: ServicePort) -> str:
    """``80->8080/tcp``, or ``80/tcp`` where both are the same."""
    target = "" if port.target == port.port else f"->{port.target}"
    return f"{port.port}{target}/{port.protocol}"


def _port(value: PortArgument) -> ServicePort:
    if isinstance(value, ServicePort):
        return value
    if isinstance(value, str):
        digits, _, protocol = value.partition("/")
        if not (digits.isascii() and digits.isdigit()):
            raise ConfigurationError(f"{value!r} is no port; {_REMEDY}")
        number, protocol = int(digits), protocol or "tcp"
    else:
        number, protocol = value, "tcp"
    return ServicePort(number, number, cast(Protocol, protocol.lower()))


def _check(port: ServicePort) -> None:
    if port.protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"port {port.port}/{port.protocol}: {port.protocol!r} is no protocol that services carry here; "
            "'tcp' and 'udp' are"
        )
    _number("port", port.port)
    _number("target port", port.target)
    if port.name:
        check_name("service port", port.name)


def _number(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LAST_PORT:
        raise ConfigurationError(f"{value!r} is no {what}; one is a number from 1 to {_LAST_PORT}; {_REMEDY}")
    return value
