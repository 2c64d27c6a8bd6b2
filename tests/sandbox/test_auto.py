"""``import netwarren.sandbox.auto``."""

from tests.sandbox.conftest import Python


def test_importing_it_enters(python: Python) -> None:
    python.run("import netwarren.sandbox.auto; from netwarren.sandbox import inside; assert inside()")


def test_importing_it_where_threads_run_goes_on_in_a_child(ordinary: Python) -> None:
    ordinary.run(
        """
        import os, threading
        first = os.getpid()
        end = threading.Event()
        threading.Thread(target=end.wait, daemon=True).start()
        import netwarren.sandbox.auto
        assert os.getppid() == first
        raise SystemExit(5)
        """,
        status=5,
    )


def test_importing_the_package_does_not_enter(python: Python) -> None:
    python.run(
        """
        import os
        before = os.readlink("/proc/self/ns/user")
        import netwarren, netwarren.sandbox, netwarren.cli  # the plugin: see tests/plugin/test_untouched.py
        from netwarren import Cluster
        assert os.readlink("/proc/self/ns/user") == before
        """
    )
