"""A pod with a PID namespace: its programs see and signal one another, and nobody else; all end with the pod."""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from netwarren import Cluster, KernelError, Pod, ProgramError
from netwarren.kernel import mount, pidns, process, syscall
from netwarren.runtime import standing
from netwarren.runtime.ready import log
from tests.runtime.conftest import eventually
from tests.runtime.test_fork import in_child

SEEN = "import json, os; print(json.dumps(sorted(int(entry) for entry in os.listdir('/proc') if entry.isdigit())))"


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    return cluster.add_pod("apart", pid_namespace=True)


def python(pod: Pod, code: str, **options: object) -> str:
    return pod.check_output([sys.executable, "-c", code], **options).strip()  # type: ignore[arg-type]


def pid_namespace(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def first(pod: Pod) -> int:
    """PID 1 of the pod, by its id out here."""
    assert pod._processes is not None
    assert pod._processes._first is not None
    return pod._processes._first.pid


def ended(handle: int, seconds: float = 30) -> bool:
    """Whether the process behind a pidfd ends in time; closes that."""
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


# --- what programs see ----------------------------------------------------------------------------


def test_programs_see_only_the_pods_processes(pod: Pod) -> None:
    sleeper = pod.popen(["sleep", "1000"])
    code = "import os; print(os.getpid(), os.getppid(), os.readlink('/proc/self'))"
    own, parent, itself = map(int, python(pod, code).split())
    seen = json.loads(python(pod, SEEN))
    assert own == itself
    assert parent == 0  # that is out here
    assert len(seen) == 3, seen
    assert seen[0] == 1
    named = {pod.check_output(["cat", f"/proc/{pid}/comm"]).strip() for pid in seen[:2]}
    assert "sleep" in named
    assert sleeper.poll() is None


def test_a_pod_without_one_shares_ours(cluster: Cluster) -> None:
    pod = cluster.add_pod("together")
    assert python(pod, "import os; print(os.readlink('/proc/self/ns/pid'))") == pid_namespace("self")
    assert os.getpid() in json.loads(python(pod, SEEN))


def test_two_pods_do_not_see_each_other(cluster: Cluster, pod: Pod) -> None:
    other = cluster.add_pod("other", node="node-b", pid_namespace=True)
    programs = [each.popen(["sleep", "1000"]) for each in (pod, other)]
    assert len({pid_namespace(program.pid) for program in programs} | {pid_namespace("self")}) == 3
    assert len(json.loads(python(pod, SEEN))) == len(json.loads(python(other, SEEN))) == 3


def test_a_node_adds_such_a_pod_too(cluster: Cluster) -> None:
    pod = cluster.node("node-b").add_pod("apart", pid_namespace=True)
    assert json.loads(python(pod, SEEN))[0] == 1


def test_files_host_name_and_network_are_the_pods(pod: Pod) -> None:
    pod.private_directory("/data", files={"note": "mine\n"})
    pod.private_directory("/opt/none-such/below")
    seen = pod.check_output(
        ["sh", "-c", "uname -n; cat /etc/hostname /data/note; ls /sys/class/net; ls /opt/none-such"]
    )
    assert seen.split() == ["apart", "apart", "mine", "eth0", "lo", "below"]
    assert len(json.loads(python(pod, SEEN))) == 2


def test_code_of_this_process_keeps_its_own(pod: Pod) -> None:
    with pod:
        assert str(os.getpid()) in os.listdir("/proc")
        inside = subprocess.run(["readlink", "/proc/self/ns/pid"], capture_output=True, text=True, check=True)
    assert inside.stdout.strip() == pid_namespace("self")


def test_a_program_without_the_view_has_the_hosts_processes_too(pod: Pod) -> None:
    code = "import os; print(os.readlink('/proc/self/ns/pid'))"
    assert python(pod, code, view=False) == pid_namespace("self")


# --- signals --------------------------------------------------------------------------------------

KILL_ALL = """
import os, signal, sys
# The one thing that must not happen out here: so be sure.
assert os.getppid() == 0 and os.getpid() < 100
assert os.readlink("/proc/self") == str(os.getpid()) and len([e for e in os.listdir("/proc") if e.isdigit()]) < 10
assert os.readlink("/proc/self/ns/pid") != sys.argv[1]
os.kill(-1, signal.SIGKILL)
os.kill(1, signal.SIGKILL)
os.kill(1, signal.SIGTERM)
os.kill(1, signal.SIGINT)
print("survived", len([e for e in os.listdir("/proc") if e.isdigit()]))
"""


def test_killing_everybody_in_a_pod_hurts_nobody_outside_and_not_its_first_process(
    cluster: Cluster, pod: Pod
) -> None:
    inside = pod.popen(["sleep", "1000"])
    beside = cluster.add_pod("beside", pid_namespace=True).popen(["sleep", "1000"])
    outside = cluster.add_pod("outside").popen(["sleep", "1000"])
    said = pod.check_output([sys.executable, "-c", KILL_ALL, pid_namespace("self")])
    assert said.startswith("survived")
    assert inside.wait(30) == -signal.SIGKILL
    assert beside.poll() is None
    assert outside.poll() is None
    assert pod.check_output(["echo", "still here"]) == "still here\n"


def test_a_process_outside_has_no_id_inside(pod: Pod) -> None:
    code = f"import os; print(os.path.exists('/proc/{os.getpid()}')); os.kill({os.getpid()}, 0)"
    with pytest.raises(ProgramError, match="No such process") as refusal:
        python(pod, code)
    assert "False" in refusal.value.output


# --- orphans --------------------------------------------------------------------------------------

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", flush=True)
        {then}
    os._exit(0)
os.wait()
{first}
"""


def test_a_daemon_is_adopted_by_our_first_process_and_dies_with_the_pod(pod: Pod) -> None:
    program = pod.popen(
        [sys.executable, "-c", DAEMON.format(then="signal.pause()", first="signal.pause()")],
        ready=log("daemon"),
    )

    def others() -> list[int]:  # the daemon, and for a moment who made it
        return [pid for pid in process.standing_in({pod.inode}) if pid not in {program.pid, first(pod)}]

    eventually(lambda: [_parent(pid) for pid in others()] == [first(pod)])
    handles = [os.pidfd_open(pid) for pid in (*others(), first(pod), program.pid)]
    program.returncode  # noqa: B018
    program._expected = True
    pod.remove()
    assert all([ended(handle, 0) for handle in handles])  # noqa: C419


def test_orphans_leave_no_zombies(pod: Pod) -> None:
    pod.popen(
        [sys.executable, "-c", DAEMON.format(then="os._exit(0)", first="signal.pause()")], ready=log("daemon")
    )
    # PID 1, the program, and who looks
    eventually(lambda: len(json.loads(python(pod, SEEN))) == 3)


def _parent(pid: int) -> int | None:
    """The pid of its parent, None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


# --- programs, from out here ----------------------------------------------------------------------


def test_pids_are_those_out_here(pod: Pod) -> None:
    program = pod.popen(["sh", "-c", "sleep 1000 & echo up; wait"], ready=log("up"))
    assert program.pids[0] == program.pid
    assert len(program.pids) == 2
    assert {pid_namespace(pid) for pid in program.pids} == {pid_namespace(first(pod))}


def test_freeze_thaw_restart_and_kill_take_the_whole_tree(pod: Pod) -> None:
    program = pod.popen(["sh", "-c", "sleep 1000 & echo up; wait"], ready=log("up"))
    with program.freeze():
        assert {_state(pid) for pid in program.pids} == {"T"}
    assert _state(program.pid) != "T"
    before = [os.pidfd_open(pid) for pid in program.pids]
    program.restart()
    assert all([ended(handle) for handle in before])  # noqa: C419
    assert len(program.pids) == 2
    after = [os.pidfd_open(pid) for pid in program.pids]
    program.kill()
    assert all([ended(handle, 0) for handle in after])  # noqa: C419
    assert program.state == "killed by SIGKILL"
    assert pod.check_output(["echo", "on"]) == "on\n"


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def test_signals_and_exit_statuses_arrive(pod: Pod) -> None:
    program = pod.popen(
        ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"], ready=log("up")
    )
    program.terminate()
    assert program.wait(30) == 7
    with pytest.raises(ProgramError, match="has exited 3"):
        pod.check_output(["sh", "-c", "exit 3"])


def test_pipes_environment_and_working_directory_are_as_in_any_pod(pod: Pod, tmp_path: Path) -> None:
    assert pod.check_output(["cat"], input="through") == "through"
    code = "import os, sys; print(os.getcwd(), os.environ['MARK'], sys.stdin.readline())"
    program = pod.popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        extra_env={"MARK": "here"},
        text=True,
    )
    assert program.process.communicate("line", timeout=30)[0].split() == [str(tmp_path), "here", "line"]


def test_what_cannot_be_started_is_told_as_in_any_pod(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="no-such-program is not in PATH"):
        pod.popen(["no-such-program"])
    assert pod.check_output(["echo", "on"]) == "on\n"


def test_the_readiness_of_a_port_is_seen(pod: Pod) -> None:
    from netwarren.runtime.ready import port

    code = "import socket; s = socket.create_server(('', 80)); s.accept()"
    assert pod.popen([sys.executable, "-c", code], ready=port(80)).poll() is None


def test_a_forked_child_starts_programs_there(pod: Pod) -> None:
    pod.check_output(["true"])

    def start() -> None:
        assert json.loads(python(pod, SEEN))[0] == 1

    in_child(start)
    assert json.loads(python(pod, SEEN))[0] == 1


def test_a_ferry_that_is_lost_there_is_replaced_by_one_that_starts_programs_there(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = pod._processes
    assert processes is not None
    lost = processes.ferry.call(threading.get_ident)
    running = pod.popen(["sleep", "1000"])

    def setns(fd: int, flags: int, /) -> None:
        if threading.get_ident() == lost:
            raise OSError(errno.EPERM, "Operation not permitted")
        syscall.setns(fd, flags)

    monkeypatch.setattr(standing, "setns", setns)
    processes.ferry.call(lambda: None)
    assert processes.ferry.call(threading.get_ident) != lost
    seen = json.loads(python(pod, SEEN))
    assert seen[0] == 1
    assert len(seen) == 3
    assert running.poll() is None


def test_many_threads_start_programs_at_once(pod: Pod) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(python(pod, SEEN))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(each)[0] for each in said] == [1] * 4


# --- the end --------------------------------------------------------------------------------------


def test_the_end_of_its_first_process_is_everybodys(pod: Pod) -> None:
    programs = [pod.popen(["sleep", "1000"]) for _ in range(3)]
    os.kill(first(pod), signal.SIGKILL)
    assert {program.wait(30) for program in programs} == {-signal.SIGKILL}
    with pytest.raises(ProgramError, match=r"PID 1 of its PID namespace was killed\. Add the pod anew"):
        pod.popen(["true"])


def test_a_closed_cluster_leaves_nobody() -> None:
    with Cluster("short") as short:
        pods = [short.add_pod(name, pid_namespace=True) for name in ("one", "two")]
        for pod in pods:
            pod.popen(["sh", "-c", "setsid sleep 1000 & echo up; wait"], ready=log("up"))
        inodes = {pod.inode for pod in pods}
        handles = [os.pidfd_open(pid) for pid in process.standing_in(inodes)]
        assert len(handles) == 6
    assert all([ended(handle, 0) for handle in handles])  # noqa: C419


@pytest.mark.usefixtures("nothing_kept")
def test_twenty_of_them_leave_no_descriptor_thread_child_or_name(cluster: Cluster) -> None:
    from netwarren.sandbox import names

    def life() -> None:
        pod = cluster.add_pod("short", pid_namespace=True)
        assert pod.check_output(["echo", "x"]) == "x\n"
        pod.popen(["sleep", "1000"])
        pod.remove()

    def left() -> tuple[int, int, int]:
        return (
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            len(process.children() or ()),
        )

    def links() -> set[str]:
        with os.scandir(names.views()) as entries:
            found = {os.readlink(entry.path) for entry in entries if entry.is_symlink()}
        return {link for link in found if link.startswith(f"/proc/{os.getpid()}/")}

    life()
    before, told = left(), links()
    for _ in range(20):
        life()
    eventually(lambda: left() <= before)
    assert links() == told


OWNER = """
import threading
from netwarren import Cluster
from netwarren.runtime.ready import log
cluster = Cluster()
pod = cluster.add_pod("a", pid_namespace=True)
program = pod.popen(["/bin/sh", "-c", {shell!r}], ready=log("up"), may_exit=True)
from netwarren.kernel import process
print(*process.standing_in({{pod.inode}}), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(
    "shell",
    [
        "echo up; exec sleep 1000",
        "setsid sleep 1000 & echo up; wait",
        "(setsid sh -c 'echo up; exec sleep 1000' &); exec sleep 1000",
        "(setsid sh -c 'echo up; exec sleep 1000' &)",
    ],
)
def test_sigkill_of_the_owner_leaves_nobody(shell: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(shell=shell)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner.stdout:
        pids = owner.stdout.readline().split()
        assert len(pids) > 1
        handles = [os.pidfd_open(int(pid)) for pid in pids if os.path.exists(f"/proc/{pid}")]
        owner.kill()
        owner.wait()
    assert all([ended(handle) for handle in handles])  # noqa: C419


# --- where it is refused --------------------------------------------------------------------------


def refuse_proc(*_arguments: object) -> None:
    raise KernelError("mount netwarren on /proc", errno.EPERM)


def refuse_unshare(label: str) -> None:
    raise KernelError(f"make the PID namespace of {label}", errno.ENOSPC, hint="Let root run")


@pytest.mark.parametrize(
    ("module", "verb", "refuse", "message"),
    [
        (mount, "proc", refuse_proc, r"mount the /proc of .*pod 'late'.*EPERM.*systempaths=unconfined"),
        (pidns, "create", refuse_unshare, r"make the PID namespace of pod 'late'.*ENOSPC.*Let root run"),
    ],
)
def test_a_machine_that_refuses_it_is_told_and_nothing_is_left(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    verb: str,
    refuse: Callable[..., None],
    message: str,
) -> None:
    cluster.add_pod("there", pid_namespace=True).check_output(["true"])
    before = (sorted(cluster.pods), threading.active_count(), process.children())
    with monkeypatch.context() as patch:
        patch.setattr(module, verb, refuse)
        with pytest.raises(KernelError, match=message):
            cluster.add_pod("late", pid_namespace=True)
    assert (sorted(cluster.pods), threading.active_count(), process.children()) == before
    late = cluster.add_pod("late", pid_namespace=True)
    assert json.loads(python(late, SEEN))[0] == 1


def test_a_covered_proc_really_is_refused() -> None:
    script = """
from netwarren.kernel import mount, userns
from netwarren.kernel.syscall import CLONE_NEWNS
userns.enter(CLONE_NEWNS, userns.own_map())
mount.keep_to_ourselves()
mount.tmpfs("/proc/sys/fs")  # as a container does; nobody in a user namespace below may uncover it
from netwarren import Cluster, KernelError
with Cluster() as cluster:
    try:
        cluster.add_pod("a", pid_namespace=True)
    except KernelError as error:
        print(error)
    print(cluster.pods, cluster.add_pod("a").check_output(["echo", "on"]))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "mount the /proc of the PID namespace of pod 'a': EPERM" in told.stdout
    assert "procMount: Unmasked" in told.stdout
    assert "{} on" in told.stdout


def test_the_ferry_of_a_removed_pod_refuses_what_comes_late(cluster: Cluster, pod: Pod) -> None:
    from netwarren.errors import SteppingError

    processes = pod._processes
    assert processes is not None
    pod.remove()
    with pytest.raises(SteppingError, match="has ended"):
        processes.ferry.call(lambda: None)
    with contextlib.suppress(ProcessLookupError):
        assert first(pod) not in (process.children() or ())
