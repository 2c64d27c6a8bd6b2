"""Many tests at once: workers, processes, the same test many times over."""

import os
import sys

import pytest

from tests.plugin.conftest import Session

MANY = """
    import os
    import socket
    import pytest

    @pytest.mark.parametrize("number", range({tests}))
    def test_same(cluster, number):
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-b")
        assert server.ip == "10.0.1.2"
        with server:
            listening = socket.create_server(("", 8080))
        with listening, client, socket.create_connection((server.ip, 8080), 30) as connection:
            accepted, address = listening.accept()
            with accepted:
                assert address[0] == client.ip
                accepted.sendall(str(number).encode())
            assert connection.recv(10) == str(number).encode()
"""


def test_same_test_runs_many_times_over_in_one_process(session: Session) -> None:
    session.file("test_it.py", MANY.format(tests=30))
    session.passes(passed=30)


@pytest.mark.parametrize("how", ["load", "worksteal", "loadscope"])
def test_same_test_runs_on_four_workers_at_once(session: Session, how: str) -> None:
    session.file("test_a.py", MANY.format(tests=15))
    session.file("test_b.py", MANY.format(tests=15))
    session.passes("-n4", "--dist", how, plugins="xdist", passed=30)


def test_three_sessions_run_at_once(session: Session) -> None:
    session.file("test_it.py", MANY.format(tests=10))
    running = [session.start() for _ in range(3)]
    for each in running:
        assert each.end() == 0, each.text
        assert "10 passed" in each.text


def test_worker_takes_the_sandbox_of_the_controller(session: Session) -> None:
    session.file(
        "test_it.py",
        f"""
        import os

        def test_it(cluster):
            user = os.readlink("/proc/self/ns/user")
            assert user == os.readlink(f"/proc/{{os.getppid()}}/ns/user")
            assert user != {os.readlink("/proc/self/ns/user")!r}
        """,
    )
    session.passes("-n1", plugins="xdist", passed=1)


def test_names_for_ip_netns_do_not_clash_between_workers(session: Session) -> None:
    # Both workers make a cluster called test_it-0 and wait for one another before they look.
    session.file(
        "test_it.py",
        """
        import os, socket, time
        import pytest

        @pytest.mark.parametrize("number", [0, 0])
        def test_it(cluster, number, meet):
            meet()
            assert len([name for name in os.listdir("/run/netns") if name.startswith("test_it")]) == 2
            meet()
        """,
    )
    session.file(
        "conftest.py",
        f"""
        import os
        import pytest

        PLACE = {str(session.path)!r}

        @pytest.fixture
        def meet(worker_id):
            mine, other = ("a", "b") if worker_id == "gw0" else ("b", "a")

            def meet():
                # Opening a fifo waits for the other end; each opens its own for writing once.
                for name in ("a", "b"):
                    os.close(os.open(PLACE + "/" + name, os.O_WRONLY if name == mine else os.O_RDONLY))
            return meet
        """,
    )
    for name in ("a", "b"):
        os.mkfifo(session.path / name)
    session.passes("-n2", plugins="xdist", passed=2)


def test_session_inside_a_session_works(session: Session) -> None:
    session.file("inner.py", "def test_inner(cluster): cluster.add_pod('a')\n")
    command = session.arguments("-q", "inner.py")
    session.file(
        "test_it.py",
        f"""
        import subprocess

        def test_outer(cluster):
            cluster.add_pod("a")
            subprocess.run({command!r}, check=True, timeout=60)
            assert cluster.add_pod("b").check_output({[sys.executable, "-c", "print(7)"]!r}) == "7\\n"
        """,
    )
    session.passes(passed=1)
