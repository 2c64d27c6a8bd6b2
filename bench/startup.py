"""What it costs to begin: importing netwarren, the plugin in a session that does not use it, a first cluster.

Rules: whole processes from their start to their end, taking turns; compared with the process of the same turn
without us. Sessions load no plugin but ours.
Does not belong here: what comes after the first test (see `suite`).
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Series
from bench.suite import OURS, clean_environment, pytest_session

UNUSED = "def test_it(): pass\n"
FIRST = "def test_it(cluster): cluster.add_pod('pod')\n"


def start_ups(turns: int) -> dict[str, Series]:
    """Ms of each kind of process, by turns; the first turn, which fills the caches, is not counted."""
    with tempfile.TemporaryDirectory() as place:
        kinds: dict[str, Callable[[], None]] = {
            "python": lambda: _python("pass"),
            "import netwarren": lambda: _python("import netwarren"),
            "from netwarren import Cluster": lambda: _python("from netwarren import Cluster"),
            "pytest": lambda: _session(place, UNUSED),
            "pytest with the plugin, unused": lambda: _session(place, UNUSED, *OURS),
            "pytest with a first cluster": lambda: _session(place, FIRST, *OURS),
        }
        found = {name: Series() for name in kinds}
        for turn in range(turns + 1):
            for name, kind in kinds.items():
                start = time.perf_counter()
                kind()
                if turn:
                    found[name].turns.append([(time.perf_counter() - start) * 1e3])
    return found


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=True)


def _session(place: str, text: str, *options: str) -> None:
    name = "test_first.py" if text == FIRST else "test_unused.py"
    file = Path(place, name)
    if not file.exists():
        file.write_text(text)
    done = pytest_session([*options, name], place)
    if done.returncode:
        raise SystemExit(f"a session of one test failed:\n{done.stdout}{done.stderr}")
