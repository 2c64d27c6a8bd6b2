"""What the doctor found, as a table for people and as JSON for programs.

Rules: pure: outcomes in, text out; colours only where the caller says so.
Does not belong here: finding out.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from netwarren.doctor.check import Check, Outcome, main_job
from netwarren.sandbox.diagnosis import Facts

_WIDTH = 110
_COLOURS = {"works": "32", "missing": "31", "not tried": "33"}


@dataclass(frozen=True, slots=True)
class Examination:
    """A machine, what was checked on it, and what came of it."""

    kernel: str
    python: str
    machine: Facts
    checks: Sequence[Check]
    outcomes: dict[str, Outcome]

    @property
    def main_job(self) -> bool:
        """Can pods on nodes be made, and do they reach each other?"""
        return main_job(self.checks, self.outcomes)


def facts_in_words(machine: Facts) -> list[str]:
    """What is worth knowing about a machine; what is as everywhere is left out."""
    words = []
    if machine.container:
        words.append(f"this is {machine.container}")
    if machine.gvisor:
        words.append("the kernel is gVisor (runsc)")
    if machine.chroot:
        words.append("this process runs in a chroot")
    if machine.seccomp:
        words.append("a seccomp filter is on this process")
    if not machine.user_namespaces:
        words.append("the kernel was built without user namespaces")
    if machine.max_user_namespaces is not None:
        words.append(f"user.max_user_namespaces is {machine.max_user_namespaces}")
    if machine.unprivileged_userns_clone is not None:
        words.append(f"kernel.unprivileged_userns_clone is {machine.unprivileged_userns_clone}")
    if machine.apparmor_restricts is not None:
        words.append(f"kernel.apparmor_restrict_unprivileged_userns is {machine.apparmor_restricts}")
    return words


def as_json(examination: Examination) -> str:
    """One object; ``checks`` are in the order they were tried."""
    checks = [
        {
            "name": check.name,
            "needed_for": check.needed_for,
            "required": check.required,
            **asdict(examination.outcomes[check.name]),
        }
        for check in examination.checks
    ]
    return json.dumps(
        {
            "kernel": examination.kernel,
            "python": examination.python,
            "machine": asdict(examination.machine),
            "checks": checks,
            "main_job": examination.main_job,
        },
        indent=2,
    )


def as_table(examination: Examination, *, colours: bool = False) -> str:
    """What the main job takes first, then what some tests take besides."""
    lines = [f"Linux {examination.kernel}, Python {examination.python}, uid {examination.machine.uid}"]
    lines += [f"  {fact}" for fact in facts_in_words(examination.machine)]
    column = max(len(check.name) for check in examination.checks)
    for title, required in (("What every cluster takes:", True), ("What some tests take besides:", False)):
        chosen = [check for check in examination.checks if check.required is required]
        if chosen:
            lines += ["", title]
        for check in chosen:
            lines += _rows(check, examination.outcomes[check.name], column, colours)
    lines += ["", _conclusion(examination)]
    return "\n".join(lines) + "\n"


def _rows(check: Check, outcome: Outcome, column: int, colours: bool) -> list[str]:
    status = f"{outcome.status:<9}"
    if colours:
        status = f"\x1b[{_COLOURS[outcome.status]}m{status}\x1b[0m"
    rows = [f"  {check.name:<{column}}  {status}  {check.needed_for}"]
    for label, text in (("why", outcome.why), ("remedy", outcome.remedy)):
        if text:
            rows += textwrap.wrap(
                f"{label}: {text}",
                _WIDTH,
                initial_indent=" " * 6,
                subsequent_indent=" " * (6 + len(label) + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return rows


def _conclusion(examination: Examination) -> str:
    failed = [
        check.name
        for check in examination.checks
        if check.required and examination.outcomes[check.name].status == "missing"
    ]
    if examination.main_job:
        return "The main job (pods on nodes, traffic between them) can run here."
    return f"The main job (pods on nodes, traffic between them) cannot run here: see {', '.join(failed)}."
