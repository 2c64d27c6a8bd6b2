"""`Program.restart`: the same command anew, ready again, with its output going on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netwarren import Cluster, Pod, http, log, port
from netwarren.errors import ClosedError, ProgramError

WEB = [sys.executable, "-u", "-m", "http.server", "80"]


def test_a_server_is_ready_again_after_its_restart(pod: Pod, tmp_path: Path) -> None:
    program = pod.popen(WEB, cwd=tmp_path, ready=http("/"))
    before = program.pid
    program.restart()
    assert program.pid != before
    with pod.socket() as client:
        client.connect((pod.ip, 80))
    assert program.restarts == 1
    assert program.describe().endswith("running, ready, restarted 1 time")


def test_options_are_the_same(pod: Pod, tmp_path: Path) -> None:
    program = pod.popen(
        ["/bin/sh", "-c", 'pwd; echo "$WORD"; cat'],
        cwd=tmp_path,
        extra_env={"WORD": "given"},
        stdin=subprocess.PIPE,
    )
    for _time in range(2):
        program.wait_for_output(f"^{tmp_path}\ngiven$")
        assert program.stdin is not None
        program.stdin.write(b"read\n")
        program.stdin.flush()
        program.wait_for_output("read")
        program.restart()


def test_output_goes_on_behind_a_line_that_tells(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "printf one; exec sleep 1000"], ready=log("one"))
    program.restart()
    assert program.output == "one\n[restart 1: before it was killed by SIGTERM]\none"


def test_lines_of_before_do_not_make_it_ready(pod: Pod, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"[ -e {flag} ] || {{ touch {flag}; echo up; }}; exec sleep 1000"
    program = pod.popen(["/bin/sh", "-c", script], ready=log("up"), ready_timeout=0.5)
    with pytest.raises(ProgramError, match=r"is not ready within 0\.5 s") as raised:
        program.restart()
    assert raised.value.output.startswith("up\n[restart 1")
    assert program.state == "killed by SIGKILL"


def test_one_that_died_is_started_anew(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo up; read _; exit 3"], stdin=subprocess.PIPE, ready=log("up"))
    assert program.stdin is not None
    program.stdin.close()
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    program.restart()
    assert "[restart 1: before it was exited 3]" in program.output
    program.stdin.close()
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProgramError, match="has exited 3 and nobody expected"):
        cluster.close()  # that of the second run


def test_children_that_hold_the_port_are_ended_before(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", 'setsid "$@" & wait', "sh", *WEB], ready=port(80))
    for _time in range(3):
        program.restart()
    assert program.restarts == 3


def test_a_frozen_program_runs_after_its_restart(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    program.freeze()
    program.restart()
    assert program.state == "running"


@pytest.mark.usefixtures("nothing_kept")
def test_a_restart_leaves_no_descriptor(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    program.restart()
    before = os.listdir("/proc/self/fd")
    for _time in range(5):
        program.restart()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_restarts_in_a_pod_that_is_gone(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError):
        program.restart()
