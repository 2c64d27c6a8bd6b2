"""Tests that want the host's localhost, beside tests of clusters."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.plugin.conftest import Session

OURS = """
    import socket

    def test_step_in(cluster):
        with cluster.add_pod("a"):
            socket.socket().close()

    def test_step_in_again(cluster):
        pod = cluster.add_pod("a")
        assert pod.check_output(["echo", "hello"]) == "hello\\n"
        with pod:
            pass
"""

OTHERS = """
    import os
    import socket

    def test_server_outside():
        with socket.create_connection(("127.0.0.1", int(os.environ["PORT_OUTSIDE"])), 30) as connection:
            assert connection.recv(5) == b"hello"

    def test_server_of_a_session_fixture(database):
        with socket.create_connection(database, 30) as connection:
            assert connection.recv(5) == b"hello"
"""

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
        yield listening.getsockname()
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server on localhost in this process, as a developer has a database running."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PORT_OUTSIDE", str(listening.getsockname()[1]))
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("ours", ["test_a.py", "test_z.py"])
@pytest.mark.parametrize("workers", ["", "-n2"])
def test_hosts_localhost_is_there_beside_clusters(session: Session, ours: str, workers: str) -> None:
    session.ini("addopts = -W ignore:unclosed:ResourceWarning", warnings="default")
    session.file("conftest.py", DATABASE)
    session.file(ours, OURS)
    session.file("test_m.py", OTHERS)
    session.passes(*([workers] if workers else []), plugins="xdist", passed=4)


@pytest.mark.usefixtures("server")
def test_tests_keep_their_order_but_for_those_of_clusters_which_come_last(session: Session) -> None:
    session.file("test_a.py", OURS)
    session.file("test_m.py", "def test_1(): pass\ndef test_2(tmp_path): pass\ndef test_3(): pass\n")
    result = session.passes("-v", passed=5)
    result.stdout.fnmatch_lines(
        [
            f"*::{name} PASSED*"
            for name in ("test_1", "test_2", "test_3", "test_step_in", "test_step_in_again")
        ]
    )


@pytest.mark.usefixtures("server")
def test_one_test_has_both_as_long_as_it_does_not_step_in_itself(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import os, socket

        def test_it(cluster):
            pod = cluster.add_pod("a")
            assert pod.run(os.readlink, "/proc/thread-self/ns/net") == f"net:[{pod.inode}]"
            pod.check_output(["true"])
            with pod.socket():
                pass
            with socket.create_connection(("127.0.0.1", int(os.environ["PORT_OUTSIDE"])), 30) as connection:
                assert connection.recv(5) == b"hello"
        """,
    )
    session.passes(passed=1)


def test_other_test_that_fails_after_stepping_in_is_told_why_localhost_is_not_there(session: Session) -> None:
    session.file(
        "conftest.py",
        """
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_collection_modifyitems(items):
            yield
            items.reverse()  # as pytest-xdist's worksteal may do
        """,
    )
    session.file("test_it.py", "def test_b(): assert 0\ndef test_a(cluster):\n    with cluster.root: pass\n")
    result = session.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- netwarren -*", "*127.0.0.1 is not the host's*"])


def test_other_test_that_fails_before_any_stepping_in_is_told_nothing(session: Session) -> None:
    session.file("test_it.py", "def test_b(): assert 0\ndef test_a(cluster):\n    with cluster.root: pass\n")
    result = session.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*127.0.0.1*")
