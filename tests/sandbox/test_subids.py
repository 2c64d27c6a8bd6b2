"""`Sandbox(subids=True)`: ranges of /etc/subuid by way of newuidmap(1)."""

import contextlib
import os
import pwd
import shutil
from typing import Any

import pytest

from netwarren.sandbox import inside
from tests.sandbox.conftest import Python


def user_with_ranges() -> str:
    """Somebody whose ranges can be tried here; skips where there is nobody."""
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        pytest.skip("newuidmap and newgidmap (package uidmap) are not installed here")
    if inside():
        pytest.skip("this session is in a sandbox already, where set-uid programs gain nothing")
    with contextlib.suppress(OSError), open("/etc/subuid") as lines:
        for line in lines:
            name = line.split(":")[0]
            with contextlib.suppress(KeyError):
                if pwd.getpwnam(name).pw_uid in ({os.geteuid()} if os.geteuid() else set(range(1, 1 << 16))):
                    return name
    pytest.skip("/etc/subuid has no range for this user")


def test_the_ranges_of_the_user_are_mapped() -> None:
    name = user_with_ranges()
    python = Python(ordinary=False)
    options: dict[str, Any] = (
        {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    try:
        python.run(
            """
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
            """,
            **options,
        )
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
