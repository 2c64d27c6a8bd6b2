"""Who is inside and knows it: entering once, children, and a marker that was carried elsewhere."""

from tests.sandbox.conftest import Python


def test_entering_again_does_nothing(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        first = os.readlink("/proc/self/ns/user")
        Sandbox().enter()
        Sandbox(map_root=True).enter()
        assert os.readlink("/proc/self/ns/user") == first
        """
    )


def test_inside_is_known_before_and_after(python: Python) -> None:
    python.run(
        """
        from netwarren.sandbox import Sandbox, inside
        assert not inside()
        Sandbox().enter()
        assert inside()
        """
    )


def test_a_child_knows_that_it_is_inside_and_stays_where_it_is(python: Python) -> None:
    python.run(
        """
        import os, subprocess, sys
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        child = (
            "import os; from netwarren.sandbox import Sandbox, inside; assert inside(); "
            "Sandbox().enter(); print(os.readlink('/proc/self/ns/user'))"
        )
        printed = subprocess.check_output([sys.executable, "-c", child], text=True)
        assert printed.strip() == os.readlink("/proc/self/ns/user")
        """
    )


def test_a_child_with_threads_finds_itself_inside_and_does_not_fork(python: Python) -> None:
    python.run(
        """
        import subprocess, sys
        from netwarren.sandbox import Sandbox
        Sandbox().enter()
        child = (
            "import os, threading; from netwarren.sandbox import Sandbox; pid = os.getpid(); "
            "end = threading.Event(); threading.Thread(target=end.wait).start(); "
            "Sandbox().enter(); assert os.getpid() == pid; end.set()"
        )
        subprocess.run([sys.executable, "-c", child], check=True)
        """
    )


def test_a_stale_marker_does_not_lie(python: Python) -> None:
    python.run(
        """
        import os
        from netwarren.sandbox import Sandbox, inside
        assert not inside()
        before = os.readlink("/proc/self/ns/user")
        Sandbox().enter()
        assert inside() and os.readlink("/proc/self/ns/user") != before
        """,
        env={"NETWARREN_SANDBOX": "4026539999"},
    )


def test_a_marker_from_another_namespace_does_not_hold_in_a_nested_one(python: Python) -> None:
    python.run(
        """
        from netwarren.kernel import userns
        from netwarren.sandbox import Sandbox, inside
        Sandbox().enter()
        userns.enter(0, userns.own_map())
        assert not inside()
        """
    )
