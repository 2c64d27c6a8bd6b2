"""netwarren_sandbox = auto, early, never: when a session enters."""

import os

from tests.plugin.conftest import Session

WHERE = """
    import os
    from pathlib import Path

    def where():
        return os.readlink("/proc/self/ns/user")

    COLLECTED = where()
    OUTSIDE = {outside!r}
"""


def outside() -> str:
    return os.readlink("/proc/self/ns/user")


def test_auto_enters_after_collection_and_before_the_first_test(session: Session) -> None:
    session.file(
        "test_it.py",
        WHERE.format(outside=outside())
        + """
    def test_other():
        assert COLLECTED == OUTSIDE != where()

    def test_ours(cluster):
        assert COLLECTED == OUTSIDE != where()
    """,
    )
    session.passes(passed=2)


def test_early_enters_before_collection_whatever_the_tests_are(session: Session) -> None:
    session.ini("netwarren_sandbox = early")
    session.file(
        "test_it.py",
        WHERE.format(outside=outside())
        + """
    def test_other():
        assert OUTSIDE != COLLECTED == where()
    """,
    )
    session.passes(passed=1)


def test_early_enters_in_the_controller_so_that_workers_are_inside(session: Session) -> None:
    session.ini("netwarren_sandbox = early")
    session.file(
        "test_it.py",
        WHERE.format(outside=outside())
        + """
    def test_other():
        assert OUTSIDE != COLLECTED == where()
    """,
    )
    session.passes("-n1", plugins="xdist", passed=1)


def test_never_refuses_clusters_and_nothing_else(session: Session) -> None:
    session.ini("netwarren_sandbox = never")
    session.file(
        "test_it.py",
        WHERE.format(outside=outside())
        + """
    def test_other():
        assert OUTSIDE == where()

    def test_ours(cluster):
        pass
    """,
    )
    result = session.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E  *needs a cluster, and netwarren_sandbox = never forbids it"])


def test_never_holds_under_xdist_too(session: Session) -> None:
    session.ini("netwarren_sandbox = never")
    session.file("test_it.py", "def test_ours(cluster): pass\n")
    result = session.run("-n1", plugins="xdist")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E  *needs a cluster, and netwarren_sandbox = never forbids it"])


REFUSED = """
    import errno

    from netwarren.errors import KernelError
    from netwarren.kernel import userns

    def refuse(*arguments):
        raise KernelError("create a user namespace", errno.EPERM)

    userns.enter = refuse
"""

TWO = "def test_other(): pass\ndef test_ours(cluster): pass\n"


def test_refusal_is_told_with_its_remedy_by_the_tests_that_need_the_sandbox_alone(session: Session) -> None:
    session.file("conftest.py", REFUSED)
    session.file("test_it.py", TWO)
    result = session.run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E  *SandboxError: cannot create a user namespace *(EPERM): *Remedy: *"])


def test_refusal_in_the_controller_leaves_other_tests_of_the_workers_alone(session: Session) -> None:
    session.file("conftest.py", REFUSED)
    session.file("test_it.py", TWO)
    result = session.run("-n1", plugins="xdist")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["E  *SandboxError: *worker of pytest-xdist*run without -n to see the refusal"]
    )


def test_refusal_of_an_early_entry_is_one_line(session: Session) -> None:
    session.ini("netwarren_sandbox = early")
    session.file("conftest.py", REFUSED)
    session.file("test_it.py", TWO)
    result = session.run()
    assert result.ret == 4
    told = [line for line in result.errlines if line]
    assert len(told) == 1
    assert told[0].startswith("ERROR: netwarren_sandbox = early: cannot create a user namespace")
    assert "Remedy: " in told[0]


def test_worker_that_inherited_no_sandbox_tells_the_remedy(session: Session) -> None:
    # The fixture is asked for by a computed name in a plugin that no scan of the session's files sees.
    session.file(
        "elsewhere/computed.py",
        """
        import pytest

        @pytest.fixture
        def network(request):
            return request.getfixturevalue("clus" + "ter")
    """,
    )
    session.file("inside/pytest.ini", "[pytest]\npythonpath = ../elsewhere\n")
    session.file("inside/test_it.py", "def test_it(network): network.add_pod('a')\n")
    arguments = ["-p", "computed", "--rootdir=inside", "-c", "inside/pytest.ini", "inside"]
    alone = session.run(*arguments)
    alone.assert_outcomes(passed=1)
    result = session.run("-n1", *arguments, plugins="xdist")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["E  *SandboxError: *worker of pytest-xdist*Remedy: put `netwarren_sandbox = early` into *"]
    )
    early = session.run("-n1", "-o", "netwarren_sandbox=early", *arguments, plugins="xdist")
    early.assert_outcomes(passed=1)
