"""An HTTP service: nginx in front of two backends, found by a service, asked by curl."""

import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from netwarren import Cluster, Pod, port

# Debian keeps it where an ordinary user's PATH does not lead.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(
    not (NGINX and shutil.which("curl")), reason="nginx and curl are not installed"
)

CONFIGURATION = """
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream backends {{
        server backend-a:8080 max_fails=1;
        server backend-b:8080 max_fails=1;
    }}
    server {{
        listen 80;
        location / {{ proxy_pass http://backends; proxy_connect_timeout 1s; }}
    }}
}}
"""


def serve(name: str, ready: Callable[[], None]) -> None:
    """A backend: answers with its name."""

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


@pytest.fixture
def backends(cluster: Cluster) -> list[Pod]:
    pods = [cluster.add_pod("backend-a", node="node-a"), cluster.add_pod("backend-b", node="node-b")]
    for pod in pods:
        pod.start(serve, pod.name)
    return pods


@pytest.fixture
def user(cluster: Cluster, backends: list[Pod], tmp_path: Path) -> Pod:
    """Somebody who asks http://web, behind which nginx asks the backends."""
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(directory=tmp_path))
    proxy = cluster.add_pod("nginx")
    proxy.popen([NGINX or "nginx", "-c", f"{tmp_path}/nginx.conf"], ready=port(80))
    cluster.add_service("web", pods=[proxy], ports=80)
    return cluster.add_pod("user", node="node-b")


def get(user: Pod) -> str:
    return user.check_output(["curl", "--silent", "--show-error", "--fail", "http://web"], timeout=10)


def test_both_backends_take_their_turns(user: Pod) -> None:
    assert {get(user) for _ in range(4)} == {"backend-a", "backend-b"}


def test_when_one_backend_is_gone_the_other_answers(user: Pod, backends: list[Pod]) -> None:
    backends[0].remove()
    assert {get(user) for _ in range(4)} == {"backend-b"}
