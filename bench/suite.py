"""A suite of pytest: as many tests as wanted, each with one node and three pods, in one process and in several.

Rules: pytest's own times of its tests (`pytest.TestReport`), taken down where they come together; only the
plugins that are needed; a suite that does not pass measures nothing.
Does not belong here: start-up (see `startup`).
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Series

OURS = ("-p", "netwarren.pytest_plugin")

TEST = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it({fixture}number):
    {body}
"""

CLUSTER = TEST.replace("{fixture}", "cluster, ").replace(
    "{body}", 'for name in ("one", "two", "three"): cluster.add_pod(name, node="node-a")'
)
BARE = TEST.replace("{fixture}", "").replace("{body}", "pass")

CONFTEST = """
import json, os

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times())

class Times:
    def __init__(self):
        self.start, self.stop, self.took, self.failed = [], [], {}, 0

    def pytest_runtest_logreport(self, report):
        self.start.append(report.start)
        self.stop.append(report.stop)
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration * 1e3
        self.failed += report.failed

    def pytest_sessionfinish(self):
        if self.stop:
            took = {"ms": list(self.took.values()), "seconds": max(self.stop) - min(self.start)}
            with open(os.environ["BENCH_TIMES"], "w") as file:
                json.dump(took, file)
"""


@dataclass
class Suite:
    """One way to run the suite; what each test took, in ms, and tests in a second, by turns."""

    name: str
    arguments: Sequence[str]
    text: str = CLUSTER
    tests_ms: Series = field(default_factory=Series)
    rate: Series = field(default_factory=Series)

    def run(self, tests: int) -> None:
        """One turn of ``tests`` tests. Raises SystemExit where they do not pass."""
        with tempfile.TemporaryDirectory() as place:
            Path(place, "conftest.py").write_text(CONFTEST)
            Path(place, "test_it.py").write_text(self.text.replace("{tests}", str(tests)))
            times = Path(place, "times.json")
            done = pytest_session([*self.arguments, "test_it.py"], place, {"BENCH_TIMES": str(times)})
            if done.returncode or not times.exists():
                raise SystemExit(f"the suite {self.name} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
            took = json.loads(times.read_text())
        self.tests_ms.turns.append(took["ms"])
        self.rate.turns.append([tests / took["seconds"]])


def suites(workers: Sequence[int]) -> list[Suite]:
    """In one process, bare, and in as many processes as ``workers`` says."""
    found = [Suite("one process", OURS), Suite("bare pytest, empty tests", (), BARE)]
    for count in workers:
        found.append(Suite(f"-n {count}", [*OURS, "-p", "xdist", "-n", str(count)]))
    return found


def pytest_session(
    arguments: Sequence[str], place: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run pytest quietly in ``place``, with none of the plugins that happen to be installed."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={place}", *arguments]
    whole = {**clean_environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(env or {})}
    return subprocess.run(words, cwd=place, env=whole, capture_output=True, text=True, check=False)


def clean_environment() -> dict[str, str]:
    """Ours, with compiled modules in a place of this run: whoever owns those that are installed may have kept none."""
    whole = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    whole.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**whole, "PYTHONPYCACHEPREFIX": _bytecode().name}


@functools.cache
def _bytecode() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="netwarren-bench-")
