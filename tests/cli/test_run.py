"""``netwarren run -- COMMAND``: any program inside a fresh sandbox."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from netwarren.sandbox.entry import MARKER

NETWARREN = [sys.executable, "-m", "netwarren"]


def run(*words: str, status: int = 0, inside: bool = False) -> "subprocess.CompletedProcess[str]":
    """``netwarren run WORDS``, as from a shell that is in no sandbox (``inside``: in whichever we are)."""
    env = {name: value for name, value in os.environ.items() if inside or name != MARKER}
    result = subprocess.run(
        [*NETWARREN, "run", *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    return result


def python(script: str) -> Sequence[str]:
    return ["--", sys.executable, "-c", script]


def test_the_program_runs_in_a_sandbox() -> None:
    outside = os.readlink("/proc/self/ns/user")
    printed = run(
        *python(
            "import os; from netwarren.sandbox import inside; assert inside(); "
            "print(os.readlink('/proc/self/ns/user'))"
        )
    ).stdout.strip()
    assert printed.startswith("user:[")
    assert printed != outside


@pytest.mark.parametrize("status", [0, 1, 42])
def test_its_exit_status_is_the_programs(status: int) -> None:
    run("--", "/bin/sh", "-c", f"exit {status}", status=status)


def test_a_program_killed_by_a_signal_is_seen_as_such() -> None:
    run("--", "/bin/sh", "-c", "kill -TERM $$", status=-15)


def test_a_missing_program_is_127() -> None:
    result = run("--", "no-such-program-anywhere", status=127)
    assert "no-such-program-anywhere: no such program" in result.stderr


def test_a_file_that_is_no_program_is_126(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("not a program")
    result = run("--", str(path), status=126)
    assert str(path) in result.stderr


def test_without_a_program_it_says_what_it_needs() -> None:
    assert "netwarren run -- COMMAND" in run("--", status=2).stderr
    assert "netwarren run -- COMMAND" in run(status=2).stderr


def test_the_two_dashes_may_be_left_out() -> None:
    assert run("/bin/echo", "--flag", "word").stdout == "--flag word\n"


def test_the_programs_own_dashes_are_kept() -> None:
    assert run("--", "/bin/echo", "--", "--map-root").stdout == "-- --map-root\n"


def test_the_uid_stays() -> None:
    printed = run(*python("import os; print(os.getuid(), os.getgid())")).stdout
    assert printed == f"{os.getuid()} {os.getgid()}\n"


def test_map_root_makes_it_0() -> None:
    assert run("--map-root", *python("import os; print(os.getuid(), os.getgid())")).stdout == "0 0\n"


def test_the_network_is_an_empty_one_with_lo_up() -> None:
    script = (
        "import os, socket; from netwarren.kernel.netns import inode_of; "
        "print(inode_of(), [name for _, name in socket.if_nameindex()]); "
        "server = socket.create_server(('127.0.0.1', 80)); "
        "socket.create_connection(server.getsockname()).close()"
    )
    inode, _, names = run(*python(script)).stdout.partition(" ")
    assert int(inode) != os.stat("/proc/thread-self/ns/net").st_ino
    assert names.strip() == "['lo']"


def test_the_hosts_network_is_kept_on_request() -> None:
    script = "from netwarren.kernel.netns import inode_of; print(inode_of())"
    printed = run("--host-network", *python(script)).stdout
    # The child is started by this thread, so it stands where this thread does.
    assert int(printed) == os.stat("/proc/thread-self/ns/net").st_ino


def test_the_program_has_the_capabilities_of_the_sandbox() -> None:
    run(*python("from netwarren.kernel.capability import has; assert has(12, 21)"))


def test_a_program_of_the_library_makes_clusters_there() -> None:
    script = (
        "import os; pid = os.getpid(); from netwarren import Cluster\n"
        "with Cluster() as cluster:\n"
        "    with cluster.add_pod('a'):\n"
        "        pass\n"
        "    assert os.getpid() == pid\n"
    )
    run(*python(script))


def test_a_sandbox_inside_a_sandbox_is_a_fresh_one() -> None:
    script = "import os; print(os.readlink('/proc/self/ns/user')); print(os.listdir('/run/netns'))"
    outer = [*NETWARREN, "run", "--", "/bin/sh", "-c"]
    inner = f'readlink /proc/self/ns/user; exec {" ".join(NETWARREN)} run -- {sys.executable} -c "{script}"'
    lines = subprocess.run(
        [*outer, inner], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    assert lines[0].startswith("user:[")
    assert lines[0] != lines[1]
    assert lines[2] == "[]"


def test_standard_input_goes_to_the_program() -> None:
    result = subprocess.run(
        [*NETWARREN, "run", "--", "/bin/cat"],
        input="through",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "through"


def test_nothing_is_left_behind() -> None:
    def mounts() -> str:
        with open("/proc/self/mountinfo") as lines:
            return lines.read()

    name = f"left-by-{os.getpid()}"
    before = mounts()
    script = (
        "from netwarren import Cluster; import os\n"
        f"with Cluster({name!r}): print(os.listdir('/run/netns'))\n"
        "os.mkdir('/run/netns/directory')"
    )
    # Its standard output ends when everybody who was started there has ended.
    assert run(*python(script)).stdout == f"['{name}']\n"
    assert mounts() == before
    assert not {name, "directory"} & set(os.listdir("/run/netns") if os.path.isdir("/run/netns") else [])


def test_a_refusal_is_one_line_and_status_1() -> None:
    script = (
        "from netwarren.kernel import userns; userns.enter(0, userns.own_map()); import sys\n"
        "with open('/proc/sys/user/max_user_namespaces', 'w') as limit: limit.write('0')\n"
        "from netwarren.cli import main; sys.exit(main(['run', '--', '/bin/true']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("netwarren: cannot create a user namespace")
    assert "Remedy: " in line
