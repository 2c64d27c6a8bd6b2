"""``pod.popen``: a program in the pod."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netwarren import ClosedError, Cluster, Pod
from netwarren.errors import ConfigurationError, ProgramError
from tests.runtime.conftest import eventually, where

PRINT = [sys.executable, "-c", "import os; print(os.stat('/proc/self/ns/net').st_ino)"]


def test_the_program_runs_in_the_pod(pod: Pod) -> None:
    program = pod.popen(PRINT)
    assert program.wait(30) == 0
    assert int(program.output) == pod.inode


def test_the_calling_thread_stays_where_it_is(pod: Pod) -> None:
    before = where()
    pod.popen(["true"]).wait(30)
    assert where() == before


def test_it_goes_on_while_the_caller_does(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE)
    assert (program.returncode, program.poll(), program.state) == (None, None, "running")
    assert program.stdin is not None
    program.stdin.write(b"through")
    program.stdin.close()
    assert program.wait(30) == 0
    assert program.output == "through"


def test_standard_input_is_empty_unless_asked_for(pod: Pod) -> None:
    assert pod.popen(["cat"]).wait(30) == 0


def test_working_directory_and_environment(pod: Pod, tmp_path: Path) -> None:
    program = pod.popen(["/bin/sh", "-c", 'pwd; echo "$WORD"'], cwd=tmp_path, env={"WORD": "given"})
    program.wait(30)
    assert program.output == f"{tmp_path}\ngiven\n"


def test_words_may_be_paths(pod: Pod, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    program = pod.popen([script])
    program.wait(30)
    assert (program.command, program.output) == ((str(script),), "ran\n")


def test_a_text_is_a_command_for_the_shell_only(pod: Pod) -> None:
    for text in ("echo 'one two'", b"echo 'one two'"):
        with pytest.raises(
            ConfigurationError, match=r"write a list, such as shlex\.split\(.*or give shell=True"
        ):
            pod.popen(text)  # type: ignore[arg-type]
        assert pod.check_output(text, shell=True) == "one two\n"  # type: ignore[arg-type]
    assert pod.check_output(["echo $0 $1", "zero", "one"], shell=True) == "zero one\n"
    with pytest.raises(ProgramError, match=r"'exit 3' in pod 'first' has exited 3"):
        pod.check_output("exit 3", shell=True)
    with pytest.raises(ConfigurationError, match="is one text, not a list of words"):
        pod.check_output("echo 'unfinished")


def test_what_no_program_could_be_given_is_refused(pod: Pod) -> None:
    with pytest.raises(ConfigurationError, match="cannot be started: embedded null byte"):
        pod.popen(["echo", "a\0b"])
    with pytest.raises(ConfigurationError, match="cannot be started: illegal environment variable name"):
        pod.popen(["echo"], env={"A=B": "c"})
    assert pod.programs == []


@pytest.mark.parametrize("command", [None, 5, ["echo", 5], [["echo"]]])
def test_what_is_no_command_is_refused(pod: Pod, command: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is no list of words, each a text or a path"):
        pod.popen(command)
    assert pod.programs == []


def test_words_may_be_bytes(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="false x in pod 'first' has exited 1"):
        pod.check_output([b"false", b"x"])  # type: ignore[list-item]


@pytest.mark.parametrize("interpreter", ["/no/such/python3", "/bin/sh\r"])
def test_a_missing_interpreter_is_told_as_such(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    script = tmp_path / "a-script"
    script.write_text(f"#! {interpreter} -u\n")
    script.chmod(0o755)
    told = re.escape(
        f"cannot be started: {script} exists, and the interpreter of its first line, {interpreter!r}, does not"
    )
    with pytest.raises(ProgramError, match=told):
        pod.popen([script])
    with pytest.raises(ProgramError, match=told.replace(re.escape(str(script)), ".*a-script")):
        pod.popen(["./a-script"], cwd=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ProgramError, match=told):
        pod.popen(["a-script"])


def test_a_program_that_a_private_directory_hides_is_told_as_such(pod: Pod, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    pod.private_directory(str(tmp_path))
    with pytest.raises(
        ProgramError, match="script exists, and what loads it does not, or a private directory hides"
    ):
        pod.popen([script])


def test_a_missing_program_is_told(pod: Pod) -> None:
    with pytest.raises(
        ProgramError, match=r"no-such-program in pod 'first' cannot be started: .*is not in PATH"
    ):
        pod.popen(["no-such-program"])
    with pytest.raises(ProgramError, match=r"/no/such/program does not exist"):
        pod.popen(["/no/such/program"])


def test_a_file_that_is_not_executable_is_told(pod: Pod, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    with pytest.raises(ProgramError, match="is not executable for this user"):
        pod.popen([str(plain)])


def test_a_working_directory_that_is_not_there_is_told(pod: Pod, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"nowhere: No such file or directory"):
        pod.popen(["true"], cwd=tmp_path / "nowhere")


def test_an_empty_command_is_told(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="the command is empty"):
        pod.popen([])


def test_a_program_that_could_not_be_started_is_not_listed(pod: Pod) -> None:
    with pytest.raises(ProgramError):
        pod.popen(["no-such-program"])
    assert pod.programs == []


def test_repr_and_describe_follow_its_life(pod: Pod) -> None:
    program = pod.popen(["cat"], stdin=subprocess.PIPE)
    assert repr(program) == f"<Program cat pid {program.pid} in pod 'first': running>"
    program.kill()
    assert program.state == "killed by SIGKILL"
    assert program.describe() == f"cat (pid {program.pid}): killed by SIGKILL"
    ended = pod.popen(["/bin/sh", "-c", "exit 3"])
    assert (ended.wait(30), ended.returncode, ended.state) == (3, 3, "exited 3")


def test_waiting_no_longer_than_asked(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo half-way; exec sleep 1000"])
    eventually(lambda: program.output)
    with pytest.raises(ProgramError, match=r"still runs after 0.01 s.*\n.*half-way"):
        program.wait(0.01)
    assert program.state == "running"


def test_terminate_and_send_signal(pod: Pod) -> None:
    first, second = pod.popen(["sleep", "1000"]), pod.popen(["sleep", "1000"])
    first.terminate()
    second.send_signal(signal.SIGINT)
    assert (first.wait(30), second.wait(30)) == (-signal.SIGTERM, -signal.SIGINT)


def test_stop_is_gentle_first(pod: Pod) -> None:
    program = pod.popen(
        ["/bin/sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"]
    )
    eventually(lambda: program.output == "up\n")
    assert program.stop(30) == 5
    assert program.output == "up\nbye\n"


def test_stop_kills_what_does_not_listen(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"])
    eventually(lambda: program.output == "up\n")
    assert program.stop(grace=0.05) == -signal.SIGKILL


def test_stopping_what_has_ended_tells_how(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "exit 4"])
    program.wait(30)
    assert program.stop() == 4


def test_kill_takes_its_children_along(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "sleep 1000 & echo $!; wait"])
    eventually(lambda: program.output.endswith("\n"))
    handle = os.pidfd_open(int(program.output))
    program.kill()
    with open(handle, "rb", closefd=True) as child:
        assert select.select([child], [], [], 30)[0] == [child]


def test_kill_works_for_a_program_in_our_own_process_group(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"], start_new_session=False)
    program.kill()
    assert program.state == "killed by SIGKILL"


def test_killing_twice_is_fine(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    program.kill()
    program.kill()


def test_programs_are_listed_in_the_order_of_their_start(pod: Pod) -> None:
    programs = [pod.popen(["true"]), pod.popen(["cat"])]
    assert pod.programs == programs


def test_a_hook_of_the_callers_runs_before_the_program(pod: Pod, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pod.popen(["true"], preexec_fn=lambda: os.close(os.open(mark, os.O_CREAT))).wait(30)
    assert mark.exists()


def test_other_descriptors_are_passed_on_request(pod: Pod) -> None:
    read, write = os.pipe()
    pod.popen(["/bin/sh", "-c", f"echo over >/proc/self/fd/{write}"], pass_fds=[write]).wait(30)
    os.close(write)
    with open(read) as pipe:
        assert pipe.read() == "over\n"


def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError):
        pod.popen(["true"])


def test_a_closed_directory_in_path_does_not_make_a_missing_program_a_forbidden_one(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # execve(2) of something below it is refused, for root too
    monkeypatch.setenv("PATH", f"{tmp_path}/file:/proc/1/root:{os.environ['PATH']}")
    with pytest.raises(ProgramError, match="is not in PATH"):
        pod.popen(["no-such-program"])
