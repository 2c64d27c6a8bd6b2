"""Options of a test's cluster: by marker, for a module, by ini; and what is refused."""

import pytest

from tests.plugin.conftest import Session


def test_marker_chooses_families_nodes_and_ranges(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest

        @pytest.mark.cluster(
            families=("ipv6", "ipv4"), nodes=["left", "right"],
            pod_range=["10.64.0.0/16", "fd00:64::/48"], node_range=["192.168.7.0/24", "fd00:7::/64"],
        )
        def test_it(cluster):
            pod = cluster.add_pod("a", node="right")
            assert list(cluster.nodes) == ["right", "left"]
            assert [len(ip.split(":")) > 1 for ip in pod.ips] == [True, False]
            assert pod.ips[0].startswith("fd00:64:") and pod.ips[1].startswith("10.64.")
            assert pod.node.ips[0].startswith("fd00:7:") and pod.node.ips[1].startswith("192.168.7.")

        def test_without(cluster):
            assert sorted(cluster.nodes) == ["node-a", "node-b"]
            assert cluster.add_pod("a").ip.startswith("10.")
        """,
    )
    session.passes(passed=2)


def test_pytestmark_of_a_module_is_for_all_its_clusters(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest

        pytestmark = pytest.mark.cluster(families="ipv6")

        def test_module(module_cluster):
            assert ":" in module_cluster.add_pod("a").ip

        def test_function(cluster):
            assert ":" in cluster.add_pod("a").ip

        @pytest.mark.cluster(families="ipv4", nodes=["only"])
        def test_nearer_marker_wins(cluster):
            assert list(cluster.nodes) == ["only"]
            assert ":" not in cluster.add_pod("a").ip
        """,
    )
    session.passes(passed=3)


def test_nearer_marker_keeps_what_it_does_not_mention(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import pytest

        pytestmark = pytest.mark.cluster(families="ipv6")

        @pytest.mark.cluster(nodes=["only"])
        def test_it(cluster):
            assert list(cluster.nodes) == ["only"]
            assert ":" in cluster.add_pod("a").ip
        """,
    )
    session.passes(passed=1)


def test_ini_is_for_every_cluster_and_markers_go_before_it(session: Session) -> None:
    session.ini(
        "netwarren_families = ipv4 ipv6",
        "netwarren_nodes = x y z",
        "netwarren_pod_range = 10.64.0.0/16 fd00:64::/48",
        "netwarren_node_range = 192.168.7.0/24 fd00:7::/64",
        "netwarren_service_range = 192.168.8.0/24 fd00:8::/112",
    )
    session.file(
        "test_it.py",
        """
        import pytest

        def check(cluster):
            assert sorted(cluster.nodes) == ["x", "y", "z"]
            pod = cluster.add_pod("a", node="y")
            assert pod.ips[0].startswith("10.64.") and pod.ips[1].startswith("fd00:64:")
            assert pod.node.ips[0].startswith("192.168.7.") and pod.node.ips[1].startswith("fd00:7:")

        def test_function(cluster): check(cluster)
        def test_module(module_cluster): check(module_cluster)
        def test_session(session_cluster): check(session_cluster)

        @pytest.mark.cluster(nodes=["only"])
        def test_marker(cluster):
            assert list(cluster.nodes) == ["only"]
            assert len(cluster.add_pod("a").ips) == 2
        """,
    )
    session.passes(passed=4)


def test_map_root_makes_the_test_uid_0(session: Session) -> None:
    session.ini("netwarren_map = root")
    session.file(
        "test_it.py",
        """
        import os

        def test_it(cluster):
            assert os.getuid() == 0
            assert cluster.add_pod("a").check_output(["id", "-u"]) == "0\\n"
        """,
    )
    session.passes(passed=1)


def test_identity_map_is_the_default_and_keeps_uid_and_owners(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import os

        uid = os.getuid()

        def test_it(cluster, tmp_path):
            assert os.getuid() == uid == tmp_path.stat().st_uid
            assert cluster.add_pod("a").check_output(["id", "-u"]) == f"{uid}\\n"
        """,
    )
    session.passes(passed=1)


def test_wrong_marker_is_one_clear_error_of_its_test_alone(session: Session) -> None:
    wrong = {
        "colour='red'": "*ConfigurationError: @pytest.mark.cluster takes egress, families, * by name, not colour",
        "'ipv6'": "*ConfigurationError: @pytest.mark.cluster takes egress, families, * by name, not 'ipv6'",
        "families='ipv5'": "*Error: *ipv5*",
        "pod_range='10.0.0.0/33'": "*Error: *10.0.0.0/33*",
        "nodes=['No_Good']": "*InvalidName: node name 'No_Good' *",
    }
    tests = "".join(
        f"@pytest.mark.cluster({marker})\ndef test_{number}(cluster): pass\n"
        for number, marker in enumerate(wrong)
    )
    session.file("test_it.py", f"import pytest\n{tests}def test_right(cluster): pass\n")
    result = session.run()
    result.assert_outcomes(passed=1, errors=len(wrong))
    assert sum(line.startswith("E  ") for line in result.outlines) == len(wrong)
    result.stdout.fnmatch_lines([f"E  {told}" for told in wrong.values()])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("netwarren_families = ipv7", "*Error: *ipv7*"),
        ("netwarren_map = both", "*ConfigurationError: netwarren_map = 'both' *identity, root or subids*"),
        (
            "netwarren_sandbox = late",
            "*ConfigurationError: netwarren_sandbox = 'late' *auto, early or never*",
        ),
    ],
)
def test_wrong_ini_is_one_clear_error_that_leaves_other_tests_alone(
    session: Session, line: str, told: str
) -> None:
    session.ini(line)
    session.file("test_it.py", "def test_ours(cluster): pass\ndef test_other(): pass\n")
    result = session.run()
    result.assert_outcomes(passed=1, errors=1)
    assert sum(line.startswith("E  ") for line in result.outlines) == 1
    result.stdout.fnmatch_lines([f"E  {told}"])
