"""Real refusals, staged: the cause is told, and the process is left as it was."""

import platform

import pytest

from tests.sandbox.conftest import Python

# After this, `refused` is what entering raised, and the process is checked to be untouched.
ATTEMPT = """
import os
from netwarren.errors import SandboxError
from netwarren.sandbox import Sandbox, inside

def state():
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "mnt", "net")] + [
        proc("mountinfo"), sorted(os.listdir("/proc/self/fd")), os.getpid(), dict(os.environ),
        [line for line in proc("status").splitlines() if line.startswith("Cap")],
    ]

def proc(name):
    with open(f"/proc/self/{name}") as file:
        # But for mounts of ours: where the suite runs in the sandbox, other workers have theirs in the same place.
        return "".join(line for line in file if " - tmpfs netwarren " not in line)

def attempt(**options):
    before = state()
    try:
        Sandbox(**options).enter()
    except SandboxError as error:
        assert not inside()
        assert state() == before, (state(), before)
        return error
    raise AssertionError("entered")
"""

LIMIT = """
from netwarren.kernel import userns
userns.enter(0, userns.own_map())
with open("/proc/sys/user/max_user_namespaces", "w") as limit:
    limit.write("{}")
"""


def test_max_user_namespaces_of_0_is_told(python: Python) -> None:
    python.run(
        LIMIT.format(0)
        + """
error = attempt()
assert "user.max_user_namespaces is 0" in error.cause, error
""",
        prelude=ATTEMPT,
    )


def test_max_user_namespaces_of_0_is_told_where_threads_run(python: Python) -> None:
    python.run(
        LIMIT.format(0)
        + """
import threading
end = threading.Event()
threading.Thread(target=end.wait, daemon=True).start()
error = attempt()
assert "user.max_user_namespaces is 0" in error.cause, error
""",
        prelude=ATTEMPT,
    )


def test_an_exhausted_limit_is_told(python: Python) -> None:
    python.run(
        LIMIT.format(1)
        + """
read, write = os.pipe()
hold_r, hold_w = os.pipe()
child = os.fork()
if child == 0:
    os.close(hold_w)
    userns.enter(0, userns.own_map())
    os.write(write, b".")
    os.read(hold_r, 1)
    os._exit(0)
os.read(read, 1)
os.close(hold_r)
error = attempt()
assert "all 1 user namespaces" in error.cause, error
os.close(hold_w)
os.waitpid(child, 0)
""",
        prelude=ATTEMPT,
    )


@pytest.mark.parametrize("who", ["threads", "alone"])
def test_a_seccomp_filter_is_told(ordinary: Python, who: str) -> None:
    numbers = {"x86_64": 272, "aarch64": 97}
    if platform.machine() not in numbers:
        pytest.skip(f"the number of unshare(2) on {platform.machine()} is not known here")
    threads = (
        "import threading; end = threading.Event(); threading.Thread(target=end.wait, daemon=True).start()"
    )
    ordinary.run(
        f"""
import ctypes, struct

{threads if who == "threads" else ""}
def instruction(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)

program = b"".join([
    instruction(0x20, 0, 0, 0),                         # load the number of the call
    instruction(0x15, 0, 1, {numbers[platform.machine()]}),  # unshare?
    instruction(0x06, 0, 0, 0x00050001),                # yes: EPERM
    instruction(0x06, 0, 0, 0x7FFF0000),                # no: go on
])
buffer = ctypes.create_string_buffer(program, len(program))

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]

filter = Filter(4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0                  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
error = attempt()
assert "seccomp" in error.cause, error
assert error.step.startswith("create a user namespace") and error.errno == 1
""",
        prelude=ATTEMPT,
        env={"container": "", "KUBERNETES_SERVICE_HOST": ""},
    )


def test_a_chroot_is_told(python: Python) -> None:
    python.run(
        """
from netwarren.kernel import mount, userns
from netwarren.kernel.syscall import CLONE_NEWNS
userns.enter(CLONE_NEWNS, userns.own_map())
mount.keep_to_ourselves()
mount.tmpfs("/mnt")
os.mkdir("/mnt/root")
for name in os.listdir("/"):
    if os.path.islink(f"/{name}"):
        os.symlink(os.readlink(f"/{name}"), f"/mnt/root/{name}")
    elif os.path.isdir(f"/{name}"):
        os.mkdir(f"/mnt/root/{name}")
        if name != "mnt":
            mount.bind(f"/{name}", f"/mnt/root/{name}")
os.chroot("/mnt/root")
os.chdir("/")
error = attempt()
assert "chroot" in error.cause, error
""",
        prelude=ATTEMPT,
    )


def test_a_refusal_half_way_leaves_the_process_untouched(python: Python) -> None:
    """A user namespace cannot be left again, so a child tries first."""
    python.run(
        """
from netwarren.errors import KernelError
from netwarren.sandbox import names
def refuse():
    raise KernelError("mount netwarren on /run", 13)
names.make_private = refuse
error = attempt()
assert error.step == "mount in the new mount namespace (mount netwarren on /run)", error.step
assert error.errno == 13
""",
        prelude=ATTEMPT,
    )


def test_a_refusal_half_way_ends_the_forked_child_and_is_raised_in_the_parent(python: Python) -> None:
    python.run(
        """
import threading
from netwarren.errors import KernelError
from netwarren.sandbox import names
end = threading.Event()
threading.Thread(target=end.wait, daemon=True).start()
def refuse():
    raise KernelError("mount netwarren on /run", 13)
names.make_private = refuse
error = attempt()
assert error.errno == 13
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("alone")
""",
        prelude=ATTEMPT,
    )


def test_the_next_attempt_may_succeed(python: Python) -> None:
    python.run(
        """
from netwarren.errors import KernelError
from netwarren.sandbox import names
good = names.make_private
def refuse():
    raise KernelError("mount netwarren on /run", 13)
names.make_private = refuse
attempt()
names.make_private = good
Sandbox().enter()
assert inside()
""",
        prelude=ATTEMPT,
    )
