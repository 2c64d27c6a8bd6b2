"""`diagnosis.explain`: from the kernel's answer and the machine's settings to one cause and its remedy."""

import errno
import pickle

import pytest

from netwarren.errors import KernelError, SandboxError
from netwarren.sandbox.diagnosis import Facts, explain, facts

ORDINARY = 1000


def refusal(number: int, machine: Facts, detail: str = "") -> SandboxError:
    error = KernelError("create a user namespace", number, detail=detail)
    return explain("create a user namespace", error, machine)


@pytest.mark.parametrize(
    ("number", "machine", "cause", "remedy"),
    [
        pytest.param(
            errno.EPERM,
            Facts(apparmor_restricts=1, uid=ORDINARY),
            "apparmor_restrict_unprivileged_userns",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            id="apparmor",
        ),
        pytest.param(
            errno.EACCES,
            Facts(apparmor_restricts=1, uid=ORDINARY),
            "AppArmor",
            "profile that has `userns,`",
            id="apparmor-takes-the-capabilities",
        ),
        pytest.param(
            errno.ENOSPC,
            Facts(max_user_namespaces=0, uid=ORDINARY),
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=15000",
            id="max-0",
        ),
        pytest.param(
            errno.ENOSPC,
            Facts(max_user_namespaces=7, uid=ORDINARY),
            "all 7 user namespaces",
            "end processes that hold some",
            id="max-exhausted",
        ),
        pytest.param(
            errno.EUSERS,
            Facts(max_user_namespaces=15000),
            "32 are nested already",
            "sysctl -w user.max_user_namespaces",
            id="nested-too-deep",
        ),
        pytest.param(
            errno.EPERM,
            Facts(unprivileged_userns_clone=0, uid=ORDINARY),
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
            id="unprivileged-clone",
        ),
        pytest.param(
            errno.EPERM,
            Facts(seccomp=True, container="a Docker container"),
            "a Docker container",
            "--security-opt seccomp=unconfined",
            id="docker",
        ),
        pytest.param(
            errno.EPERM,
            Facts(container="a Kubernetes pod"),
            "a Kubernetes pod",
            "procMount Unmasked",
            id="kubernetes",
        ),
        pytest.param(
            errno.EPERM,
            Facts(seccomp=True),
            "seccomp filter",
            "seccomp=unconfined",
            id="seccomp-without-a-known-container",
        ),
        pytest.param(errno.EPERM, Facts(gvisor=True), "gVisor", "runc", id="gvisor"),
        pytest.param(
            errno.EINVAL,
            Facts(threads=5),
            "5 threads",
            "import netwarren.sandbox.auto",
            id="threads",
        ),
        pytest.param(errno.EPERM, Facts(chroot=True), "chroot", "pivot_root", id="chroot"),
        pytest.param(
            errno.EINVAL,
            Facts(user_namespaces=False),
            "no user namespaces",
            "CONFIG_USER_NS=y",
            id="kernel-without",
        ),
        pytest.param(errno.ENOSYS, Facts(), "no user namespaces", "CONFIG_USER_NS=y", id="no-such-call"),
        pytest.param(errno.EPERM, Facts(), "nothing that is known", "dmesg", id="unknown"),
        pytest.param(errno.EIO, Facts(), "nothing that is known", "dmesg", id="unknown-errno"),
    ],
)
def test_each_cause_is_told_with_its_remedy(number: int, machine: Facts, cause: str, remedy: str) -> None:
    error = refusal(number, machine)
    assert cause in error.cause
    assert remedy in error.remedy
    assert error.errno == number


@pytest.mark.parametrize(
    ("number", "machine", "cause"),
    [
        pytest.param(
            errno.EPERM,
            Facts(apparmor_restricts=1, unprivileged_userns_clone=1, max_user_namespaces=9, uid=ORDINARY),
            "AppArmor",
            id="what-is-allowed-is-not-blamed",
        ),
        pytest.param(
            errno.EPERM,
            Facts(apparmor_restricts=1, unprivileged_userns_clone=0, uid=0, seccomp=True),
            "seccomp",
            id="root-is-not-stopped-by-settings-for-others",
        ),
        pytest.param(
            errno.EPERM, Facts(apparmor_restricts=0, chroot=True, uid=ORDINARY), "chroot", id="apparmor-off"
        ),
        pytest.param(
            errno.EPERM,
            Facts(threads=5, seccomp=True),
            "seccomp",
            id="threads-are-blamed-for-einval-only",
        ),
        pytest.param(
            errno.EPERM,
            Facts(gvisor=True, seccomp=True, container="a Kubernetes pod"),
            "gVisor",
            id="gvisor-first",
        ),
        pytest.param(
            errno.ENOSPC, Facts(max_user_namespaces=0, threads=3), "max_user_namespaces is 0", id="zero-first"
        ),
    ],
)
def test_of_several_the_likeliest_is_told(number: int, machine: Facts, cause: str) -> None:
    assert cause in refusal(number, machine).cause


def test_the_message_has_step_errno_cause_and_remedy() -> None:
    error = refusal(errno.EPERM, Facts(chroot=True))
    text = str(error)
    assert text.startswith("cannot create a user namespace")
    for part in ("EPERM", error.cause, f"Remedy: {error.remedy}"):
        assert part in text


def test_the_message_says_a_step_once_where_it_is_what_the_kernel_was_asked() -> None:
    assert str(refusal(errno.EPERM, Facts())).count("create a user namespace") == 1


def test_what_the_kernel_was_asked_is_told_where_it_is_not_the_step() -> None:
    error = explain("mount in the new mount namespace", KernelError("mount flags on /", errno.EPERM), Facts())
    assert "mount in the new mount namespace (mount flags on /)" in str(error)


def test_the_details_of_a_helper_are_kept() -> None:
    error = refusal(errno.EPERM, Facts(), detail="newuidmap: uid range not allowed")
    assert "newuidmap: uid range not allowed" in error.cause


def test_a_refusal_travels_between_processes() -> None:
    error = refusal(errno.EPERM, Facts(chroot=True))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.errno) == (SandboxError, str(error), errno.EPERM)


def test_facts_are_read_from_this_machine() -> None:
    machine = facts()
    assert machine.threads >= 1
    assert machine.user_namespaces
    assert machine.max_user_namespaces is None or machine.max_user_namespaces > 0
    assert not machine.gvisor
