"""The default map: everybody stays who they were, and has capabilities that last."""

from pathlib import Path

import pytest

from tests.sandbox.conftest import Python

ENTER = """
    import os
    from netwarren.sandbox import Sandbox, inside
    before = (os.getuid(), os.getgid(), os.geteuid(), os.getegid())
    Sandbox().enter()
"""


def test_user_and_group_stay_the_same(python: Python) -> None:
    python.run(ENTER + "    assert (os.getuid(), os.getgid(), os.geteuid(), os.getegid()) == before")


def test_the_user_namespace_is_another_one_and_the_network_the_same(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        def where(): return [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("user", "mnt", "net")]
        before = where()
        Sandbox().enter()
        after = where()
        assert before[0] != after[0] and before[1] != after[1] and before[2] == after[2], (before, after)
        """
    )


def test_files_keep_their_owner(python: Python, shared: Path) -> None:
    owner = python.run(
        ENTER
        + """
    import sys
    path = sys.argv[1] + "/made-inside"
    open(path, "w").close()
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == before[2:]
    print(before[2])
    """,
        str(shared),
    )
    # Seen from out here, too, it belongs to whoever made it.
    assert (shared / "made-inside").stat().st_uid == int(owner)


def test_capabilities_survive_execve(python: Python) -> None:
    python.run(
        ENTER
        + """
    import subprocess, sys
    check = "from netwarren.kernel.syscall import capget; print(capget()[0])"
    effective = int(subprocess.check_output([sys.executable, "-c", check]))
    CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
    assert effective >> CAP_NET_ADMIN & 1 and effective >> CAP_SYS_ADMIN & 1, hex(effective)
    """
    )


def test_a_network_namespace_can_be_made_inside(python: Python) -> None:
    python.run(
        ENTER
        + """
    from netwarren.kernel import netns
    host = netns.inode_of()
    made = netns.create("made")
    assert netns.inode_of() == made.inode != host
    """
    )


PRINT_MAP = (
    ENTER
    + """
    print([tuple(map(int, line.split())) for line in open("/proc/self/uid_map")])
    """
)


def test_an_ordinary_user_keeps_its_own_id_and_no_other(ordinary: Python) -> None:
    uid = int(ordinary.run("import os; print(os.geteuid())"))
    assert ordinary.run(PRINT_MAP).strip() == str([(uid, uid, 1)])


def test_somebody_with_capabilities_keeps_every_id_there_is(python: Python) -> None:
    if python.ordinary:
        pytest.skip("an ordinary user keeps only its own")
    with open("/proc/self/uid_map") as own:
        known = [tuple(map(int, line.split())) for line in own]
    assert python.run(PRINT_MAP).strip() == str([(inside, inside, count) for inside, _out, count in known])
