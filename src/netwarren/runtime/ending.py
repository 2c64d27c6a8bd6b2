"""The end of machines: what runs in them is brought to its end, and what nobody has been told about is told.

Rules: several machines end at once, so that they wait once; repeatable; a failure is told once.
Does not belong here: what a machine is (see `machine`), its namespace and links (see `netwarren.cluster`).
"""

import contextlib
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from netwarren.errors import BackgroundError, KernelError, NetwarrenError, ProgramError
from netwarren.kernel import descriptors, process, sockdiag
from netwarren.kernel.netlink import NETLINK_SOCK_DIAG, Netlink
from netwarren.runtime import ferry, warden
from netwarren.runtime.background import Background
from netwarren.runtime.machine import Machine
from netwarren.runtime.program import Program


def end_all(machines: Sequence[Machine]) -> list[BaseException]:
    """End what runs in ``machines``: background threads, loops, every process standing there.

    Returns the failures that nobody has been told about; repeatable.
    """
    untold: list[BaseException] = [*died_unseen(machines)]  # before anything here makes a program fail
    backgrounds: list[Background[Any]] = []
    programs: list[Program] = []
    loops: list[tuple[Any, Machine]] = []
    for machine in machines:
        mine, loop = machine._give_up_threads()
        backgrounds += mine
        programs += machine.programs
        for background in mine:
            background._ask_to_stop()
        if loop is not None:
            loop.ask_to_stop()
            loops.append((loop, machine))
        if any(background.state == "running" for background in mine):
            _wake(machine)
    for machine in machines:  # when what is cut off by it has been told that this is the end
        for published in machine.published:
            published.close()
    untold += [failure for background in backgrounds if (failure := background._end()) is not None]
    for loop, machine in loops:
        failure = loop.end(functools.partial(_wake, machine))
        if failure is not None:
            untold.append(failure)
    for machine in machines:
        machine._kill_processes()
    for machine in machines:
        machine._end_processes()
    with descriptors.reserve():
        if programs or process.children() != {warden.pid()} - {0} or any(m._had_children for m in machines):
            process.kill_standing_in({machine.inode for machine in machines})
    for program in programs:
        program._end()
    for machine in machines:
        machine._unwatch()
    return untold


def died_unseen(machines: Iterable[Machine]) -> list[ProgramError]:
    """Errors of the programs whose end nobody expected; each is told once."""
    programs = [program for machine in machines for program in machine.programs]
    return [error for program in programs if (error := program._untold()) is not None]


def _wake(machine: Machine) -> None:
    """Close the sockets under threads that wait for them in the kernel, where it can (SOCK_DESTROY)."""

    def destroy() -> None:
        with machine._stepped(), Netlink(machine.label, NETLINK_SOCK_DIAG) as netlink:
            sockdiag.destroy(netlink, sockdiag.sockets(netlink, listening_only=False))

    with contextlib.suppress(KernelError), descriptors.reserve():
        ferry.roam(destroy)


def raise_untold(untold: Sequence[BaseException]) -> None:
    """Raise the first of what `end_all` has returned, with the others as its notes; nothing where it is empty."""
    if not untold:
        return
    first = untold[0]
    if not isinstance(first, BackgroundError | ProgramError):
        first, cause = BackgroundError(f"code in the background of a pod failed: {first!r}"), first
        first.__cause__ = cause
    for other in untold[1:]:
        first.add_note(
            f"And also: {other!r}" if not isinstance(other, NetwarrenError) else f"And also: {other}"
        )
    raise first
