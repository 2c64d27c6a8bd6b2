"""The host's localhost from pods, and pods' ports on the host, in real sessions."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.plugin.conftest import Session

DATABASE = """
    import socket, threading
    import pytest

    def serve(listening):
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"hello")

    @pytest.fixture(scope="session")
    def database():
        listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
"""


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server on localhost in this process, as a developer has a database running; its port."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        monkeypatch.setenv("PORT_OUTSIDE", str(port))
        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


STEPPING = """
    import os, socket
    import pytest

    PORT = int(os.environ["PORT_OUTSIDE"])

    def test_this_thread_leaves(cluster):
        with cluster.add_pod("a"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((cluster.host, PORT), 20)

    @pytest.mark.parametrize("again", range(4))
    @pytest.mark.cluster(egress=f"localhost:{PORT}")
    def test_it_reaches_the_host_all_the_same(cluster, again):
        with cluster.add_pod("a"), socket.create_connection((cluster.host, PORT), 20) as connection:
            assert connection.recv(5) == b"hello"

    def test_it_publishes_all_the_same(cluster):
        pod = cluster.add_pod("a")
        with pod:
            assert pod.publish(80).url.startswith("http://127.0.0.1:")
"""


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("workers", ["", "-n2"])
def test_the_marker_opens_a_port_after_the_main_thread_has_left(session: Session, workers: str) -> None:
    session.file("test_it.py", STEPPING)
    session.passes(*([workers] if workers else []), plugins="xdist", passed=6)


def test_the_configuration_opens_ports_for_every_cluster(session: Session, outside: int) -> None:
    session.ini(f"netwarren_egress = localhost:{outside} 198.51.100.0/24")
    session.file(
        "test_it.py",
        """
        import os, socket
        import pytest

        PORT = int(os.environ["PORT_OUTSIDE"])

        def test_it(cluster):
            with cluster.add_pod("a"), socket.create_connection((cluster.host, PORT), 20) as connection:
                assert connection.recv(5) == b"hello"

        @pytest.mark.cluster(egress=None)
        def test_marker_goes_before_it(cluster):
            with cluster.add_pod("a"), pytest.raises(ConnectionRefusedError):
                socket.create_connection((cluster.host, PORT), 20)
        """,
    )
    session.passes(passed=2)


def test_a_server_of_a_session_fixture_is_reached(session: Session) -> None:
    session.ini("addopts = -W ignore:unclosed:ResourceWarning", warnings="default")
    session.file("conftest.py", DATABASE)
    session.file(
        "test_it.py",
        """
        import socket
        from netwarren import Cluster

        def test_it(database, _netwarren_sandbox):
            with Cluster(egress=f"localhost:{database}") as cluster, cluster.add_pod("a") as pod:
                with socket.create_connection((cluster.host, database), 20) as connection:
                    assert connection.recv(5) == b"hello"
        """,
    )
    session.passes(passed=1)


def test_a_failing_test_tells_what_was_open_and_published(session: Session, outside: int) -> None:
    session.file(
        "test_it.py",
        """
        import os, socket
        import pytest

        PORT = int(os.environ["PORT_OUTSIDE"])

        @pytest.mark.cluster(egress=[f"localhost:{PORT}", "*"])
        def test_it(cluster):
            pod = cluster.add_pod("a")
            pod.publish(8080)
            with pod, socket.create_connection((cluster.host, PORT), 20) as connection:
                assert connection.recv(5) == b"goodbye"
        """,
    )
    result = session.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "egress, the host's ports at 172.18.0.1:",
            f"  localhost:{outside}: 1 connections, 0 refused",
            "  [*]: 0 connections, 0 refused",
            "  published at 127.0.0.1:* -> 8080: 0 connections, 0 refused",
        ]
    )


def test_an_egress_that_means_nothing_is_said_with_the_test(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest

        @pytest.mark.cluster(egress="localhost")
        def test_it(cluster): pass
        """,
    )
    result = session.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: egress='localhost' names no port*"])
