"""A mesh in few words, for tests.

Rules: every default is one that no test is about.
Does not belong here: assertions.
"""

from ipaddress import ip_address
from random import Random
from typing import Any

from netwarren.mesh.model import (
    GatewayAddress,
    Identity,
    NamespacedName,
    NetworkAddress,
    Policy,
    Service,
    SocketAddress,
    Workload,
)
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State


def pod(
    name: str, *addresses: str, services: dict[str, dict[int, int]] | None = None, **more: Any
) -> Workload:
    """A pod that takes HBONE; ``services`` is ``{name: {port: target port}}`` in its namespace."""
    namespace = more.pop("namespace", "default")
    given: dict[str, Any] = {
        "uid": f"cluster1//v1/Pod/{namespace}/{name}",
        "protocol": "HBONE",
        "service_account": name,
        **more,
    }
    return Workload(
        name=name,
        namespace=namespace,
        addresses=tuple(map(ip_address, addresses)),
        services={key(each, namespace): ports for each, ports in (services or {}).items()},
        **given,
    )


def service(name: str, *vips: str, ports: dict[int, int] | None = None, **more: Any) -> Service:
    """A service ``name.default.svc.cluster.local`` that has port 80, which is 8080 of its pods."""
    namespace = more.pop("namespace", "default")
    given: dict[str, Any] = {"hostname": hostname(name, namespace), **more}
    return Service(
        name=name,
        namespace=namespace,
        vips=tuple(map(at, vips)),
        ports={80: 8080} if ports is None else ports,
        **given,
    )


def hostname(name: str, namespace: str = "default") -> str:
    return f"{name}.{namespace}.svc.cluster.local"


def key(name: str, namespace: str = "default") -> NamespacedName:
    return NamespacedName(namespace, hostname(name, namespace))


def at(text: str) -> NetworkAddress:
    """``10.0.0.1`` in the default network, or ``network/10.0.0.1``."""
    network, _, address = text.rpartition("/")
    return NetworkAddress(network, ip_address(address))


def to(text: str) -> SocketAddress:
    """``10.0.0.1:80`` or ``[fd00::1]:80``."""
    host, _, port = text.rpartition(":")
    return SocketAddress(ip_address(host.strip("[]")), int(port))


def gateway(where: str | NamespacedName, port: int = 15008) -> GatewayAddress:
    return GatewayAddress(at(where) if isinstance(where, str) else where, port)


def identity(account: str, namespace: str = "default") -> Identity:
    return Identity("cluster.local", namespace, account)


def mesh(*things: Workload | Service | Policy) -> State:
    return State(
        Config(
            tuple(each for each in things if isinstance(each, Workload)),
            tuple(each for each in things if isinstance(each, Policy)),
            tuple(each for each in things if isinstance(each, Service)),
        )
    )


def rng(seed: int = 1) -> Random:
    return Random(seed)
