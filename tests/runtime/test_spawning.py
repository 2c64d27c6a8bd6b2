"""Programs that code standing in a pod starts by itself end with the process, as those of `popen` do."""

import os
import select
import signal
import subprocess
import sys

import pytest

SECONDS = 30

OWNER = """
import asyncio, os, subprocess, sys
from netwarren import Cluster

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]

def by_with(pod):
    with pod:
        return subprocess.Popen(SLEEP, stdout=subprocess.PIPE)

def by_start(pod):
    return pod.start(lambda: subprocess.Popen(SLEEP, stdout=subprocess.PIPE)).result()

def by_posix_spawn(pod):
    read, write = os.pipe()
    with pod:
        pid = os.posix_spawn(sys.executable, SLEEP, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    class Child:
        stdout = open(read, "rb")
    Child.pid = pid
    return Child

def by_asyncio(pod):
    async def main():
        async with pod:
            child = await asyncio.create_subprocess_exec(*SLEEP, stdout=asyncio.subprocess.PIPE)
        line = await child.stdout.readline()
        print(child.pid, flush=True)
        input()
    asyncio.run(main())

with Cluster() as cluster:
    child = globals()[sys.argv[1]](cluster.add_pod("web"))
    child.stdout.readline()
    print(child.pid, flush=True)
    input()
"""


@pytest.mark.parametrize("way", ["by_with", "by_start", "by_posix_spawn", "by_asyncio"])
def test_the_death_of_the_process_is_the_death_of_what_it_started_in_a_pod(way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        child = os.pidfd_open(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGKILL)
        owner.wait(SECONDS)
    poller = select.poll()
    poller.register(child, select.POLLIN)
    try:
        assert poller.poll(SECONDS * 1000), "it goes on"
    finally:
        os.close(child)
