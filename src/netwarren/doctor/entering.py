"""The checks of the sandbox: user namespace, id maps, capabilities, mounts; and its other ways in.

Rules: entered through the library's own door, once; what that door says is shared out to the steps it
is made of, in their order.
Does not belong here: causes and remedies (see `netwarren.sandbox.diagnosis`).
"""

import os
import signal
import socket
import sys
import threading

from netwarren.doctor.check import Amiss, Check
from netwarren.doctor.ground import Ground, inode
from netwarren.errors import KernelError, SandboxError
from netwarren.kernel import capability, mount, netns, pidns, process
from netwarren.kernel.syscall import CLONE_NEWNS, unshare
from netwarren.runtime.view import View
from netwarren.sandbox import Sandbox, fork, names

USER_NAMESPACE = "user namespace"
ID_MAPS = "id maps"
CAPABILITIES = "capabilities after exec"
MOUNTS = "mount namespace"

# linux/capability.h
_CAP_NET_ADMIN = 12
_CAP_NET_RAW = 13
_CAP_SYS_ADMIN = 21

_EFFECTIVE = "print(next(l for l in open('/proc/self/status') if l.startswith('CapEff:')).split()[1])"


def _step(error: SandboxError) -> str:
    """The check that a refusal of the sandbox's door belongs to."""
    cause = error.__cause__
    if error.step.startswith("make capabilities ambient"):
        return CAPABILITIES
    if error.step.startswith("mount in"):
        return MOUNTS
    if isinstance(cause, KernelError) and cause.operation != "create a user namespace":
        return ID_MAPS
    return USER_NAMESPACE


def _user_namespace(ground: Ground) -> None:
    try:
        Sandbox().enter_here()
    except SandboxError as error:
        ground.refusal, ground.refused = error, _step(error)
    # Credentials have changed, and the kernel has forgotten what it was asked before.
    process.die_with_parent()
    _share_out(ground, USER_NAMESPACE)
    if inode("user") == ground.outside["user"]:
        raise Amiss("the call worked and the user namespace is the same as before")


def _share_out(ground: Ground, step: str) -> None:
    if ground.refusal is not None and ground.refused == step:
        raise ground.refusal


def _id_maps(ground: Ground) -> None:
    _share_out(ground, ID_MAPS)
    if os.geteuid() != ground.machine.uid:
        raise Amiss(f"uid {ground.machine.uid} has become uid {os.geteuid()}")


def _capabilities(ground: Ground) -> None:
    _share_out(ground, CAPABILITIES)
    if not capability.has(_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_NET_RAW):
        raise Amiss("this process has no CAP_NET_ADMIN, CAP_NET_RAW or CAP_SYS_ADMIN in its user namespace")
    words = [sys.executable or "python3", "-I", "-S", "-c", _EFFECTIVE]
    kept = int(_output(words).strip() or "0", 16)
    if not kept >> _CAP_NET_ADMIN & 1:
        raise Amiss(f"a program started here has only the capabilities {kept:#x}")


def _output(words: list[str]) -> str:
    """What this very interpreter prints, started anew: no other program is sure to be there."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            process.die_with_parent()
            os.dup2(write, 1)
            os.execv("/proc/self/exe", words)
        finally:
            os._exit(127)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise Amiss(f"a program started here ended with {os.waitstatus_to_exitcode(status)}")
    return text


def _mounts(ground: Ground) -> None:
    _share_out(ground, MOUNTS)
    if inode("mnt") == ground.outside["mnt"]:
        raise Amiss("the call worked and the mount namespace is the same as before")


def _names(_ground: Ground) -> None:
    if not os.path.isdir(names.directory()):
        raise Amiss(f"there is no {names.directory()} of our own")
    descriptor = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.listdir(names.directory()):
            raise Amiss(f"{names.directory()} of the sandbox is not empty, so it is not private")
        names.publish("doctor", descriptor)
        if os.listdir(names.directory()) != ["doctor"]:
            raise Amiss(f"a name published in {names.directory()} does not show there")
        names.withdraw("doctor")
    finally:
        os.close(descriptor)


def _pid_namespace(_ground: Ground) -> None:
    """PID 1 in one, with a /proc that shows nobody else, in a process that ends with it."""
    ours, theirs = socket.socketpair()
    middle = os.fork()
    if middle == 0:
        try:
            process.die_with_parent()
            theirs.send(_try_pid_namespace().encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        number, _, why = ours.recv(4096).decode().partition(" ")
    os.waitpid(middle, 0)
    if why:
        raise KernelError(why, int(number), hint=pidns.COVERED if why.startswith("mount") else "")
    if number != "1":
        raise Amiss(f"/proc of a new PID namespace shows the processes {number}")


def _try_pid_namespace() -> str:
    """``ERRNO OPERATION`` of what failed, or the processes that the first one sees."""
    try:
        unshare(CLONE_NEWNS, "make a mount namespace for a PID namespace")
        pidns.create("a pod")
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                os.write(write, _seen_from_within().encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as pipe:
            return pipe.read()
    except KernelError as error:
        return f"{error.errno} {error.operation}"


def _seen_from_within() -> str:
    try:
        mount.proc()
    except KernelError as error:
        return f"{error.errno} {error.operation}"
    return ",".join(sorted(entry for entry in os.listdir("/proc") if entry.isdigit()))


# --- other ways in, each in a child of its own ----------------------------------------------------


def _beside_threads(_ground: Ground) -> None:
    threading.Thread(target=signal.pause, daemon=True).start()
    if process.threads() < 2:
        raise Amiss("a thread was started and /proc does not show it")
    # The caller stays behind as the one that waits; here goes on the child, inside.
    fork.go_on_inside(Sandbox().enter_here)
    if process.threads() != 1:
        raise Amiss(f"the forked child has {process.threads()} threads")


def _map_root(_ground: Ground) -> None:
    Sandbox(map_root=True).enter_here()
    if os.geteuid() != 0:
        raise Amiss(f"inside, this process has uid {os.geteuid()}")


def _view(_ground: Ground) -> None:
    Sandbox().enter_here()
    process.die_with_parent()
    with View(netns.create("a pod"), "doctor", {"/etc/hostname": "doctor\n"}).entered():
        links = os.listdir("/sys/class/net")
    if links != ["lo"]:
        raise Amiss(
            "parts of /sys are covered here, so that the kernel refuses a new one: programs see the host's links there",
            "in Docker, `--security-opt systempaths=unconfined`; all else that a program sees is the pod's",
        )


def _subordinate_ids(_ground: Ground) -> None:
    Sandbox(subids=True).enter_here()
    # Only where more than one id is mapped can a process become another one.
    with open("/proc/self/uid_map") as lines:
        mapped = sum(int(line.split()[2]) for line in lines)
    if mapped < 2:
        raise Amiss(
            f"{mapped} user id is mapped",
            "in a sandbox already there are no more ids to be had: ask outside of it",
        )


def _parent_death(_ground: Ground) -> None:
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            if os.fork() == 0:
                process.die_with_parent()
                os.write(write, b".")
                signal.pause()
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    os.read(read, 1)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    # The grandchild holds the last writing end; a kernel that ignored it would leave us waiting, which
    # the bound on every check ends.
    os.read(read, 1)
    os.close(read)


def _pidfd(_ground: Ground) -> None:
    child = os.fork()
    if child == 0:
        try:
            process.die_with_parent()
            signal.pause()
        finally:
            os._exit(1)
    try:
        handle = os.pidfd_open(child)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    except OSError:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)


CHECKS = (
    Check(
        USER_NAMESPACE,
        "everything: it makes network namespaces possible without root",
        _user_namespace,
        required=True,
    ),
    Check(
        ID_MAPS,
        "files and processes keep their owner inside",
        _id_maps,
        required=True,
        needs=(USER_NAMESPACE,),
    ),
    Check(
        CAPABILITIES,
        "programs in pods may do to the network what the test may",
        _capabilities,
        required=True,
        needs=(ID_MAPS,),
        remedy="look for a security module or a wrapper that takes ambient capabilities away at execve",
    ),
    Check(
        MOUNTS,
        "files of the sandbox's own, with the host's left as they are",
        _mounts,
        required=True,
        needs=(CAPABILITIES,),
    ),
    Check(
        "pidfd",
        "ending programs, and nobody else who has got their pid since",
        _pidfd,
        required=True,
        remedy="use Linux 5.3 or later; in a container, a seccomp profile that allows pidfd_open",
    ),
    Check(
        "death with the parent",
        "programs in pods end when the test is killed",
        _parent_death,
        required=True,
        remedy="in a container, use a seccomp profile that allows prctl(PR_SET_PDEATHSIG)",
    ),
)

OTHER_WAYS = (
    Check(
        "a pod's view",
        "host name, files, /sys and shared memory of the pod's own for programs; else pod.popen(..., view=False)",
        _view,
        needs=(MOUNTS,),
        alone=True,
        remedy="in a container, use a seccomp profile that allows unshare, sethostname and mount",
    ),
    Check(
        "PID namespace",
        "add_pod(pid_namespace=True): programs that see and signal only their own pod's",
        _pid_namespace,
        needs=(MOUNTS,),
        remedy="in a container, use a seccomp profile that allows unshare; else let root raise user.max_pid_namespaces",
    ),
    Check(
        "private /run/netns",
        "`ip netns` inside shows nodes and pods by name",
        _names,
        needs=(MOUNTS,),
        remedy="let root make /run a directory, with /var/run a link to it",
    ),
    Check(
        "entering beside threads",
        "sessions under a debugger, or with plugins that start threads early",
        _beside_threads,
        needs=(MOUNTS,),
        alone=True,
        remedy="enter before threads start: `import netwarren.sandbox.auto` first of all",
    ),
    Check(
        "uid 0 inside",
        "Sandbox(map_root=True), for programs that insist on being root",
        _map_root,
        needs=(MOUNTS,),
        alone=True,
    ),
    Check(
        "more ids than one's own",
        "Sandbox(subids=True), for programs that change to other users",
        _subordinate_ids,
        needs=(MOUNTS,),
        alone=True,
    ),
)
