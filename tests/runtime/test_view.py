"""What a program in a pod sees as its machine: host name, files in /etc, /sys; and that nobody else does."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netwarren import Cluster, Pod
from netwarren.sandbox.entry import MARKER
from tests.runtime.conftest import in_thread

LAID = ["/etc/hostname", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"]


def python(pod: Pod, code: str, **options: object) -> str:
    return pod.check_output([sys.executable, "-c", code], **options).strip()  # type: ignore[arg-type]


def test_the_host_name_is_the_pods(pod: Pod) -> None:
    assert python(pod, "import socket; print(socket.gethostname())") == "first"
    assert python(pod, "import os; print(os.uname().nodename)") == "first"


def test_its_own_name_resolves_to_its_own_address(pod: Pod) -> None:
    assert python(pod, "import socket; print(socket.gethostbyname(socket.gethostname()))") == pod.ip
    assert python(pod, "import socket; print(socket.getfqdn())") == "first.default.svc.cluster.local"


@pytest.mark.cluster(families="ipv6")
def test_its_own_name_resolves_in_a_cluster_of_ipv6(pod: Pod) -> None:
    code = "import socket; print(socket.getaddrinfo(socket.gethostname(), 1, type=1)[0][4][0])"
    assert python(pod, code) == pod.ip


def test_programs_read_the_pods_files(pod: Pod) -> None:
    read = pod.check_output(["cat", *LAID])
    assert read.startswith("first\n")
    assert f"{pod.ip}\tfirst.default.svc.cluster.local first\n" in read
    assert "search default.svc.cluster.local svc.cluster.local cluster.local\n" in read
    assert "\nhosts: files dns\n" in read


def test_sys_shows_the_pods_links_alone(pod: Pod) -> None:
    assert pod.check_output(["ls", "/sys/class/net"]).split() == ["eth0", "lo"]


def test_what_was_mounted_below_sys_still_is(pod: Pod) -> None:
    assert pod.check_output(["ls", "/sys/fs/cgroup"]).split() == sorted(os.listdir("/sys/fs/cgroup"))


def test_proc_net_is_the_pods(pod: Pod) -> None:
    links = pod.check_output(["cat", "/proc/net/dev"]).splitlines()[2:]
    assert sorted(line.split(":")[0].strip() for line in links) == ["eth0", "lo"]


def test_children_of_a_program_see_the_same(pod: Pod) -> None:
    assert pod.check_output(["/bin/sh", "-c", "(cat /etc/hostname)"]) == "first\n"


def test_each_pod_has_a_view_of_its_own(pod: Pod, other: Pod) -> None:
    assert [each.check_output(["cat", "/etc/hostname"]) for each in (pod, other)] == ["first\n", "second\n"]
    assert pod.check_output(["cat", "/etc/hostname"]) == "first\n"


def test_what_one_program_writes_into_its_file_the_next_one_reads(pod: Pod, other: Pod) -> None:
    pod.check_output(["/bin/sh", "-c", "echo 192.0.2.1 beyond >>/etc/hosts"])
    assert pod.check_output(["tail", "-n1", "/etc/hosts"]) == "192.0.2.1 beyond\n"
    assert "beyond" not in other.check_output(["cat", "/etc/hosts"])
    assert "beyond" not in Path("/etc/hosts").read_text()


# --- memory and messages that programs share ---------------------------------------------------------

SEGMENT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
number = libc.shmget({key}, 4096, 0o1600)  # IPC_CREAT
assert number >= 0, ctypes.get_errno()
"""
QUEUE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mq_open(b"/{name}", 0o101, 0o600, None) >= 0, ctypes.get_errno()  # O_CREAT | O_WRONLY
"""


def segments(read: str) -> set[int]:
    """The keys of a /proc/sysvipc/shm."""
    return {int(line.split()[0]) for line in read.splitlines()[1:]}


def test_shared_memory_by_name_is_the_pods(pod: Pod, other: Pod) -> None:
    assert pod.check_output(["ls", "-A", "/dev/shm"]) == ""
    name = f"netwarren-test-{os.getpid()}"
    python(pod, f"open('/dev/shm/{name}', 'w').write('shared')")
    assert pod.check_output(["cat", f"/dev/shm/{name}"]) == "shared"
    assert other.check_output(["ls", "-A", "/dev/shm"]) == ""
    assert name not in os.listdir("/dev/shm")


def test_anybody_may_share_memory_there(pod: Pod) -> None:
    assert pod.check_output(["stat", "-c", "%a %F", "/dev/shm"]) == "1777 directory\n"


def test_segments_of_memory_are_the_pods(pod: Pod, other: Pod) -> None:
    key = 0x10000000 | os.getpid()
    python(pod, SEGMENT.format(key=key))
    assert segments(pod.check_output(["cat", "/proc/sysvipc/shm"])) == {key}
    assert segments(other.check_output(["cat", "/proc/sysvipc/shm"])) == set()
    assert key not in segments(Path("/proc/sysvipc/shm").read_text())


def test_queues_of_messages_are_the_pods(pod: Pod, other: Pod) -> None:
    opening = QUEUE.format(name=f"netwarren-test-{os.getpid()}")
    python(pod, opening)
    python(pod, opening.replace("0o101", "0o1"))  # without O_CREAT: it is there
    python(other, opening.replace("0o101", "0o301"))  # with O_EXCL: it is not


def test_a_program_may_put_what_is_shared_into_a_private_directory(pod: Pod) -> None:
    place = pod.private_directory("/dev/shm", mode=0o1777)
    python(pod, "open('/dev/shm/file', 'w').write('shared')")
    assert (place / "file").read_text() == "shared"


# --- nobody else ----------------------------------------------------------------------------------


def host_state() -> object:
    state = []
    for name in LAID:
        if os.path.exists(name):
            found = os.stat(name)
            state.append(
                (found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size, Path(name).read_bytes())
            )
    mounts = Path("/proc/self/mountinfo").read_text()
    return state, mounts, socket.gethostname(), sorted(os.listdir("/sys/class/net")), os.getcwd()


@pytest.mark.parametrize("call", [lambda call: call(), in_thread], ids=["main thread", "other thread"])
def test_this_process_sees_and_has_what_it_had(
    pod: Pod, call: Callable[[Callable[[], object]], object]
) -> None:
    before = host_state()
    call(lambda: pod.check_output(["cat", "/etc/hosts"]))
    assert host_state() == before


def test_code_of_this_process_in_a_pod_has_the_processs_files(pod: Pod) -> None:
    pod.check_output(["true"])
    assert pod.run(socket.gethostname) == socket.gethostname()
    assert pod.run(Path("/etc/hosts").read_text) == Path("/etc/hosts").read_text()


def test_a_program_may_be_started_without_the_view(pod: Pod) -> None:
    pod.check_output(["true"])
    assert pod.check_output(["cat", "/etc/hosts"], view=False) == Path("/etc/hosts").read_text()
    assert python(pod, "import socket; print(socket.gethostname())", view=False) == socket.gethostname()


def test_a_closed_cluster_leaves_no_descriptor_of_its_views() -> None:
    def held() -> list[str]:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_is_open(fd)]
        return sorted(link for link in links if link.startswith(("mnt:", "uts:", "/opt")))

    with Cluster() as first:
        first.add_pod("first").check_output(["true"])
    before = held()
    with Cluster() as cluster:
        pod = cluster.add_pod("first")
        pod.private_directory("/opt")
        assert len(held()) == len(before) + 3
    assert held() == before


def fd_is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


KILLED = """
import os
from netwarren import Cluster
pod = Cluster().add_pod("first")
pod.private_directory("/opt", files={"file": "text"})
program = pod.popen(["sleep", "1000"])
print(program.pid, os.stat(f"/proc/{program.pid}/ns/mnt").st_ino, flush=True)
input()
"""


def test_sigkill_leaves_no_view(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    pid, inode = owner.stdout.readline().split()
    with open(os.pidfd_open(int(pid)), "rb", closefd=True) as program:
        owner.kill()
        owner.wait()
        assert select.select([program], [], [], 30)[0] == [program]
    owner.stdin.close()
    owner.stdout.close()
    assert int(inode) not in mount_namespaces()


def mount_namespaces() -> set[int]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.stat(f"/proc/{pid}/ns/mnt").st_ino)
        except OSError:
            continue
    return found


# --- the program is started as before -------------------------------------------------------------


def test_the_working_directory_is_this_processs_at_the_start(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.check_output(["true"])  # since when the ferry has a working directory of its own
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert pod.check_output(["pwd"]) == pod.check_output(["pwd"], view=False) == f"{folder}\n"


def test_a_relative_working_directory_is_relative_to_this_processs(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert pod.check_output(["pwd"], cwd="below") == f"{tmp_path}/below\n"
    assert pod.check_output(["pwd"], cwd=b"below") == f"{tmp_path}/below\n"


def test_a_working_directory_that_was_removed_is_the_root_directory(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert pod.check_output(["pwd"]) == "/\n"


def test_the_umask_is_this_processs_at_the_start(pod: Pod) -> None:
    pod.check_output(["true"])
    before = os.umask(0o027)
    try:
        assert pod.check_output(["/bin/sh", "-c", "umask"]) == "0027\n"
    finally:
        os.umask(before)
    assert pod.check_output(["/bin/sh", "-c", "umask"], umask=0o077) == "0077\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has one id")
def test_a_program_of_another_user_has_the_view(pod: Pod) -> None:
    line = pod.check_output(["/bin/sh", "-c", "id -u; cat /etc/hostname"], user=1234, extra_groups=[])
    assert line == "1234\nfirst\n"


def test_many_threads_start_programs_of_many_pods(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"pod-{number}") for number in range(6)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda pod: pod.check_output(["cat", "/etc/hostname"]), pods * 3))
    assert read == [f"{pod.name}\n" for pod in pods] * 3


# --- machines that lack something -----------------------------------------------------------------

SCRIPT = """
import os
from netwarren import Cluster, ProgramError, Sandbox
from netwarren.kernel import mount
from netwarren.sandbox.entry import MARKER
Sandbox().enter()
"""


def outside(code: str) -> str:
    """Run ``code`` in a sandbox of its own, whose mounts it may change."""
    environment = {name: value for name, value in os.environ.items() if name != MARKER}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_that_the_host_does_not_have_are_there() -> None:
    code = """
mount.tmpfs("/etc")
os.mkdir("/etc/rest")
with Cluster() as cluster:
    print(cluster.add_pod("first").check_output(["cat", "/etc/hostname", "/etc/nsswitch.conf"]))
    print(cluster.pod("first").check_output(["ls", "/etc"]))
assert os.listdir("/etc") == ["rest"]
"""
    words = outside(code).split()
    assert words[0] == "first"
    assert "hosts: files dns" in " ".join(words)
    assert words[-5:] == ["hostname", "hosts", "nsswitch.conf", "resolv.conf", "rest"]


def test_queues_of_messages_show_as_files_where_they_do_on_the_host() -> None:
    code = f"""
mount.layer("/dev")
os.mkdir("/dev/mqueue")
with Cluster() as cluster:
    first, second = cluster.add_pod("first"), cluster.add_pod("second")
    first.check_output([{sys.executable!r}, "-c", {QUEUE.format(name="queue")!r}])
    print(first.check_output(["ls", "/dev/mqueue"]), second.check_output(["ls", "/dev/mqueue"]))
assert os.listdir("/dev/mqueue") == []
"""
    assert outside(code).split() == ["queue"]


def test_a_resolv_conf_that_is_a_symbolic_link_is_laid_over_where_it_leads() -> None:
    code = """
mount.tmpfs("/etc")
mount.tmpfs("/mnt")
os.mkdir("/mnt/resolve")
with open("/mnt/resolve/stub", "w") as stub:
    stub.write("nameserver 192.0.2.1\\n")
os.symlink("../mnt/resolve/stub", "/etc/resolv.conf")
with Cluster() as cluster:
    print(cluster.add_pod("first").check_output(["cat", "/etc/resolv.conf"]))
print(open("/etc/resolv.conf").read())
"""
    text = outside(code)
    assert "nameserver 169.254.20.10\n" in text
    assert text.endswith("nameserver 192.0.2.1\n\n")


def test_a_resolv_conf_that_leads_nowhere_is_there_all_the_same() -> None:
    code = """
mount.tmpfs("/etc")
mount.tmpfs("/mnt")
os.symlink("/mnt/systemd/resolve/stub", "/etc/resolv.conf")
with Cluster() as cluster:
    print(cluster.add_pod("first").check_output(["cat", "/etc/resolv.conf"]))
assert os.listdir("/mnt") == []
"""
    assert "nameserver 169.254.20.10\n" in outside(code)


def test_where_the_kernel_refuses_a_new_sys_the_old_one_is_kept() -> None:
    code = """
seen = sorted(os.listdir("/sys/class/net"))
mount.tmpfs("/sys/kernel")  # which a sandbox inside may not uncover, by a second /sys either
del os.environ[MARKER]
Sandbox().enter()
with Cluster() as cluster:
    pod = cluster.add_pod("first")
    assert pod.check_output(["ls", "/sys/class/net"]).split() == seen
    assert pod.check_output(["ls", "/sys/kernel"]) == ""
    print(pod.check_output(["cat", "/etc/hostname"]))
"""
    assert outside(code).strip() == "first"


def test_where_the_old_sys_is_read_only_the_new_one_is() -> None:
    code = """
from netwarren.kernel import syscall
remount = 32  # MS_REMOUNT, linux/mount.h
no = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
syscall.mount(None, "/sys", None, remount | mount.MS_BIND | mount.MS_RDONLY | no)
del os.environ[MARKER]
Sandbox().enter()
with Cluster() as cluster:
    pod = cluster.add_pod("first")
    print(pod.check_output(["ls", "/sys/class/net"]))
    print([line for line in pod.check_output(["cat", "/proc/mounts"]).splitlines() if " /sys sysfs ro," in line])
"""
    text = outside(code)
    assert text.split()[:2] == ["eth0", "lo"]
    assert "netwarren /sys sysfs ro," in text


def test_where_the_view_is_refused_the_step_is_told_and_the_remedy_works() -> None:
    code = """
os.rmdir("/run/netwarren")
with Cluster() as cluster:
    pod = cluster.add_pod("first")
    for _time in range(2):
        try:
            pod.popen(["true"])
        except ProgramError as error:
            print(error)
    pod.popen(["true"], view=False).wait()
    os.mkdir("/run/netwarren")
    print(pod.check_output(["cat", "/etc/hostname"]))
"""
    first, second, name = outside(code).strip().splitlines()
    assert first == second
    assert "true in pod 'first' cannot be started: its view of files is refused: mount" in first
    assert "on /run/netwarren: ENOENT" in first
    assert first.endswith("Start it with view=False to do without")
    assert name == "first"
