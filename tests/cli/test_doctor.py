"""``netwarren doctor``: what it tells of this machine and of worse ones, and that it leaves no trace."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netwarren import Cluster, doctor
from netwarren.doctor import Check, Examination, Outcome, entering, report
from netwarren.doctor.check import Amiss, explain, hindrance
from netwarren.doctor.ground import Ground
from netwarren.errors import KernelError, SandboxError
from netwarren.kernel import process
from netwarren.kernel.syscall import CLONE_NEWIPC, unshare
from netwarren.runtime import view
from netwarren.sandbox.diagnosis import Facts

# Turns user namespaces off for itself and what it starts, as an administrator would for the machine.
REFUSING = """
import sys
from netwarren.kernel import userns
from netwarren.cli import main
userns.enter(0, userns.own_map())
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
sys.exit(main(sys.argv[1:]))
"""


def check(name: str, perform: Callable[[Ground], object], *, required: bool = True, **options: Any) -> Check:
    def performed(ground: Ground) -> None:
        perform(ground)

    return Check(name, f"needed for {name}", performed, required=required, **options)


def fine(_ground: Ground) -> None:
    pass


def refused(_ground: Ground) -> None:
    raise KernelError("make a thing", 1)


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=100, **options)


def statuses(examination: Examination) -> dict[str, str]:
    return {name: outcome.status for name, outcome in examination.outcomes.items()}


def traces() -> tuple[object, ...]:
    """What a doctor that is careless would change of its caller."""
    return (
        {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("user", "mnt", "net", "pid")},
        sorted(os.listdir("/proc/self/fd")),
        process.children(),
        process.threads(),
        dict(os.environ),
        socket.if_nameindex(),
        os.getpgrp(),
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
    )


# --- on this machine ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examined_here() -> tuple[Examination, object, object]:
    """One whole examination, with the traces before and after it."""
    before = traces()
    return doctor.examine(), before, traces()


@pytest.fixture(scope="module")
def printed_json(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """What ``netwarren doctor --json`` prints, and the directory it might leave files in."""
    place = tmp_path_factory.mktemp("doctor")
    environment = {**os.environ, "TMPDIR": str(place), "HOME": str(place)}
    return run("-B", "-m", "netwarren", "doctor", "--json", cwd=place, env=environment), place


def test_the_main_job_can_run_where_these_tests_run(
    examined_here: tuple[Examination, object, object],
) -> None:
    examination, _, _ = examined_here
    required = {check.name: examination.outcomes[check.name] for check in doctor.CHECKS if check.required}
    assert {name: outcome for name, outcome in required.items() if outcome.status != "works"} == {}
    assert examination.main_job
    for check in doctor.CHECKS:
        outcome = examination.outcomes[check.name]
        assert "the check itself failed" not in outcome.why
        if outcome.status == "missing":
            assert outcome.why, check.name
            assert outcome.remedy, check.name


def test_the_caller_stays_as_it_was(examined_here: tuple[Examination, object, object]) -> None:
    _, before, after = examined_here
    assert after == before


def test_a_caller_with_threads_is_examined_as_well_as_one_without() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert doctor.examine(entering.CHECKS).main_job
    finally:
        end.set()
        thread.join()


def test_no_file_is_left_behind(printed_json: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    result, place = printed_json
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert list(place.iterdir()) == []


def test_json_holds_every_check_in_order(
    printed_json: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    told = json.loads(printed_json[0].stdout)
    assert [each["name"] for each in told["checks"]] == [check.name for check in doctor.CHECKS]
    keys = {"name", "needed_for", "required", "status", "why", "remedy"}
    assert all(each.keys() == keys for each in told["checks"])
    assert {each["status"] for each in told["checks"]} <= {"works", "missing", "not tried"}
    assert told["main_job"] is True
    assert told["kernel"] == os.uname().release


def test_what_was_buffered_before_is_printed_once() -> None:
    words = "import sys; from netwarren import doctor; sys.stdout.write('before '); doctor.examine(doctor.CHECKS[:1])"
    assert run("-c", words).stdout.count("before ") == 1


def test_a_pid_namespace_that_is_refused_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from netwarren.kernel import mount

    def refuse() -> None:
        raise KernelError("mount netwarren on /proc", 1)

    monkeypatch.setattr(mount, "proc", refuse)
    examination = doctor.examine((*entering.CHECKS, *entering.OTHER_WAYS))
    outcome = examination.outcomes["PID namespace"]
    assert outcome.status == "missing"
    assert "mount netwarren on /proc: EPERM" in outcome.why
    assert "systempaths=unconfined" in outcome.remedy
    assert examination.main_job


def test_it_says_that_programs_have_a_view_where_they_have(cluster: Cluster) -> None:
    examination = doctor.examine((*entering.CHECKS, *entering.OTHER_WAYS))
    links = cluster.add_pod("first").check_output(["ls", "/sys/class/net"]).split()
    assert (examination.outcomes["a pod's view"].status == "works") == (links == ["eth0", "lo"])


def test_a_view_without_a_sys_of_its_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from netwarren.kernel import mount

    monkeypatch.setattr(mount, "sysfs", lambda: False)
    examination = doctor.examine((*entering.CHECKS, *entering.OTHER_WAYS))
    outcome = examination.outcomes["a pod's view"]
    assert outcome.status == "missing"
    assert "programs see the host's links" in outcome.why
    assert examination.main_job


def test_a_machine_without_ipc_namespaces_has_no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int, doing: str) -> None:
        if flags & CLONE_NEWIPC:
            raise KernelError(doing, 22)
        unshare(flags, doing)

    monkeypatch.setattr(view, "unshare", refuse)
    examination = doctor.examine((*entering.CHECKS, *entering.OTHER_WAYS))
    outcome = examination.outcomes["a pod's view"]
    assert "part with the process's working directory, host name and shared memory: EINVAL" in outcome.why
    assert "seccomp" in outcome.remedy
    assert examination.main_job


# --- on worse machines ----------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.access("/proc/sys/user", os.R_OK), reason="this kernel does not limit user namespaces"
)
def test_a_machine_without_user_namespaces_exits_1_and_names_the_cause() -> None:
    result = run("-c", REFUSING, "doctor")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "why: user.max_user_namespaces is 0" in result.stdout
    assert "sysctl -w user.max_user_namespaces=" in result.stdout
    assert "cannot run here: see user namespace." in result.stdout
    told = json.loads(run("-c", REFUSING, "doctor", "--json").stdout)
    assert told["main_job"] is False
    found = {each["name"]: each for each in told["checks"]}
    assert found["user namespace"]["status"] == "missing"
    assert found["traffic across a node"]["status"] == "not tried"
    assert found["entering beside threads"]["status"] == "not tried"
    assert found["pidfd"]["status"] == "works"


def test_a_refusal_half_way_into_the_sandbox_is_told_of_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from netwarren.kernel import mount

    def refuse() -> None:
        raise KernelError("mount flags on /", 13)

    monkeypatch.setattr(mount, "keep_to_ourselves", refuse)
    examination = doctor.examine()
    found = statuses(examination)
    assert found["user namespace"] == found["id maps"] == found["capabilities after exec"] == "works"
    assert found["mount namespace"] == "missing"
    assert "mount flags on /: EACCES" in examination.outcomes["mount namespace"].why
    assert found["network namespace"] == "not tried"
    assert not examination.main_job


def test_a_check_that_is_killed_is_reported_and_the_others_go_on() -> None:
    def die(_ground: Ground) -> None:
        os.kill(os.getpid(), signal.SIGSYS)

    checks = (
        check("first", fine),
        check("deadly", die, required=False),
        check("after it", fine, required=False, needs=("deadly",)),
        check("last", fine, needs=("first",)),
    )
    before = traces()
    examination = doctor.examine(checks)
    assert statuses(examination) == {
        "first": "works",
        "deadly": "missing",
        "after it": "not tried",
        "last": "works",
    }
    assert "killed by SIGSYS: a seccomp filter" in examination.outcomes["deadly"].why
    assert "seccomp=unconfined" in examination.outcomes["deadly"].remedy
    assert examination.outcomes["after it"].why == "it needs what does not work: deadly"
    assert examination.main_job
    assert traces() == before


@pytest.mark.parametrize("alone", [False, True])
def test_a_check_that_ends_its_process_is_reported_with_the_status(alone: bool) -> None:
    examination = doctor.examine((check("leaving", lambda _: os._exit(3), alone=alone), check("next", fine)))
    assert examination.outcomes["leaving"].why == "the process that tried it ended with status 3"
    assert statuses(examination)["next"] == "works"


def test_a_check_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def hang(_ground: Ground) -> None:
        child = os.fork()
        if child:
            pids.write_text(str(child))
        while True:
            signal.pause()

    examination = doctor.examine((check("endless", hang), check("next", fine)), seconds=0.5)
    assert examination.outcomes["endless"].why == "it did not end within 0.5 s"
    assert statuses(examination)["next"] == "works"
    try:
        handle = os.pidfd_open(int(pids.read_text()))
    except ProcessLookupError:
        return
    # Killed, and perhaps not gone yet: whoever inherits orphans here has to notice.
    with open(handle):
        import select

        assert select.select([handle], [], [], 10)[0]


def test_a_bug_in_a_check_is_told_apart_from_a_machine_that_lacks_something() -> None:
    def broken(_ground: Ground) -> None:
        raise ValueError("oh")

    examination = doctor.examine((check("broken", broken),))
    assert examination.outcomes["broken"] == Outcome(
        "missing", "the check itself failed: ValueError('oh')", "report it as a bug of netwarren"
    )


# --- pure -----------------------------------------------------------------------------------------


def test_every_check_has_a_name_of_its_own_and_needs_only_what_comes_before() -> None:
    names = [check.name for check in doctor.CHECKS]
    assert len(set(names)) == len(names)
    for position, each in enumerate(doctor.CHECKS):
        assert set(each.needs) <= set(names[:position]), each.name
        if each.required:
            assert all(one.required for one in doctor.CHECKS if one.name in each.needs), each.name


def test_an_error_that_knows_a_remedy_is_heard_before_the_check() -> None:
    one = check("veth", fine, remedy="the check's")
    assert explain(one, KernelError("add veth", 95, hint="the error's")).remedy == "the error's"
    assert explain(one, KernelError("add veth", 95)) == Outcome(
        "missing", "add veth: EOPNOTSUPP (Operation not supported)", "the check's"
    )
    assert explain(one, Amiss("wrong")) == Outcome("missing", "wrong", "the check's")
    assert explain(one, TimeoutError()).why == "nothing arrived in time"
    assert explain(one, PermissionError(13, "No", "/dev/x")).why == "[Errno 13] No: '/dev/x'"
    error = SandboxError("create a user namespace", "it is off", "turn it on", 28)
    error.__cause__ = KernelError("create a user namespace", 28)
    assert explain(one, error) == Outcome(
        "missing", "it is off (create a user namespace: ENOSPC)", "turn it on"
    )


@pytest.mark.parametrize("status", ["missing", "not tried"])
def test_a_check_is_not_tried_where_what_it_needs_does_not_work(status: Any) -> None:
    one = check("bridge", fine, needs=("veth",))
    assert hindrance(one, {"veth": Outcome("works")}) is None
    assert hindrance(one, {"veth": Outcome(status)}) == Outcome(
        "not tried", "it needs what does not work: veth"
    )


def examined(**outcomes: Outcome) -> Examination:
    checks = [check(name, fine, required=name != "tun") for name in outcomes]
    return Examination("6.1", "3.12.0", Facts(max_user_namespaces=5, uid=1000), checks, outcomes)


def test_the_table_reads_from_what_is_needed_to_what_is_not() -> None:
    examination = examined(
        tun=Outcome("missing", "there is none", "make one"),
        veth=Outcome(
            "missing",
            "the reason is told at length, in words that go on for longer than a line of a table is wide, and go on below themselves",
            "turn it on",
        ),
        bridge=Outcome("not tried", "it needs what does not work: veth"),
        netns=Outcome("works"),
    )
    assert report.as_table(examination) == (
        "Linux 6.1, Python 3.12.0, uid 1000\n"
        "  user.max_user_namespaces is 5\n"
        "\n"
        "What every cluster takes:\n"
        "  veth    missing    needed for veth\n"
        "      why: the reason is told at length, in words that go on for longer than a line of a table is wide, and go\n"
        "           on below themselves\n"
        "      remedy: turn it on\n"
        "  bridge  not tried  needed for bridge\n"
        "      why: it needs what does not work: veth\n"
        "  netns   works      needed for netns\n"
        "\n"
        "What some tests take besides:\n"
        "  tun     missing    needed for tun\n"
        "      why: there is none\n"
        "      remedy: make one\n"
        "\n"
        "The main job (pods on nodes, traffic between them) cannot run here: see veth.\n"
    )


def test_what_is_not_needed_does_not_count_against_the_main_job() -> None:
    examination = examined(tun=Outcome("missing", "there is none", "make one"), veth=Outcome("works"))
    assert examination.main_job
    assert report.as_table(examination).endswith("traffic between them) can run here.\n")


def test_only_a_terminal_gets_colours() -> None:
    examination = examined(veth=Outcome("works"))
    assert "\x1b" not in report.as_table(examination)
    assert "\x1b[32mworks    \x1b[0m" in report.as_table(examination, colours=True)


def test_facts_tell_what_is_not_as_everywhere() -> None:
    assert report.facts_in_words(Facts()) == []
    machine = Facts(
        apparmor_restricts=1, container="a Docker container", gvisor=True, seccomp=True, chroot=True
    )
    assert report.facts_in_words(machine) == [
        "this is a Docker container",
        "the kernel is gVisor (runsc)",
        "this process runs in a chroot",
        "a seccomp filter is on this process",
        "kernel.apparmor_restrict_unprivileged_userns is 1",
    ]
