"""`netwarren demo`, as a user sees it."""

import os
import subprocess
import sys
from pathlib import Path

import netwarren

SOURCES = str(Path(netwarren.__file__).parents[1])


def demo() -> "subprocess.CompletedProcess[str]":
    # -S: without site-packages, as on a machine where nothing is installed.
    return subprocess.run(
        [sys.executable, "-S", "-m", "netwarren", "demo"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_demo_shows_the_topology_and_every_way_of_talking() -> None:
    result = demo()
    assert result.returncode == 0, result.stderr
    for line in (
        "└─ root  br0 172.18.0.1/16",
        "├─ node-a  eth0 172.18.0.2  pods 10.0.1.0/24",
        "└─ farther  eth0 10.0.2.3",
        "a thread,  same node: near asks server, which answers 'ping from 10.0.1.3'",
        "a thread,  other node: far asks server, which answers 'ping from 10.0.2.2'",
        "a program, other node: farther asks server, which answers 'ping from 10.0.2.3'",
        "a task,    other node: far asks server, which answers 'ping from 10.0.2.2'",
        "in all; nothing is left behind",
    ):
        assert line in result.stdout
    assert result.stderr == ""


def test_version_is_told() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "netwarren", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.split() == ["netwarren", netwarren.__version__]


def test_no_command_is_a_usage_error() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "netwarren"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "usage: netwarren" in result.stderr
