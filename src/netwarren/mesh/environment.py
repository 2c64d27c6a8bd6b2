"""A ztunnel's environment: the variables that configure one, as data; written for a program and read by ours.

Rules: pure; names, formats and defaults are those of Istio's ztunnel (`src/config.rs`); what is written reads back the
same; a value that means nothing is one `MeshConfigError` that names its variable.
Does not belong here: what the options do (see `config`), starting programs (see `netwarren.cluster`).
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from netwarren.errors import MeshConfigError, MeshError
from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.control.credentials import TOKEN_PATH
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.telemetry.log import Levels

T = TypeVar("T")

AGENT_PATH = "/var/run/ztunnel/ztunnel.sock"
"""Where a node's agent listens, unless INPOD_UDS says otherwise."""
CA_ADDRESS = "https://localhost:15012"
INSTANCE_IP = "1.1.1.1"
"""What a ztunnel says of itself that was not told its address."""

ROOTS = "./var/run/secrets/istio/root-cert.pem"
"""Where istiod's roots are in a pod."""

_METADATA = "ISTIO_META_"
_CONFIG = {"ISTIO_META_CLUSTER_ID", "ISTIO_META_DNS_CAPTURE"}
"""Metadata that is configuration, too."""


@dataclass(frozen=True, slots=True)
class Environment:
    """All that a ztunnel is told at its start.

    ``own`` is the pod that it lives in, which a dedicated one carries; ``instance_ip`` is its address, and ``metadata``
    what else its control plane is told of it. ``xds_address`` is where discovery is served, empty for nowhere; there ours
    reads ``mesh_path``, a file of the local configuration (`state.local_config`). ``xds_roots`` and ``ca_roots`` are files
    of PEM. ``auth_token`` is a file of the token by which both know the proxy, or the token itself. ``fake_ca``:
    certificates are those of an authority of its own, which nobody else trusts. ``log_levels`` are RUST_LOG's (see
    `telemetry.log.Levels`).
    """

    config: ProxyConfig = field(default_factory=ProxyConfig)
    own: WorkloadInfo | None = None
    instance_ip: str = INSTANCE_IP
    metadata: Mapping[str, str] = field(default_factory=dict)
    agent_path: str = AGENT_PATH
    mesh_path: str = ""
    xds_address: str = ""
    xds_roots: str = ROOTS
    ca_address: str = CA_ADDRESS
    ca_roots: str = ROOTS
    auth_token: str = field(default=TOKEN_PATH, repr=False)
    fake_ca: bool = False
    log_levels: str = "info"


# --- written ----------------------------------------------------------------------------------------


def variables_of(environment: Environment) -> dict[str, str]:
    """The variables that say ``environment``."""
    config, own = environment.config, environment.own
    said: dict[str, object] = {
        "PROXY_MODE": config.mode,
        "NODE_NAME": config.node,
        "CLUSTER_ID": config.cluster_id,
        "CLUSTER_DOMAIN": config.cluster_domain,
        "TRUST_DOMAIN": config.trust_domain,
        "NETWORK": config.network,
        "IPV6_ENABLED": config.ipv6,
        "ISTIO_META_DNS_CAPTURE": config.dns_proxy,
        "LOCALHOST_APP_TUNNEL": config.localhost_app_tunnel,
        "ENABLE_RESPONSE_BAGGAGE": config.response_baggage,
        "HTTP2_STREAM_WINDOW_SIZE": config.http2.stream_window,
        "HTTP2_CONNECTION_WINDOW_SIZE": config.http2.connection_window,
        "HTTP2_FRAME_SIZE": config.http2.frame_size,
        "POOL_MAX_STREAMS_PER_CONNECTION": config.pool_max_streams,
        "POOL_UNUSED_RELEASE_TIMEOUT": _written(config.pool_idle),
        "CONNECTION_TERMINATION_DEADLINE": _written(config.drain_deadline),
        "SECRET_TTL": _written(config.certificate_lifetime),
        "LOG_FORMAT": config.log_format,
        "TLS12_ENABLED": config.tls12,
        "INPOD_PORT_REUSE": config.port_reuse,
        "INPOD_ENABLED": config.mode == "shared",  # of older ones
        "INPOD_UDS": environment.agent_path,
        "XDS_ADDRESS": environment.xds_address,
        "CA_ADDRESS": environment.ca_address,
        "FAKE_CA": environment.fake_ca,
        "RUST_LOG": environment.log_levels,
    }
    optional: dict[str, object] = {
        "LOCAL_XDS_PATH": environment.mesh_path,
        "CA_ROOT_CA": environment.ca_roots,
        "XDS_ROOT_CA": environment.xds_roots,
        "INSTANCE_IP": None if environment.instance_ip == INSTANCE_IP else environment.instance_ip,
        "CRL_PATH": None if config.crl_path is None else os.fspath(config.crl_path),
        "AUTH_TOKEN": None if environment.auth_token == TOKEN_PATH else environment.auth_token,
        "PACKET_MARK": config.packet_mark,
        "PREFERED_SERVICE_NAMESPACE": config.preferred_namespace,  # as ztunnel spells it
        "ENABLE_ORIG_SRC": config.require_original_source,
    }
    said |= {name: value for name, value in optional.items() if value not in (None, "")}
    said |= {_METADATA + name: value for name, value in environment.metadata.items()}
    if own is not None:
        said |= {
            "POD_NAME": own.name,
            "POD_NAMESPACE": own.namespace,
            "SERVICE_ACCOUNT": own.service_account,
        }
        if config.mode == "dedicated":
            said["PROXY_WORKLOAD_INFO"] = f"{own.namespace}/{own.name}/{own.service_account}"
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in said.items()
    }


def _written(seconds: float) -> str:
    return f"{seconds:g}s" if seconds == round(seconds) and seconds < 1e6 else f"{round(seconds * 1000)}ms"


# --- read -------------------------------------------------------------------------------------------


def read(variables: Mapping[str, str]) -> Environment:
    """What a ztunnel is told by its environment. Raises `MeshConfigError`."""
    get = _Variables(variables)
    if get("UNSTABLE_ENABLE_SOCKS5", _truth, False):
        raise MeshConfigError("UNSTABLE_ENABLE_SOCKS5='true': this proxy does not speak SOCKS5; leave it out")
    config = ProxyConfig()
    http2 = replace(
        config.http2,
        stream_window=get("HTTP2_STREAM_WINDOW_SIZE", _positive, config.http2.stream_window),
        connection_window=get("HTTP2_CONNECTION_WINDOW_SIZE", _positive, config.http2.connection_window),
        frame_size=get("HTTP2_FRAME_SIZE", _positive, config.http2.frame_size),
    )
    cluster_id = get("CLUSTER_ID", str, config.cluster_id)
    mode = get("PROXY_MODE", _mode, config.mode)
    config = ProxyConfig(
        mode=mode,
        node=get("NODE_NAME", str, config.node),
        cluster_id=get("ISTIO_META_CLUSTER_ID", str, cluster_id),
        cluster_domain=get("CLUSTER_DOMAIN", str, config.cluster_domain),
        trust_domain=get("TRUST_DOMAIN", str, config.trust_domain),
        network=get("NETWORK", str, config.network),
        ipv6=get("IPV6_ENABLED", _truth, config.ipv6),
        dns_proxy=get("ISTIO_META_DNS_CAPTURE", lambda value: _truth(value.lower()), config.dns_proxy),
        localhost_app_tunnel=get("LOCALHOST_APP_TUNNEL", _truth, config.localhost_app_tunnel),
        response_baggage=get("ENABLE_RESPONSE_BAGGAGE", _truth, config.response_baggage),
        http2=http2,
        pool_max_streams=get("POOL_MAX_STREAMS_PER_CONNECTION", _positive, config.pool_max_streams),
        pool_idle=get("POOL_UNUSED_RELEASE_TIMEOUT", _seconds, config.pool_idle),
        drain_deadline=get(
            "CONNECTION_TERMINATION_DEADLINE",
            _seconds,
            get("TERMINATION_GRACE_PERIOD_SECONDS", _grace, config.drain_deadline),
        ),
        certificate_lifetime=get("SECRET_TTL", _seconds, config.certificate_lifetime),
        crl_path=get("CRL_PATH", str, config.crl_path),
        log_format=get("LOG_FORMAT", _log_format, config.log_format),
        tls12=get("TLS12_ENABLED", _truth, config.tls12),
        port_reuse=get("INPOD_PORT_REUSE", _truth, config.port_reuse),
        preferred_namespace=get("PREFERED_SERVICE_NAMESPACE", str, config.preferred_namespace),
        packet_mark=get("PACKET_MARK", _positive, config.packet_mark if mode == "shared" else None),
        # Beside its application a proxy that tried would succeed, and get no reply.
        require_original_source=get("ENABLE_ORIG_SRC", _truth, None if mode == "shared" else False),
    )
    return Environment(
        config=config,
        own=_own(get, config.mode),
        agent_path=get("INPOD_UDS", str, AGENT_PATH),
        mesh_path=get("LOCAL_XDS_PATH", str, ""),
        xds_address=get("XDS_ADDRESS", str, ""),
        xds_roots=get("XDS_ROOT_CA", str, ROOTS),
        instance_ip=get("INSTANCE_IP", str, INSTANCE_IP),
        metadata={
            name.removeprefix(_METADATA): value
            for name, value in variables.items()
            if name.startswith(_METADATA) and name not in _CONFIG
        },
        ca_address=get("CA_ADDRESS", str, CA_ADDRESS),
        ca_roots=get("CA_ROOT_CA", str, ROOTS),
        auth_token=get("AUTH_TOKEN", str, TOKEN_PATH),
        fake_ca=get("FAKE_CA", _truth, False),
        log_levels=get("RUST_LOG", _log_levels, "info"),
    )


def _own(get: "_Variables", mode: Literal["shared", "dedicated"]) -> WorkloadInfo | None:
    if mode == "dedicated":
        said = get("PROXY_WORKLOAD_INFO", str, "")
        parts = said.split("/", 2)
        if len(parts) != 3:
            raise MeshConfigError(
                "PROXY_MODE=dedicated needs PROXY_WORKLOAD_INFO=NAMESPACE/NAME/SERVICEACCOUNT"
                + (f", which {said!r} is not" if said else "")
            )
        return WorkloadInfo(parts[1], parts[0], parts[2])
    name, namespace, account = (
        get(each, str, "") for each in ("POD_NAME", "POD_NAMESPACE", "SERVICE_ACCOUNT")
    )
    return WorkloadInfo(name, namespace, account) if name and namespace and account else None


class _Variables:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __call__(self, name: str, parse: Callable[[str], T], default: Any) -> T:
        """The value of a variable, or ``default`` where there is none."""
        if name not in self._variables:
            found: T = default
            return found
        value = self._variables[name]
        try:
            return parse(value)
        except ValueError as error:
            raise MeshConfigError(f"{name}={value!r}: {error}") from None


def _truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("it is true or false")
    return value == "true"


def _positive(value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) < 1 << 32:
        raise ValueError("it is a number above 0")
    return int(value)


def _mode(value: str) -> Literal["shared", "dedicated"]:
    if value not in ("shared", "dedicated"):
        raise ValueError("it is shared or dedicated")
    return "shared" if value == "shared" else "dedicated"


def _log_format(value: str) -> Literal["plain", "json"]:
    return "json" if value == "json" else "plain"


def _log_levels(value: str) -> str:
    if not value:
        return "info"
    try:
        Levels(value)
    except MeshError as error:
        raise ValueError(str(error)) from None
    return value


def _grace(value: str) -> float:
    """The time to drain of the time that Kubernetes gives a pod: a little less than all of it."""
    seconds = _positive(value)
    return float(max(1, seconds - 5 if seconds > 10 else seconds - 1))


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)(?![a-z])\s*\+?")


def _seconds(value: str) -> float:
    """A length of time: ``5s``, ``300ms``, ``1h 30m``."""
    at, found = 0, 0.0
    while at < len(value):
        part = _PART.match(value, at)
        if part is None:
            break
        found += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not value or at < len(value):
        raise ValueError("it is a length of time, as 5s, 300ms or 1h 30m")
    return found
