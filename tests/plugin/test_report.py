"""What a failing test says of its cluster."""

from tests.plugin.conftest import Session

FAILING = """
    import sys
    import pytest

    PROGRAM = "import os, sys; print('out of', os.getpid(), flush=True); print('to stderr', file=sys.stderr); sys.exit(3)"

    @pytest.fixture
    def server(cluster):
        server = cluster.add_pod("server", node="node-a")
        with server.socket() as listening:
            listening.bind(("", 8080))
            listening.listen()
            yield server

    def test_fails(cluster, server):
        cluster.add_pod("client", node="node-b")
        server.popen([sys.executable, "-c", PROGRAM]).wait(30)
        assert False, "as it should"

    def test_passes(cluster):
        cluster.add_pod("bystander")
"""

SECTION = [
    "*- netwarren cluster -*",
    "cluster test_fails",
    "*root  br0 172.18.0.1/16",
    "* node-a  eth0 172.18.0.2  pods 10.0.1.0/24",
    "* server  eth0 10.0.1.2",
    "* node-b  eth0 172.18.0.3  pods 10.0.2.0/24",
    "* client  eth0 10.0.2.2",
    "step in*: * shell * test_fails",
    "the root:",
    "  br0 * up * 172.18.0.1/16",
    "  route 10.0.1.0/24 via 172.18.0.2 dev br0*",
    "node 'node-a':",
    "  eth0 * up * 172.18.0.2/16",
    "  route default via 172.18.0.1 dev eth0*",
    "pod 'server':",
    "  eth0 * up * 10.0.1.2/24",
    "  route default via 10.0.1.1 dev eth0*",
    "  listens *0.0.0.0:8080*",
    "  program * exited 3",
    "  | out of *",
    "  | to stderr",
    "pod 'client':",
]


def test_failing_test_shows_topology_routes_sockets_and_output(session: Session) -> None:
    session.file("test_it.py", FAILING)
    result = session.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(SECTION)
    result.stdout.no_fnmatch_line("*bystander*")


def test_failing_test_of_a_worker_shows_the_same(session: Session) -> None:
    session.file("test_it.py", FAILING)
    result = session.run("-n2", plugins="xdist")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(SECTION)
    result.stdout.no_fnmatch_line("*bystander*")


def test_test_that_fails_in_setup_behind_the_cluster_has_the_section_too(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest

        @pytest.fixture
        def broken(cluster):
            cluster.add_pod("half-way")
            raise RuntimeError("in the fixture")

        def test_it(broken): pass
        """,
    )
    result = session.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*- netwarren cluster -*", "* half-way  eth0 *"])


def test_cluster_of_the_users_own_fixture_has_a_section(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest
        from netwarren import Cluster

        @pytest.fixture
        def mine(cluster):
            with Cluster("of-mine") as made:
                yield made

        def test_it(mine): assert 0
        """,
    )
    result = session.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- netwarren cluster -*", "*- netwarren mine -*", "cluster of-mine"])


def test_every_cluster_of_a_failing_test_has_a_section(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        def test_it(cluster, module_cluster, session_cluster):
            assert 0
        """,
    )
    result = session.run()
    result.stdout.fnmatch_lines_random(
        [
            "*- netwarren cluster -*",
            "*- netwarren module_cluster -*",
            "*- netwarren session_cluster -*",
        ]
    )


def test_test_that_closed_its_cluster_fails_without_a_section(session: Session) -> None:
    session.file("test_it.py", "def test_it(cluster):\n    cluster.close()\n    assert 0\n")
    result = session.run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*- netwarren cluster -*")


def test_flooding_program_is_cut_to_its_last_lines(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import sys

        def test_it(cluster):
            pod = cluster.add_pod("loud")
            pod.popen([sys.executable, "-c", "for n in range(100000): print('line', n)"]).wait(30)
            assert 0
        """,
    )
    result = session.run()
    result.stdout.fnmatch_lines(["  | ... * lines before these", "  | line 99999"])
    assert sum(line.startswith("  | line ") for line in result.outlines) == 40
