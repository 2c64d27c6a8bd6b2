"""`make bench`: everything side by side in one run, and one report of it: docs/benchmarks.md and what goes with it.

Rules: a thin door: arguments in, one run, files out; `--quick` writes nothing unless it is told where. What the
README says of it is put between two comments there, by each run that writes to docs on a machine that was not noisy.
Does not belong here: measuring (see `measure`), the report (see `report`).
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.machine import NOISY
from bench.marks import marks
from bench.measure import QUICK, Sizes, measure
from bench.readme import between_marks, summary
from bench.report import marks_table, report
from bench.yardsticks import HERE, ROOT


def main() -> int:
    """Run the benchmarks; returns 0 also where marks are missed, which the report says."""
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...", description="Measure netwarren beside its yardsticks, and write a report."
    )
    parser.add_argument("--quick", action="store_true", help="as little as shows that all of it runs")
    parser.add_argument("--large", action="store_true", help="a cluster of 5,000 pods, too")
    parser.add_argument(
        "--to", type=Path, metavar="DIRECTORY", help="where the report goes: docs, with --quick nowhere"
    )
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.large:
        sizes = replace(sizes, pods_once=(5000,))

    results = measure(sizes, say)
    texts = report(results, (HERE / "tried.md").read_text())
    say("the report")
    print("\n".join(marks_table(marks(results))))
    for each in results.skipped:
        print(f"not run: {each}")
    place: Path | None = arguments.to or (None if arguments.quick else ROOT / "docs")
    if place is None:
        with tempfile.TemporaryDirectory() as nowhere:
            write(texts, Path(nowhere))
        print("the figures of --quick mean nothing, and are not kept")
    else:
        write(texts, place)
        if place == ROOT / "docs" and results.noise["spread"] < NOISY:
            readme = ROOT / "README.md"
            readme.write_text(between_marks(readme.read_text(), "\n".join(summary(results))))
        elif place == ROOT / "docs":
            print("the machine was noisy, so the README keeps the figures that it has")
        print(f"the report is in {place / 'benchmarks.md'}")
    return 0


def write(texts: dict[str, str], place: Path) -> None:
    """Write ``texts`` by their names into ``place``, which is made if need be."""
    place.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (place / name).write_text(text)


def say(title: str) -> None:
    """Tell whoever waits what is being done."""
    print(f"-- {title}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
