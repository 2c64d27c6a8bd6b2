"""Mounts, in a mount namespace of a child's own."""

import subprocess
import sys

import pytest

PRELUDE = """
import os, sys
from netwarren.errors import KernelError
from netwarren.kernel import mount, userns
from netwarren.kernel.syscall import CLONE_NEWNS
userns.enter(CLONE_NEWNS, userns.own_map())
mount.keep_to_ourselves()
def mountinfo():
    with open("/proc/self/mountinfo") as lines:
        return [line.split() for line in lines]
mount.tmpfs("/mnt")
"""


def child(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_a_tmpfs_is_empty_and_ours() -> None:
    child("""
assert os.listdir("/mnt") == []
assert os.stat("/mnt").st_mode & 0o7777 == 0o755 and os.stat("/mnt").st_uid == os.geteuid()
os.mkdir("/mnt/made")
""")


def test_a_tmpfs_takes_a_mode() -> None:
    child("""
os.mkdir("/mnt/open")
mount.tmpfs("/mnt/open", "1777")
assert os.stat("/mnt/open").st_mode & 0o7777 == 0o1777
""")


def test_a_bind_shows_the_same_directory() -> None:
    child("""
os.mkdir("/mnt/a"); os.mkdir("/mnt/b")
mount.bind("/mnt/a", "/mnt/b")
open("/mnt/a/file", "w").close()
assert os.listdir("/mnt/b") == ["file"]
""")


def test_a_bind_shows_what_is_mounted_below_too() -> None:
    child("""
os.mkdir("/mnt/a"); os.mkdir("/mnt/a/below"); os.mkdir("/mnt/b")
mount.tmpfs("/mnt/a/below")
open("/mnt/a/below/file", "w").close()
mount.bind("/mnt/a", "/mnt/b")
assert os.listdir("/mnt/b/below") == ["file"]
""")


def test_no_mount_is_shared_with_the_host() -> None:
    child("""
assert not [fields for fields in mountinfo() if any(field.startswith("shared:") for field in fields)]
""")


@pytest.mark.parametrize("operation", ["mount.bind('/nowhere', '/mnt')", "mount.tmpfs('/nowhere')"])
def test_a_refusal_says_what_was_to_be_mounted_where(operation: str) -> None:
    printed = child(f"""
try:
    {operation}
except KernelError as error:
    print(error)
""")
    assert printed.startswith("mount ")
    assert "/nowhere" in printed
    assert "ENOENT" in printed


def test_a_layer_is_laid_without_proc_as_well() -> None:
    child("""
os.makedirs("/mnt/a/below"); os.symlink("file", "/mnt/a/link"); open("/mnt/a/file", "w").close()
mount.tmpfs("/proc")  # nothing of it is there
mount.layer("/mnt/a", {"below"}, moving=True)
assert sorted(os.listdir("/mnt/a")) == ["file", "link"] and os.readlink("/mnt/a/link") == "file"
assert os.getcwd() == "/"
open("/mnt/a/new", "w").close()
""")


def test_a_proc_shows_the_processes_of_ones_own_pid_namespace() -> None:
    told = child("""
from netwarren.kernel import pidns
pidns.create("a test")
if (first := os.fork()) == 0:
    mount.proc("/mnt")
    print(os.getpid(), [entry for entry in os.listdir("/mnt") if entry.isdigit()], flush=True)
    os._exit(0)
os.waitpid(first, 0)
fd = pidns.hold_for_children("a test")
assert os.fstat(fd).st_ino != os.stat("/proc/self/ns/pid").st_ino
""")
    assert told == "1 ['1']\n"
