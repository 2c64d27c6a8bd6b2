"""The fixtures: which tests share a cluster, which get a fresh one, and when it goes."""

from tests.plugin.conftest import Session


def test_every_test_gets_a_cluster_of_its_own_that_is_closed_afterwards(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        seen = []

        def test_one(cluster):
            assert cluster.name == "test_one"
            assert not cluster.pods
            cluster.add_pod("a")
            seen.append(cluster)

        def test_two(cluster):
            assert not cluster.pods
            cluster.add_pod("a")
            assert seen[0].closed and not cluster.closed
            assert cluster is not seen[0]
        """,
    )
    session.passes(passed=2)


def test_module_cluster_is_shared_by_one_module_and_closed_after_it(session: Session) -> None:
    test = """
        import seen

        def test_one(module_cluster):
            assert not module_cluster.pods
            assert all(other.closed for other in seen.clusters)
            seen.clusters.append(module_cluster)
            module_cluster.add_pod("a")

        def test_two(module_cluster):
            assert module_cluster is seen.clusters[-1]
            assert list(module_cluster.pods) == ["a"]
    """
    session.file("seen.py", "clusters = []\n")
    session.file("test_a.py", test)
    session.file("test_b.py", test)
    session.passes(passed=4)


def test_session_cluster_is_shared_by_all_modules(session: Session) -> None:
    session.file("test_a.py", "def test_a(session_cluster): session_cluster.add_pod('a')\n")
    session.file("test_b.py", "def test_b(session_cluster): assert list(session_cluster.pods) == ['a']\n")
    session.passes(passed=2)


def test_clusters_of_all_scopes_stand_side_by_side_in_one_test(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        def test_it(cluster, module_cluster, session_cluster):
            clusters = [cluster, module_cluster, session_cluster]
            pods = [each.add_pod("a") for each in clusters]
            assert len({pod.ip for pod in pods}) == 1
            assert len({pod.inode for pod in pods}) == 3
        """,
    )
    session.passes(passed=1)


def test_fixture_of_the_users_may_build_upon_the_cluster(session: Session) -> None:
    session.file(
        "conftest.py",
        """
        import pytest

        @pytest.fixture
        def server(cluster):
            return cluster.add_pod("server")
        """,
    )
    session.file(
        "test_it.py",
        """
        def test_in_a_function(server):
            assert repr(server).startswith("<Pod server ")

        class TestIt:
            def test_in_a_class(self, server, cluster):
                assert cluster.pods == {"server": server}
        """,
    )
    session.passes(passed=2)


def test_what_fails_unseen_in_the_background_of_a_pod_is_an_error_of_that_test(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        def test_background(cluster):
            def work():
                raise ValueError("nobody saw me")
            started = cluster.add_pod("a").start(work)
            started._thread.join()

        def test_next(cluster):
            cluster.add_pod("a")
        """,
    )
    result = session.run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_background*", "E  *BackgroundError: *ValueError('nobody saw me')"]
    )
