"""SIGKILL of the process that holds a cluster: nothing it started in pods outlives it."""

import os
import select
import subprocess
import sys

import pytest

OWNER = """
import subprocess, sys, threading
from netwarren import Cluster
cluster = Cluster()
pod = cluster.add_pod("a")
program = pod.popen(["/bin/sh", "-c", {shell!r}], stdout=subprocess.PIPE, stderr=sys.stderr)
for line in program.stdout:
    print(line.decode().strip(), flush=True)
    break
threading.Event().wait()
"""


@pytest.mark.parametrize(
    "shell",
    [
        "echo $$; exec sleep 1000",
        "sleep 1000 & echo $!; wait",
        "setsid sleep 1000 & echo $!; wait",
        "(setsid sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000",
        "(setsid sh -c 'echo $$; exec sleep 1000' &)",
    ],
)
def test_programs_and_all_they_started_end(shell: str) -> None:
    read, write = os.pipe()  # everybody in there holds the other end
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(shell=shell)], stdout=subprocess.PIPE, stderr=write, text=True
    )
    os.close(write)
    assert owner.stdout is not None
    with owner.stdout, open(read) as rest:
        handle = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
        owner.wait()
        assert rest.read() == ""  # ends with the last of them
        os.close(handle)


def test_the_warden_ends_too() -> None:
    script = OWNER.format(shell="echo 1; exec sleep 1000").replace(
        "threading.Event().wait()",
        "from netwarren.runtime import warden; print(warden.pid(), flush=True); threading.Event().wait()",
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        owner.stdout.readline()
        handle = os.pidfd_open(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    with open(handle, "rb", closefd=True) as warden:
        assert select.select([warden], [], [], 30)[0] == [warden]
