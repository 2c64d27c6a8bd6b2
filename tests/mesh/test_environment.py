"""A ztunnel's environment, written and read."""

import pytest

from netwarren.errors import MeshConfigError
from netwarren.mesh.config import Http2Settings, ProxyConfig
from netwarren.mesh.environment import Environment, read, variables_of
from netwarren.mesh.inpod.zds import WorkloadInfo

OWN = WorkloadInfo("ztunnel-node-a", "istio-system", "ztunnel")


def test_an_empty_one_has_ztunnels_defaults() -> None:
    found = read({})
    assert found.config == ProxyConfig(require_original_source=None)
    assert found.own is None
    assert found.agent_path == "/var/run/ztunnel/ztunnel.sock"
    assert found.ca_address == "https://localhost:15012"
    assert found.auth_token == "./var/run/secrets/tokens/istio-token"
    assert (found.mesh_path, found.fake_ca) == ("", False)


@pytest.mark.parametrize(
    "config",
    [
        ProxyConfig(),
        ProxyConfig(
            node="node-a",
            cluster_id="one",
            cluster_domain="example.org",
            trust_domain="td",
            network="net",
            packet_mark=7,
            require_original_source=False,
            dns_proxy=False,
            localhost_app_tunnel=False,
            response_baggage=False,
            ipv6=False,
            http2=Http2Settings(stream_window=1 << 20, connection_window=2 << 20, frame_size=1 << 15),
            pool_max_streams=5,
            pool_idle=0.25,
            drain_deadline=1.5,
            certificate_lifetime=3600.0,
            crl_path="/run/crl.pem",
            log_format="json",
            tls12=True,
            port_reuse=False,
            preferred_namespace="infra",
        ),
        ProxyConfig(mode="dedicated", require_original_source=False),
    ],
)
def test_what_is_written_is_read_back(config: ProxyConfig) -> None:
    told = Environment(
        config,
        OWN,
        agent_path="/run/agent",
        mesh_path="/run/mesh.yaml",
        xds_address="https://127.0.0.1:2",
        xds_roots="/run/xds-roots",
        instance_ip="10.0.0.1",
        metadata={"ISTIO_VERSION": "1.30", "DNS_CAPTURE_MORE": "x"},
        ca_address="https://127.0.0.1:1",
        ca_roots="/run/roots",
        log_levels="warn,access=debug",
        auth_token="/run/token",
    )
    assert read(variables_of(told)) == told


def test_there_is_no_control_plane_unless_one_is_named() -> None:
    assert variables_of(Environment())["XDS_ADDRESS"] == ""


def test_a_dedicated_one_says_whom_it_carries() -> None:
    told = Environment(ProxyConfig(mode="dedicated"), WorkloadInfo("web", "prod", "web-sa"))
    assert variables_of(told)["PROXY_WORKLOAD_INFO"] == "prod/web/web-sa"
    with pytest.raises(MeshConfigError, match="needs PROXY_WORKLOAD_INFO"):
        read({"PROXY_MODE": "dedicated"})
    with pytest.raises(MeshConfigError, match="which 'web' is not"):
        read({"PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "web"})


def test_a_dedicated_one_has_no_mark_and_keeps_no_addresses_unless_that_is_said() -> None:
    config = read({"PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "a/b/c"}).config
    assert (config.packet_mark, config.require_original_source) == (None, False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("300ms", 0.3), ("1h 30m", 5400.0), ("1m+30s", 90.0), ("2d", 172800.0), ("1.5s", 1.5)],
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    assert read({"SECRET_TTL": text}).config.certificate_lifetime == seconds


@pytest.mark.parametrize(("given", "kept"), [("60", 55.0), ("11", 6.0), ("10", 9.0), ("1", 1.0)])
def test_of_kubernetes_grace_period_a_little_is_kept_back(given: str, kept: float) -> None:
    assert read({"TERMINATION_GRACE_PERIOD_SECONDS": given}).config.drain_deadline == kept
    both = {"TERMINATION_GRACE_PERIOD_SECONDS": given, "CONNECTION_TERMINATION_DEADLINE": "3s"}
    assert read(both).config.drain_deadline == 3.0


def test_istios_name_of_the_cluster_goes_first() -> None:
    assert read({"CLUSTER_ID": "a", "ISTIO_META_CLUSTER_ID": "b"}).config.cluster_id == "b"


def test_what_it_cannot_do_is_refused_and_not_passed_over() -> None:
    assert read({"UNSTABLE_ENABLE_SOCKS5": "false"}) == read({})
    with pytest.raises(MeshConfigError, match="does not speak SOCKS5"):
        read({"UNSTABLE_ENABLE_SOCKS5": "true"})


def test_levels_of_the_log_are_written_as_rust_has_them() -> None:
    assert read({"RUST_LOG": "debug"}).log_levels == "debug"
    assert read({"RUST_LOG": ""}).log_levels == "info"
    with pytest.raises(MeshConfigError, match=r"^RUST_LOG='loud': 'loud' is no level"):
        read({"RUST_LOG": "loud"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROXY_MODE", "sidecar"),
        ("IPV6_ENABLED", "yes"),
        ("ISTIO_META_DNS_CAPTURE", ""),
        ("PACKET_MARK", "0"),
        ("PACKET_MARK", "0x539"),
        ("HTTP2_FRAME_SIZE", "-1"),
        ("SECRET_TTL", "1"),
        ("SECRET_TTL", "1 fortnight"),
        ("SECRET_TTL", ""),
    ],
)
def test_what_means_nothing_is_one_error_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(MeshConfigError, match=f"^{name}='{value}': it is "):
        read({name: value})
