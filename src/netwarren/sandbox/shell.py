"""Stepping into a running sandbox from a shell: what the printed line does.

Rules: everything is opened before the first namespace is joined, because afterwards paths mean other
files; the joined process keeps its uid and gets the sandbox's capabilities.
Does not belong here: the printed line itself (see `netwarren.cluster`).
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence

from netwarren.errors import SandboxError, UnknownName
from netwarren.kernel import capability
from netwarren.kernel.syscall import setns
from netwarren.sandbox import fork, names
from netwarren.sandbox.entry import MARKER


def command(pid: int, name: str) -> str:
    """A line that works when it is pasted into any shell of the same user."""
    words = [sys.executable, "-m", "netwarren", "shell", str(pid), name]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.environ.get("PYTHONPATH") and root in os.environ["PYTHONPATH"].split(os.pathsep):
        words = ["env", f"PYTHONPATH={root}", *words]
    return shlex.join(words)


def step_in(pid: int, name: str | None, argv: Sequence[str]) -> None:
    """Become ``argv`` (or the user's shell) in namespace ``name`` of the sandbox of process ``pid``.

    Without ``name``, in its only cluster's root. Does not return. Raises `UnknownName`, which lists the
    names there are, and `SandboxError` where the process is gone, not ours, or not in a sandbox.
    """
    try:
        published = {entry: path for entry, path in names.published(pid).items() if os.path.exists(path)}
        chosen = _choose(published, name)
        kinds = ("user", "mnt")
        outside = [
            os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            for kind in kinds
            if os.stat(f"/proc/{pid}/ns/{kind}").st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino
        ]
        network = os.open(published[chosen], os.O_RDONLY | os.O_CLOEXEC)
        view = names.view_of(pid, os.fstat(network).st_ino)  # where a program has been started there
        outside += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in view.values()]
        cwd, user = os.getcwd(), os.stat(f"/proc/{pid}/ns/user").st_ino
        for fd in (*outside, network):
            setns(fd, 0)
            if fd is not network:
                capability.make_ambient()
    except OSError as error:
        raise SandboxError(
            f"step into the sandbox of process {pid}",
            "there is no such process, it belongs to somebody else, or it has no sandbox",
            "take the line that the test printed while it still runs (a breakpoint keeps it), as the same user",
            error.errno or 0,
        ) from None
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")
    os.environ[MARKER] = str(user)
    os.environ["NETWARREN_IN"] = chosen
    if "pid" in view and (child := os.fork()):  # who is to be in a PID namespace has to be born there
        fork.mind(child)
    words = list(argv) or [os.environ.get("SHELL") or "/bin/sh"]
    execute(words)


def execute(words: Sequence[str]) -> None:
    """Replace this process by ``words``; ends with 127 or 126 as a shell does where that fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Looked for first: where a directory of PATH may not be searched, execvp() says EACCES for all.
    program = shutil.which(words[0])
    if program is None and not os.path.exists(words[0]):
        print(f"netwarren: {words[0]}: no such program", file=sys.stderr)
        sys.exit(127)
    try:
        os.execv(program or words[0], list(words))
    except OSError as error:
        print(f"netwarren: {words[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(126)


def _choose(published: dict[str, str], name: str | None) -> str:
    if name in published:
        return str(name)
    if name is None:
        fitting = [entry for entry in published if "." not in entry]
    else:
        fitting = [entry for entry in published if entry.split(".")[0] == name]
    if len(fitting) == 1:
        return fitting[0]
    raise UnknownName("network namespace", name or "(none given)", fitting or published)
