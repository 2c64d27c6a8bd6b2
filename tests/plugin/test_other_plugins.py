"""Beside other plugins: reruns, coverage, timeouts, hypothesis."""

import re
import sys

import pytest

from tests.plugin.conftest import Session

MODULE = """
    def inside(number):
        if number:
            return "odd"
        return "even"

    def never():
        return 1
"""

COVERED = """
    import mod

    def test_stepped(cluster):
        with cluster.add_pod("a"):
            assert mod.inside(1) == "odd"

    def test_thread(cluster):
        assert cluster.add_pod("a").run(mod.inside, 0) == "even"
"""


def report(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith("mod.py"))
    return re.sub(r" +", " ", line)


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
def test_coverage_of_code_run_inside_a_pod_is_recorded(session: Session, workers: list[str]) -> None:
    session.file("mod.py", MODULE)
    session.file("test_it.py", COVERED)
    result = session.passes("--cov=mod", "--cov-report=term-missing", *workers, plugins="cov xdist", passed=2)
    assert report(result.outlines) == "mod.py 6 1 83% 7"


def test_coverage_of_the_fork_way_is_recorded(session: Session) -> None:
    session.file(
        "conftest.py",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    )
    session.file("mod.py", MODULE)
    session.file("test_it.py", COVERED)
    result = session.passes("--cov=mod", "--cov-report=term-missing", plugins="cov", passed=2)
    assert report(result.outlines) == "mod.py 6 1 83% 7"


@pytest.mark.parametrize("threads", [0, 1], ids=["in process", "fork way"])
def test_coverage_run_records_too(session: Session, threads: int) -> None:
    session.file(
        "conftest.py",
        f"import threading\nfor _ in range({threads}):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    )
    session.file("mod.py", MODULE)
    session.file("test_it.py", COVERED)
    words = session.arguments("-q")
    assert words[:3] == [sys.executable, "-m", "pytest"]
    session.pytester.run(sys.executable, "-m", "coverage", "run", *words[1:], timeout=60).assert_outcomes(
        passed=2
    )
    result = session.pytester.run(sys.executable, "-m", "coverage", "report", "-m", timeout=60)
    assert report(result.outlines) == "mod.py 6 1 83% 7"


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
def test_rerun_gets_a_fresh_cluster(session: Session, workers: list[str]) -> None:
    session.file(
        "test_it.py",
        """
        seen = []

        def test_flaky(cluster):
            seen.append(cluster)
            assert not cluster.pods
            with cluster.add_pod("a"):
                assert len(seen) == 3

        def test_after(cluster):
            assert not cluster.pods
        """,
    )
    result = session.run("--reruns=2", *workers, plugins="rerunfailures xdist")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert "2 rerun" in result.stdout.str()


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_timeout_ends_a_test_that_waits_inside_a_pod(session: Session, method: str) -> None:
    session.file(
        "test_it.py",
        """
        import os, socket

        def test_passes(cluster):
            with cluster.add_pod("a"):
                pass

        def test_waits(cluster):
            with cluster.add_pod("a"):
                listening = socket.create_server(("", 80))
                listening.accept()
        """,
    )
    session.ini(warnings="default")
    result = session.run("--timeout=2", f"--timeout-method={method}", plugins="timeout")
    assert result.ret == 1
    if method == "signal":
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["E  *Timeout*2.0*"])
    else:  # which ends the whole process
        result.stdout.fnmatch_lines(["*+ Timeout +*"])


def test_timeout_of_the_thread_method_ends_the_fork_way_with_its_status(session: Session) -> None:
    session.file(
        "conftest.py",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    )
    session.file("test_it.py", "import threading\ndef test_waits(cluster): threading.Event().wait()\n")
    result = session.run("--timeout=2", "--timeout-method=thread", plugins="timeout")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*+ Timeout +*"])


def test_hypothesis_runs_its_examples_in_one_cluster(session: Session) -> None:
    session.file(
        "test_it.py",
        """
        from hypothesis import HealthCheck, given, settings, strategies

        @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(strategies.integers(0, 10**9))
        def test_it(cluster, number):
            cluster.add_pod(f"pod-{len(cluster.pods)}")
        """,
    )
    session.passes(plugins="hypothesis", passed=1)
