"""Performing checks in a forked child, with every step announced before it is tried.

Rules: the calling process only reads; a child that dies or hangs has failed at the step it announced
last, and another child tries the rest; nothing of a child outlives the call.
Does not belong here: what is tried, how it is told.
"""

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence

from netwarren.doctor.check import WORKS, Check, Outcome, explain, hindrance
from netwarren.doctor.ground import Ground
from netwarren.kernel import process
from netwarren.sandbox.diagnosis import Facts

SECONDS = 30.0
"""How long one check may take. All together they take a fraction of one; on a machine where others make
and end namespaces by the thousand, one has been seen waiting ten for the kernel's lock."""


def examine(checks: Sequence[Check], machine: Facts, seconds: float = SECONDS) -> dict[str, Outcome]:
    """The outcome of every check, by name, in their order."""
    fatal: dict[str, Outcome] = {}
    told: dict[str, Outcome] = {}
    together = [check for check in checks if not check.alone]
    while True:
        # What a child that died had made went with it, so the next one starts anew, past what was fatal.
        found, culprit = _attempt(together, fatal, machine, seconds)
        told |= found
        if culprit is None:
            break
        fatal |= culprit
    told |= fatal
    for check in checks:
        if check.alone:
            found, culprit = _attempt([check], told, machine, seconds)
            told |= found | (culprit or {})
    return {check.name: told[check.name] for check in checks}


def _attempt(
    checks: Sequence[Check], known: Mapping[str, Outcome], machine: Facts, seconds: float
) -> tuple[dict[str, Outcome], dict[str, Outcome] | None]:
    """What a child found out about checks that are not known; and the one it did not survive."""
    left = [check.name for check in checks if check.name not in known]
    if not left:
        return {}, None
    read, write = os.pipe()
    child = _fork()
    if child == 0:
        try:
            os.close(read)
            _perform(checks, known, machine, write)
        finally:
            os._exit(0)
    os.close(write)
    told: dict[str, Outcome] = {}
    trying, complete, hung = left[0], False, False
    try:
        for line in _lines(read, seconds):
            message = json.loads(line)
            if "trying" in message:
                trying = message["trying"]
            elif "outcome" in message:
                told[trying] = Outcome(*message["outcome"])
            else:
                complete = True
    except TimeoutError:
        hung = True
    finally:
        os.close(read)
        if not complete:
            _end(child)
        _, status = os.waitpid(child, 0)
    if complete:
        return told, None
    return told, {trying: _fate(status, seconds if hung else None)}


def _fork() -> int:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the child's copy of what is buffered might be written, too
    parent = os.getpid()
    with warnings.catch_warnings():
        # "This process is multi-threaded": the child waits for no lock that another thread may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    # A process group of its own, so that whatever it starts can be ended with it; set on both sides,
    # because either may be the first to need it.
    try:
        os.setpgid(child, child)
    except OSError:
        pass
    if child == 0:
        process.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
    return child


def _end(child: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except OSError:
            pass


def _lines(fd: int, seconds: float) -> Iterator[bytes]:
    """The lines that come out of a pipe; TimeoutError where nothing comes for ``seconds``."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    buffered = b""
    while True:
        if not poller.poll(seconds * 1000):
            raise TimeoutError
        chunk = os.read(fd, 65536)
        if not chunk:
            return
        *lines, buffered = (buffered + chunk).split(b"\n")
        yield from lines


def _fate(status: int, seconds: float | None) -> Outcome:
    """The outcome of a check whose child did not come back from it."""
    if seconds is not None:
        why = f"it did not end within {seconds:g} s"
        return Outcome("missing", why, "look at the kernel's log (`dmesg`, `journalctl -k`)")
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGSYS:
        why = (
            "the process that tried it was killed by SIGSYS: a seccomp filter forbids a system call it makes"
        )
        remedy = "start the container with `--security-opt seccomp=unconfined`, or without the filter"
        return Outcome("missing", why, remedy)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    remedy = "look at the kernel's log (`dmesg`, `journalctl -k`)"
    return Outcome("missing", f"the process that tried it {how}", remedy)


# --- in the child ---------------------------------------------------------------------------------


def _perform(checks: Sequence[Check], known: Mapping[str, Outcome], machine: Facts, fd: int) -> None:
    outcomes = dict(known)
    ground = Ground(machine)
    for check in checks:
        if check.name in known:
            continue
        _say(fd, {"trying": check.name})
        outcome = hindrance(check, outcomes)
        if outcome is None:
            try:
                check.perform(ground)
                outcome = WORKS
            except Exception as error:
                outcome = explain(check, error)
        outcomes[check.name] = outcome
        _say(fd, {"outcome": [outcome.status, outcome.why, outcome.remedy]})
    _say(fd, {"done": True})


def _say(fd: int, message: Mapping[str, object]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")
