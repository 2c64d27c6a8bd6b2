"""`session`: real pytest sessions, in processes of their own, with the plugin loaded by its entry point.

Rules: other plugins are there only where a test names them, so that each session starts fast and says
what it needs; warnings are errors in there; every wait has a bound; nothing is left running.
Does not belong here: what is expected of a session.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Iterator, Mapping
from typing import IO

import pytest

from netwarren.sandbox.entry import MARKER

SECONDS = 60

# The entry point names of what may be installed beside ours, by what we call it.
_OTHERS = {
    "asyncio": ("asyncio",),
    "anyio": ("anyio",),
    "cov": ("pytest_cov",),
    "hypothesis": ("hypothesispytest",),
    "rerunfailures": ("rerunfailures",),
    "timeout": ("timeout",),
    "xdist": ("xdist", "xdist.looponfail"),
}


class Running:
    """A pytest session that is running; its output, standard error included, is read all along."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: IO[bytes]) -> None:
        self.process = process
        self._output = output
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # The end of a terminal is an error (EIO), that of a pipe is not.
        with self._output as output, contextlib.suppress(OSError):
            for line in output:
                with self._news:
                    self._lines.append(line.decode(errors="replace").rstrip("\r\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def text(self) -> str:
        with self._news:
            return "\n".join(self._lines)

    def line(self, wanted: str, seconds: float = SECONDS) -> str:
        """The first line that has ``wanted`` in it, from there on; waits for it."""

        def found() -> bool:
            return self._ended or any(wanted in line for line in self._lines)

        with self._news:
            self._news.wait_for(found, seconds)
            for line in self._lines:
                if wanted in line:
                    return line[line.index(wanted) :].strip()
        raise AssertionError(f"the session never wrote {wanted!r}; it wrote:\n{self.text}")

    def type(self, keys: bytes) -> None:
        """Type at the terminal."""
        self._output.write(keys)

    def stop(self) -> None:
        """End it where it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._reader.join(5)

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for the end; returns the exit status as `subprocess` tells it."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the session goes on and on; it wrote:\n{self.text}") from None
        self._reader.join(seconds)
        return status


class Session:
    """Writes test files and runs pytest on them."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._running: list[Running] = []
        self.ini()

    def file(self, name: str, text: str) -> None:
        """Write a file of the session; ``text`` may be indented."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))

    def ini(self, *lines: str, warnings: str = "error") -> None:
        """Write the session's configuration; ``warnings`` says what a warning is (``default``)."""
        self.file("pytest.ini", "\n".join(["[pytest]", f"filterwarnings = {warnings}", *lines]) + "\n")

    def arguments(self, *arguments: str, plugins: str = "") -> list[str]:
        """The command line of a session with ``arguments`` and the named plugins beside ours."""
        wanted = plugins.split()
        assert set(wanted) <= set(_OTHERS), wanted
        off = [entry for name, entries in _OTHERS.items() if name not in wanted for entry in entries]
        words = [word for entry in off for word in ("-p", f"no:{entry}")]
        return [sys.executable, "-m", "pytest", *words, "-p", "no:cacheprovider", *arguments]

    def run(self, *arguments: str, plugins: str = "") -> pytest.RunResult:
        """Run a session to its end."""
        command = self.arguments(f"--basetemp={self.path / 'tmp'}", *arguments, plugins=plugins)
        return self.pytester.run(*command, timeout=SECONDS)

    def passes(self, *arguments: str, plugins: str = "", passed: int) -> pytest.RunResult:
        """Run a session in which ``passed`` tests pass, and nothing else happens."""
        result = self.run(*arguments, plugins=plugins)
        result.assert_outcomes(passed=passed)
        assert result.ret == 0
        return result

    def start(
        self, *arguments: str, plugins: str = "", env: Mapping[str, str] | None = None, tty: bool = False
    ) -> Running:
        """Start a session in a process group of its own, or (``tty``) in front of a terminal of its own."""
        return self.start_command(self.arguments(*arguments, plugins=plugins), env=env, tty=tty)

    def start_command(
        self, command: list[str], env: Mapping[str, str] | None = None, tty: bool = False
    ) -> Running:
        """`start`, for any command line."""
        ours, theirs = os.openpty() if tty else os.pipe()
        try:
            process = subprocess.Popen(
                command,
                cwd=self.path,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=theirs if tty else subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                preexec_fn=_take_terminal if tty else None,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        running = Running(process, os.fdopen(ours, "r+b" if tty else "rb", buffering=0))
        self._running.append(running)
        return running

    def finish(self) -> None:
        for running in self._running:
            status = running.process.poll()
            running.stop()
            print(
                f"a session that had {'not ended' if status is None else f'ended with {status}'}, and wrote:"
            )
            print(running.text)  # shown where the test has failed


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where all these sessions keep their compiled modules, whoever owns those that are installed."""
    return str(tmp_path_factory.mktemp("bytecode"))


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, bytecode: str) -> Iterator[Session]:
    """A place to write tests to and run pytest on, as if from a shell of the user's."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", bytecode)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    # Where this suite itself runs in the sandbox, a session must still enter one by itself.
    monkeypatch.delenv(MARKER, raising=False)
    for name in list(os.environ):
        if name.startswith(("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_", "COV_", "COVERAGE_")):
            monkeypatch.delenv(name)
    made = Session(pytester)
    yield made
    made.finish()
