"""`python`: a fresh interpreter that is in no sandbox yet, as an ordinary user or with capabilities.

Rules: every wait has a bound; a script that ends otherwise than it should shows all it wrote.
Does not belong here: what is expected of a sandbox.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import netwarren
from netwarren.kernel import capability
from netwarren.sandbox.entry import MARKER

SECONDS = 60
ORDINARY_UID = 4321

_POWERLESS = "from netwarren.kernel.syscall import capset; capset(0, 0, 0)\n"


AS_ORDINARY: dict[str, Any] = {"user": ORDINARY_UID, "group": ORDINARY_UID, "extra_groups": []}


class Interpreter(NamedTuple):
    """A Python that an ordinary user can run, and what it takes to find netwarren there."""

    executable: str
    env: dict[str, str]


@functools.cache
def ordinary_python() -> Interpreter:
    """This interpreter, or the system's where root keeps this one, or the sources, to itself."""
    if os.geteuid() != 0:
        return Interpreter(sys.executable, {})
    sources = Path(tempfile.mkdtemp(prefix="netwarren-test-sources-"))
    sources.chmod(0o755)
    here = os.getpid()

    def tidy_up() -> None:
        if os.getpid() == here:  # and not a child that was forked from here
            shutil.rmtree(sources, ignore_errors=True)

    atexit.register(tidy_up)
    shutil.copytree(Path(netwarren.__file__).parent, sources / "netwarren", copy_function=shutil.copy)
    for candidate in (
        Interpreter(sys.executable, {}),
        Interpreter("/usr/bin/python3", {"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}),
    ):
        check = "import sys, netwarren.sandbox; sys.exit(sys.version_info < (3, 11))"
        try:
            command = [candidate.executable, "-c", check]
            env = os.environ | candidate.env
            if subprocess.run(command, env=env, capture_output=True, cwd="/", **AS_ORDINARY).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip(f"an ordinary user can run neither {sys.executable} nor a /usr/bin/python3 of 3.11 or later")


class Python:
    """Starts interpreters; ``ordinary`` ones have no capability and a uid other than 0."""

    def __init__(self, *, ordinary: bool) -> None:
        self.ordinary = ordinary
        self._started: list[subprocess.Popen[str]] = []

    def command(self, script: str, *arguments: str, prelude: str = "") -> list[str]:
        text = (_POWERLESS if self.ordinary else "") + prelude + textwrap.dedent(script)
        return [
            ordinary_python().executable if self.ordinary else sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::ResourceWarning",
            "-c",
            text,
            *arguments,
        ]

    def begin(
        self, script: str, *arguments: str, prelude: str = "", **options: Any
    ) -> "subprocess.Popen[str]":
        """Start ``script`` and go on."""
        return self.begin_command(self.command(script, *arguments, prelude=prelude), **options)

    def begin_command(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        env = {name: value for name, value in os.environ.items() if name != MARKER}
        env |= {"PYTHONUNBUFFERED": "1", **options.pop("env", {})}
        if self.ordinary and os.geteuid() == 0:
            options |= AS_ORDINARY
            env |= ordinary_python().env
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        options.setdefault("cwd", "/")
        process = subprocess.Popen(command, env=env, text=True, **options)
        self._started.append(process)
        return process

    def run(self, script: str, *arguments: str, status: int = 0, prelude: str = "", **options: Any) -> str:
        """Run ``script`` to its end, which must be ``status``; returns what it printed."""
        return self.end(self.begin(script, *arguments, prelude=prelude, **options), status)

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        """Wait for the end, which must be ``status``; returns what was printed."""
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == status, f"ended with {process.returncode}\n{out}\n{err}"
        return str(out)

    def finish(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()


@pytest.fixture(params=["ordinary", "privileged"])
def python(request: pytest.FixtureRequest) -> Iterator[Python]:
    """Interpreters of an ordinary user, and of one with CAP_SETUID and CAP_SETGID where there is one."""
    if request.param == "privileged" and not capability.has(capability.CAP_SETUID, capability.CAP_SETGID):
        pytest.skip("this user has no CAP_SETUID and CAP_SETGID")
    made = Python(ordinary=request.param == "ordinary")
    yield made
    made.finish()


@pytest.fixture
def ordinary() -> Iterator[Python]:
    """Interpreters of an ordinary user."""
    made = Python(ordinary=True)
    yield made
    made.finish()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that interpreters of any user may write to."""
    with tempfile.TemporaryDirectory(prefix="netwarren-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)
