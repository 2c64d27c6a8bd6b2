"""What tests of tunnels share: a root, contexts of both ends, pairs of connected sockets."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.mesh.hbone.certificates import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def client_context(authority: Authority) -> ssl.SSLContext:
    return authority.context("client", server=False)


@pytest.fixture(scope="session")
def server_context(authority: Authority) -> ssl.SSLContext:
    return authority.context("server", server=True)


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        yield one, other
