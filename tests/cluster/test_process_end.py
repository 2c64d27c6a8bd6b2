"""A process that has used clusters ends without a word."""

import subprocess
import sys

SCRIPT = """
import asyncio, sys
from netwarren import Cluster

async def in_a_task(pod):
    async with pod:
        await asyncio.sleep(0)

with Cluster() as cluster:
    pod = cluster.add_pod("pod")
    pod.check_output([sys.executable, "-c", "pass"])
    asyncio.run(in_a_task(pod))
left_open = Cluster()
left_open.add_pod("pod").popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""


def test_the_end_of_the_interpreter_warns_of_nothing() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
