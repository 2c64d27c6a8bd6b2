"""netwarren: a Kubernetes-shaped network for a test, out of Linux namespaces, without root.

>>> from netwarren import Cluster
>>> with Cluster() as cluster:                           # doctest: +SKIP
...     server = cluster.add_pod("server", node="node-a")
...     client = cluster.add_pod("client", node="node-b")
...     with client:
...         socket.create_connection((cluster.resolve("server"), 8080))
"""

from typing import TYPE_CHECKING, Any

from netwarren.errors import (
    AddressError,
    AddressTaken,
    BackgroundError,
    ClosedError,
    ConfigurationError,
    DuplicateName,
    InvalidName,
    KernelError,
    NetwarrenError,
    ProgramError,
    RangeExhausted,
    SandboxError,
    SteppingError,
    UnknownName,
    UnsupportedByKernel,
)

if TYPE_CHECKING:
    from netwarren.cluster import Cluster, Node, Pod, Root
    from netwarren.cluster.service import Service
    from netwarren.runtime.background import Background
    from netwarren.runtime.program import Program
    from netwarren.runtime.published import Published
    from netwarren.runtime.ready import all_of, http, log, port
    from netwarren.sandbox import Sandbox
    from netwarren.topology.services import ServicePort

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "AddressTaken",
    "Background",
    "BackgroundError",
    "ClosedError",
    "Cluster",
    "ConfigurationError",
    "DuplicateName",
    "InvalidName",
    "KernelError",
    "NetwarrenError",
    "Node",
    "Pod",
    "Program",
    "ProgramError",
    "Published",
    "RangeExhausted",
    "Root",
    "Sandbox",
    "SandboxError",
    "Service",
    "ServicePort",
    "SteppingError",
    "UnknownName",
    "UnsupportedByKernel",
    "__version__",
    "all_of",
    "http",
    "log",
    "port",
]

# Looked up when first used, so that `import netwarren` costs next to nothing.
_PLACES = {
    "Cluster": "netwarren.cluster",
    "Node": "netwarren.cluster",
    "Pod": "netwarren.cluster",
    "Root": "netwarren.cluster",
    "Background": "netwarren.runtime.background",
    "Program": "netwarren.runtime.program",
    "Published": "netwarren.runtime.published",
    "Sandbox": "netwarren.sandbox",
    "Service": "netwarren.cluster.service",
    "ServicePort": "netwarren.topology.services",
    "all_of": "netwarren.runtime.ready",
    "http": "netwarren.runtime.ready",
    "log": "netwarren.runtime.ready",
    "port": "netwarren.runtime.ready",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'netwarren' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
