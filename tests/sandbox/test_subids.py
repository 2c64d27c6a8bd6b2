"""`Sandbox(subids=True)`: ranges of /etc/subuid by way of newuidmap(1)."""

import contextlib
import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from netwarren.sandbox import inside
from tests.sandbox.conftest import Python, ordinary_python

SOMEBODY = "daemon"  # whom every machine has

_BECOME = """
import os, pwd, sys
from netwarren.kernel import mount
from netwarren.kernel.syscall import CLONE_NEWNS, unshare
ranges, name, *command = sys.argv[1:]
user = pwd.getpwnam(name)
unshare(CLONE_NEWNS)
mount.keep_to_ourselves()
for file in ("/etc/subuid", "/etc/subgid"):
    mount.bind(ranges, file)
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv(command[0], command)
"""


def newuidmap_or_skip() -> None:
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        pytest.skip("newuidmap and newgidmap (package uidmap) are not installed here")
    if inside():
        pytest.skip("this session is in a sandbox already, where set-uid programs gain nothing")


def range_or_skip() -> None:
    with contextlib.suppress(OSError, KeyError):
        name = pwd.getpwuid(os.geteuid()).pw_name
        if any(line.split(":")[0] == name for line in Path("/etc/subuid").read_text().splitlines()):
            return
    pytest.skip("/etc/subuid has no range for this user")


def test_the_ranges_of_the_user_are_mapped(tmp_path: Path) -> None:
    newuidmap_or_skip()
    python = Python(ordinary=False)
    script = """
        import os
        from netwarren.sandbox import Sandbox
        before = os.getuid(), os.getgid()
        Sandbox(subids=True).enter()
        assert (os.getuid(), os.getgid()) == before
        for kind in ("uid", "gid"):
            with open(f"/proc/self/{kind}_map") as lines:
                assert sum(int(line.split()[2]) for line in lines) > 1000
        child = os.fork()
        if child == 0:  # a program that changes to another user, as postgres or nginx do
            os.setgroups([])
            os.setgid(33)
            os.setuid(33)
            os._exit(os.getuid() != 33)
        assert os.waitpid(child, 0)[1] == 0
        """
    try:
        if os.geteuid() != 0:
            range_or_skip()
            python.run(script)
        else:  # can give somebody a range that nobody else sees
            ranges = tmp_path / "ranges"
            ranges.write_text(f"{SOMEBODY}:100000:65536\n")
            interpreter = ordinary_python()
            command = [interpreter.executable, *python.command(script)[1:]]
            become = [sys.executable, "-c", _BECOME, str(ranges), SOMEBODY]
            python.end(python.begin_command([*become, *command], env=interpreter.env))
    finally:
        python.finish()


def test_without_ranges_the_refusal_says_how_to_get_them(ordinary: Python) -> None:
    ordinary.run(
        """
        import os
        os.environ["PATH"] = "/nowhere"
        from netwarren.errors import SandboxError
        from netwarren.sandbox import Sandbox
        before = os.readlink("/proc/self/ns/user")
        try:
            Sandbox(subids=True).enter()
        except SandboxError as error:
            assert error.step == "map a range of subordinate ids"
            assert "usermod --add-subuids" in error.remedy and "uidmap" in error.remedy
        else:
            raise AssertionError("entered")
        assert os.readlink("/proc/self/ns/user") == before
        """
    )


def test_somebody_with_capabilities_needs_no_ranges(python: Python) -> None:
    if python.ordinary:
        pytest.skip("this one has no capabilities")
    python.run(
        """
        from netwarren.sandbox import Sandbox, inside
        Sandbox(subids=True).enter()
        assert inside()
        """
    )
