"""Why the sandbox cannot be entered: from the kernel's answer and the machine's settings to one cause.

Rules: `facts` reads, `explain` decides (pure); one cause, the likeliest, and its remedy; what the
machine does not tell is said to be likely, not certain.
Does not belong here: trying (see `entry` and `netwarren.doctor`).
"""

import errno
import os
from dataclasses import dataclass

from netwarren.errors import KernelError, SandboxError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine says about user namespaces; None where it says nothing."""

    threads: int = 1
    apparmor_restricts: int | None = None
    """kernel.apparmor_restrict_unprivileged_userns (Ubuntu 23.10 and later)"""
    max_user_namespaces: int | None = None
    """user.max_user_namespaces, the limit of this user namespace"""
    unprivileged_userns_clone: int | None = None
    """kernel.unprivileged_userns_clone (Debian's and Arch's patch)"""
    user_namespaces: bool = True
    """/proc/self/ns/user exists: the kernel was built with CONFIG_USER_NS"""
    seccomp: bool = False
    """a seccomp filter is on this process (Docker, Podman, systemd)"""
    container: str = ""
    """what kind of container this is, as far as files tell"""
    gvisor: bool = False
    chroot: bool = False
    uid: int = 0


def facts() -> Facts:
    """The facts of this machine and process."""
    status = _text("/proc/self/status")
    return Facts(
        threads=_field(status, "Threads") or 1,
        apparmor_restricts=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        user_namespaces=os.path.exists("/proc/self/ns/user"),
        seccomp=_field(status, "Seccomp") == 2,
        container=_container(),
        gvisor=_gvisor(),
        chroot=_chroot(),
        uid=os.geteuid(),
    )


def explain(step: str, error: KernelError, machine: Facts) -> SandboxError:
    """The `SandboxError` that tells why ``step`` met ``error`` on ``machine``, and what to do."""
    cause, remedy = _cause(error.errno, machine)
    if error.detail:
        cause = f"{cause} ({error.detail})"
    doing = step if error.operation == step else f"{step} ({error.operation})"
    return SandboxError(doing, cause, remedy, error.errno)


def _cause(number: int, machine: Facts) -> tuple[str, str]:
    refused = number in (errno.EPERM, errno.EACCES)
    if machine.gvisor:
        return (
            "this is gVisor (runsc), whose kernel does not give what the sandbox needs",
            "run the tests under another runtime (runc), or in a virtual machine",
        )
    if not machine.user_namespaces or number == errno.ENOSYS:
        return (
            "this kernel has no user namespaces",
            "use a kernel built with CONFIG_USER_NS=y, as those of all large distributions are",
        )
    if number == errno.EINVAL and machine.threads > 1:
        return (
            f"this process has {machine.threads} threads, and a user namespace is for processes of one",
            "enter before threads start: `import netwarren.sandbox.auto` first of all, or "
            "`netwarren run -- COMMAND`",
        )
    if machine.max_user_namespaces == 0:
        return (
            "user.max_user_namespaces is 0: an administrator has turned user namespaces off",
            "let root run `sysctl -w user.max_user_namespaces=15000`, and put it in /etc/sysctl.d to keep it",
        )
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            f"all {machine.max_user_namespaces or ''} user namespaces that user.max_user_namespaces allows "
            "are taken, or 32 are nested already",
            "end processes that hold some, or let root raise it with `sysctl -w user.max_user_namespaces=...`",
        )
    if refused and machine.unprivileged_userns_clone == 0 and machine.uid != 0:
        return (
            "kernel.unprivileged_userns_clone is 0: only root may make user namespaces",
            "let root run `sysctl -w kernel.unprivileged_userns_clone=1`, and put it in /etc/sysctl.d to keep it",
        )
    if refused and machine.apparmor_restricts and machine.uid != 0:
        return (
            "AppArmor keeps unprivileged user namespaces without capabilities here "
            "(kernel.apparmor_restrict_unprivileged_userns is 1, as on Ubuntu 23.10 and later)",
            "let root run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (in CI: one step with sudo), "
            "or give your python an AppArmor profile that has `userns,`",
        )
    if refused and machine.chroot:
        return (
            "this process runs in a chroot, where the kernel refuses user namespaces",
            "run outside the chroot, or let what set it up use pivot_root",
        )
    if refused and (machine.container or machine.seccomp):
        kind = machine.container or "a sandbox with a seccomp filter"
        profile = "seccomp profile" if machine.seccomp else "AppArmor or SELinux profile"
        return (
            f"this runs in {kind}, whose {profile} most likely forbids it",
            "start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined` (Docker, Podman), or with `--privileged`; in Kubernetes set "
            "seccompProfile Unconfined and procMount Unmasked",
        )
    return (
        "the kernel refused, and nothing that is known to forbid it is set here (a security module, "
        "perhaps SELinux or a policy of the machine's owner)",
        "look for a denial in the kernel's log (`dmesg`, `journalctl -k`), and try `netwarren doctor` as root",
    )


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _field(status: str, name: str) -> int:
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def _container() -> str:
    if os.path.exists("/.dockerenv"):
        return "a Docker container"
    if os.path.exists("/run/.containerenv"):
        return "a Podman container"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "a Kubernetes pod"
    if kind := os.environ.get("container"):  # noqa: SIM112 - systemd's name for it
        return f"a container ({kind})"
    return ""


def _gvisor() -> bool:
    # gVisor reports a fixed old kernel and has no kernel threads; its own boot log is what names it.
    if "gvisor" in _text("/proc/version").lower():
        return True
    try:
        import ctypes

        buffer = ctypes.create_string_buffer(1 << 14)
        length = ctypes.CDLL(None).klogctl(3, buffer, len(buffer))  # SYSLOG_ACTION_READ_ALL
    except OSError:
        return False
    return length > 0 and b"Starting gVisor" in buffer.raw[:length]


def _chroot() -> bool:
    # Where / is no mount point, it is a directory that somebody changed the root to.
    mounts = [line.split() for line in _text("/proc/self/mountinfo").splitlines()]
    if mounts and not any(fields[4] == "/" for fields in mounts):
        return True
    try:
        root, init = os.stat("/"), os.stat("/proc/1/root")
    except OSError:
        return False  # an ordinary user may not look
    return (root.st_dev, root.st_ino) != (init.st_dev, init.st_ino)
