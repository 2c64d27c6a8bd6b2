"""`Sandbox(map_root=True)`: uid 0 inside, the same user outside."""

from pathlib import Path

from tests.sandbox.conftest import Python


def test_an_ordinary_user_is_root_inside(ordinary: Python) -> None:
    ordinary.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        assert os.geteuid() != 0
        Sandbox(map_root=True).enter()
        assert (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (0, 0, 0, 0)
        """
    )


def test_programs_have_all_capabilities_as_root_has(ordinary: Python) -> None:
    ordinary.run(
        """
        import subprocess, sys
        from netwarren.sandbox import Sandbox
        Sandbox(map_root=True).enter()
        check = "from netwarren.kernel.capability import has; import sys; sys.exit(not has(*range(22)))"
        subprocess.run([sys.executable, "-c", check], check=True)
        """
    )


def test_files_made_as_root_inside_are_the_users_outside(ordinary: Python, shared: Path) -> None:
    uid = int(ordinary.run("import os; print(os.geteuid())"))
    ordinary.run(
        """
        import os, sys
        from netwarren.sandbox import Sandbox
        Sandbox(map_root=True).enter()
        path = sys.argv[1] + "/made-inside"
        open(path, "w").close()
        assert os.stat(path).st_uid == 0
        """,
        str(shared),
    )
    assert (shared / "made-inside").stat().st_uid == uid


def test_root_stays_root(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        Sandbox(map_root=True).enter()
        assert os.geteuid() == 0
        """
    )
