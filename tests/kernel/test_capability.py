"""Capabilities: read, and kept over execve."""

import subprocess
import sys

from netwarren.kernel import capability, syscall


def child(script: str, program: str = "") -> str:
    return subprocess.run(
        [sys.executable, "-c", script, program], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_having_is_asked_of_the_effective_set() -> None:
    effective = syscall.capget()[0]
    for number in (0, capability.CAP_SETGID, capability.CAP_SETUID, 21, 40):
        assert capability.has(number) == bool(effective >> number & 1)


def test_having_several_is_having_each() -> None:
    effective = syscall.capget()[0]
    assert capability.has(*range(64)) is False
    assert capability.has() is True
    assert capability.has(6, 7) == (effective >> 6 & 1 == 1 and effective >> 7 & 1 == 1)


def test_ambient_capabilities_survive_execve() -> None:
    script = """
import os, subprocess, sys
from netwarren.kernel import capability, syscall, userns
userns.enter(0, userns.own_map())
permitted = syscall.capget()[1]
capability.make_ambient()
check = "from netwarren.kernel import syscall; print(syscall.capget()[0])"
print(int(subprocess.check_output([sys.executable, "-c", check])) == permitted != 0)
"""
    assert child(script) == "True\n"


def test_making_none_ambient_is_fine() -> None:
    script = """
from netwarren.kernel import capability, syscall
syscall.capset(0, 0, 0)
capability.make_ambient()
print(syscall.capget())
"""
    assert child(script) == "(0, 0, 0)\n"


def test_sets_of_more_than_32_bits_are_kept_whole() -> None:
    script = """
from netwarren.kernel import syscall, userns
userns.enter(0, userns.own_map())
effective, permitted, _ = syscall.capget()
assert effective >> 32, hex(effective)
syscall.capset(permitted, permitted, permitted)
assert syscall.capget() == (permitted, permitted, permitted)
kept = permitted & ~(1 << 39)
syscall.capset(kept, kept, kept)
assert syscall.capget() == (kept, kept, kept)
"""
    child(script)
