"""A check as data, its outcome, and the translation of what went wrong into why and remedy.

Rules: pure; a check says what it is needed for and what must work before it; whatever it raises becomes
an outcome, a remedy is a sentence somebody can follow.
Does not belong here: the checks themselves, running them (see `trial`), printing (see `report`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from netwarren.doctor.ground import Ground
from netwarren.errors import KernelError, SandboxError, errno_name

Status: TypeAlias = Literal["works", "missing", "not tried"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try: ``perform`` returns where it works, and raises where it does not.

    ``needs`` names checks that must have worked before. ``remedy`` is what to do where the error does not
    know better. ``alone``: in a child of its own, outside the sandbox of the others.
    """

    name: str
    needed_for: str
    perform: Callable[[Ground], None]
    required: bool = False
    needs: tuple[str, ...] = ()
    remedy: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check; ``why`` and ``remedy`` are empty where it works."""

    status: Status
    why: str = ""
    remedy: str = ""


WORKS = Outcome("works")


class Amiss(Exception):
    """Raised by a check where every call worked and the result is wrong all the same."""

    def __init__(self, why: str, remedy: str = "") -> None:
        self.why = why
        self.remedy = remedy
        super().__init__(why)


def explain(check: Check, error: BaseException) -> Outcome:
    """The outcome of a check that raised ``error``."""
    if isinstance(error, SandboxError):
        said = error.__cause__
        answer = f" ({said.operation}: {errno_name(said.errno)})" if isinstance(said, KernelError) else ""
        return Outcome("missing", error.cause + answer, error.remedy)
    if isinstance(error, Amiss):
        return Outcome("missing", error.why, error.remedy or check.remedy)
    if isinstance(error, KernelError):
        bare = str(KernelError(error.operation, error.errno, where=error.where, detail=error.detail))
        return Outcome("missing", bare, error.hint or check.remedy)
    if isinstance(error, TimeoutError):
        return Outcome("missing", "nothing arrived in time", check.remedy)
    if isinstance(error, OSError):
        return Outcome("missing", str(error), check.remedy)
    # Not the machine's fault, and still not a reason to keep the other checks from being tried.
    return Outcome("missing", f"the check itself failed: {error!r}", "report it as a bug of netwarren")


def hindrance(check: Check, so_far: dict[str, Outcome]) -> Outcome | None:
    """The outcome of a check that need not be tried, because something it needs does not work."""
    lacking = [name for name in check.needs if so_far.get(name, Outcome("not tried")).status != "works"]
    if not lacking:
        return None
    return Outcome("not tried", f"it needs what does not work: {lacking[0]}")


def main_job(checks: Sequence[Check], outcomes: dict[str, Outcome]) -> bool:
    """Can pods on nodes be made, and do they reach each other?"""
    return all(outcomes[check.name].status == "works" for check in checks if check.required)
