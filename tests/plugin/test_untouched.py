"""Sessions that use nothing of ours: the process is as it would be, and little is imported."""

import os

from tests.plugin.conftest import Session

# In these files nothing may look as if somebody wanted a cluster of ours.
AS_OUTSIDE = """
    import os, sys

    def test_namespaces():
        for kind, outside in {namespaces!r}.items():
            assert os.readlink("/proc/self/ns/" + kind) == outside

    def test_modules():
        ours = {{name for name in sys.modules if name.split(".")[0] == {package!r}}}
        assert ours <= {{{package!r}, {package!r} + ".pytest_plugin", {package!r} + ".errors"}}
"""


def as_outside() -> str:
    kinds = ("user", "mnt", "net", "pid")
    namespaces = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    # The name in two pieces, so that the workers' scan has nothing to find in the file.
    text = AS_OUTSIDE.format(namespaces=namespaces, package="PACKAGE")
    return text.replace("'PACKAGE'", "'net' + 'warren'")


def test_session_without_our_fixtures_keeps_its_namespaces_and_imports_nothing_of_ours(
    session: Session,
) -> None:
    session.file("test_it.py", as_outside())
    session.passes(passed=2)


def test_workers_without_our_fixtures_do_too(session: Session) -> None:
    session.file("test_it.py", as_outside())
    session.passes("-n2", plugins="xdist", passed=2)


def test_users_own_fixture_called_cluster_is_left_alone(session: Session) -> None:
    own = """
    import pytest

    @pytest.fixture
    def cluster():
        return "mine"

    def test_own(cluster):
        assert cluster == "mine"
    """
    session.file("test_it.py", as_outside() + own)
    session.passes(passed=3)
    session.passes("-n2", plugins="xdist", passed=3)


def test_own_fixture_in_a_conftest_above_is_left_alone_under_xdist(session: Session) -> None:
    session.file("conftest.py", "import pytest\n@pytest.fixture\ndef cluster(): return 'mine'\n")
    session.file(
        "deep/down/test_it.py",
        as_outside() + "\n    def test_own(cluster):\n        assert cluster == 'mine'\n",
    )
    session.passes("-n1", "deep/down", plugins="xdist", passed=3)


def test_collecting_alone_enters_nothing(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import os

        def test_it(cluster): pass
        """,
    )
    session.file(
        "conftest.py",
        f"""
        import os

        def pytest_sessionfinish():
            assert os.readlink("/proc/self/ns/user") == {os.readlink("/proc/self/ns/user")!r}
            print("left as it was")
        """,
    )
    for arguments, plugins in (((), ""), (("-n2",), "xdist")):
        result = session.run("--collect-only", "-q", "-s", *arguments, plugins=plugins)
        assert result.ret == 0
        result.stdout.fnmatch_lines_random(["test_it.py::test_it", "left as it was"])


def test_deselected_tests_of_ours_enter_nothing(session: Session) -> None:
    session.file("test_ours.py", "def test_ours(cluster): pass\n")
    session.file("test_it.py", as_outside())
    result = session.run("-k", "not ours")
    result.assert_outcomes(passed=2, deselected=1)


def test_plugin_brings_no_module_that_pytest_had_not(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        import sys

        def test_it():
            print("modules:", *sorted(sys.modules), file=sys.__stdout__)
        """,
    )
    with_us = modules(session.passes("-s", passed=1).outlines)
    without = modules(session.passes("-s", "-p", "no:netwarren", passed=1).outlines)
    assert with_us - without == {"netwarren", "netwarren.errors", "netwarren.pytest_plugin"}


def modules(lines: list[str]) -> set[str]:
    (line,) = (line for line in lines if "modules: " in line)
    return set(line.partition("modules: ")[2].split())
