"""``netwarren doctor``: tries on this machine everything netwarren does to one, and says what works.

Rules: performed, not looked up: each step in a forked child, the calling process and the machine stay
as they are; the exit status is about the main job.
Does not belong here: repairing anything.
"""

import os
import platform
import sys

from netwarren.doctor import entering, kinds, report, sockets, trial, wiring
from netwarren.doctor.check import Check, Outcome
from netwarren.doctor.report import Examination
from netwarren.sandbox import diagnosis

__all__ = ["CHECKS", "Check", "Examination", "Outcome", "examine", "main"]

CHECKS: tuple[Check, ...] = (
    *entering.CHECKS,
    *wiring.CHECKS,
    *entering.OTHER_WAYS,
    *sockets.CHECKS,
    *kinds.CHECKS,
)


def examine(checks: tuple[Check, ...] = CHECKS, seconds: float = trial.SECONDS) -> Examination:
    """Try ``checks`` on this machine, each for ``seconds`` at most."""
    machine = diagnosis.facts()
    return Examination(
        kernel=os.uname().release,
        python=platform.python_version(),
        machine=machine,
        checks=checks,
        outcomes=trial.examine(checks, machine, seconds),
    )


def main(*, as_json: bool = False) -> int:
    """Print what was found; 0 where the main job can run, 1 where it cannot."""
    examination = examine()
    if as_json:
        print(report.as_json(examination))
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.write(report.as_table(examination, colours=colours))
    return 0 if examination.main_job else 1
