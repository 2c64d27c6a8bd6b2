"""/run in the sandbox: the host's, but for the names of namespaces and the lock of iptables."""

import os
from pathlib import Path

from tests.sandbox.conftest import Python

ENTER = """
    import os
    from netwarren.sandbox import Sandbox, names
    run = os.path.realpath("/var/run")
    def entries():
        # Where the suite runs in the sandbox, other workers' proxies come and go there.
        stay = [name for name in os.listdir(run) if not name.startswith("netwarren-")]
        return {name: os.stat(f"{run}/{name}", follow_symlinks=False).st_ino for name in stay}
    outside = entries()
    Sandbox().enter()
"""


def listing(path: str) -> list[str]:
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def mounts() -> list[str]:
    with open("/proc/self/mountinfo") as lines:
        return [
            line for line in lines if "/resolv.conf" not in line
        ]  # which other workers lay over the host's


def test_the_hosts_entries_are_still_there(python: Python) -> None:
    python.run(
        ENTER
        + """
    missing = {name for name in outside if name not in names.PRIVATE} - set(os.listdir(run))
    assert not missing, missing
    """
    )


def test_the_hosts_entries_are_the_same_files(python: Python) -> None:
    python.run(
        ENTER
        + """
    inside = entries()
    for name, inode in outside.items():
        if name not in names.PRIVATE and not os.path.islink(f"{run}/{name}"):
            assert inside[name] == inode, name
    """
    )


def test_the_directory_of_names_is_there_empty_and_ours(python: Python) -> None:
    python.run(
        ENTER
        + """
    assert names.directory() == f"{run}/netns"
    assert os.listdir(names.directory()) == []
    assert os.stat(names.directory()).st_uid == os.geteuid()
    """
    )


def test_names_in_the_sandbox_do_not_show_on_the_host(python: Python) -> None:
    python.run(
        ENTER
        + """
    from netwarren.kernel import netns
    assert names.publish("hidden-from-the-host", netns.here().fd)
    assert os.listdir(names.directory()) == ["hidden-from-the-host"]
    print("published", flush=True)
    """
    )
    assert "hidden-from-the-host" not in listing("/run/netns")


def test_the_lock_of_iptables_is_a_new_file(python: Python) -> None:
    host = Path("/run/xtables.lock")
    before = host.stat().st_ino if host.exists() else None
    python.run(
        ENTER
        + """
    lock = os.open(f"{run}/xtables.lock", os.O_CREAT | os.O_RDWR, 0o600)
    assert os.fstat(lock).st_ino != outside.get("xtables.lock")
    """
    )
    assert (host.stat().st_ino if host.exists() else None) == before


def test_mounts_in_the_sandbox_do_not_show_on_the_host(python: Python) -> None:
    before = mounts()
    python.run(
        ENTER
        + """
    assert any(f" {run} " in line and "netwarren" in line for line in open("/proc/self/mountinfo"))
    """
    )
    assert mounts() == before


def test_a_nested_sandbox_has_a_directory_of_its_own(python: Python) -> None:
    python.run(
        ENTER
        + """
    import subprocess, sys
    from netwarren.kernel import netns
    names.publish("outer", netns.here().fd)
    script = (
        "import os; from netwarren.sandbox import Sandbox, names; del os.environ['NETWARREN_SANDBOX']; "
        "assert os.listdir(names.directory()) == ['outer']; Sandbox().enter(); "
        "assert os.listdir(names.directory()) == []"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert os.listdir(names.directory()) == ["outer"]
    """
    )
