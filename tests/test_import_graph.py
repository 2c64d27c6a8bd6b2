"""What is imported, and what is not before it is used: start-up is part of every run of every suite."""

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "ctypes",
    "subprocess",
    "socket",
    "threading",
    "ipaddress",
    "logging",
    "pytest",
    "inspect",
}

# Third parties' libraries, and of the standard library what takes milliseconds.
NEVER_BY_ITSELF = {
    "anyio", "asyncio", "brotli", "concurrent", "cryptography", "dns", "email", "google", "h11", "h2", "hpack", "html",
    "http", "json", "logging", "multiprocessing", "numpy", "prometheus_client", "pytest", "rich", "ssl", "tempfile", "trio",
    "unittest", "uvloop", "xml", "yaml", "zstandard",
}  # fmt: skip

# Of ours, what a cluster with pods does without.
LATER = {
    "netwarren.cli", "netwarren.cluster.egress", "netwarren.cluster.mesh", "netwarren.cluster.report",
    "netwarren.cluster.services", "netwarren.demo", "netwarren.doctor", "netwarren.kernel.conntrack",
    "netwarren.kernel.nftables", "netwarren.kernel.rule", "netwarren.kernel.tproxy", "netwarren.mesh",
    "netwarren.names.answer", "netwarren.names.wire", "netwarren.pytest_plugin", "netwarren.runtime.anyio_threads",
    "netwarren.runtime.forwarder", "netwarren.runtime.loop", "netwarren.runtime.published", "netwarren.runtime.streams",
    "netwarren.runtime.trio_tasks",
}  # fmt: skip

POD = "from netwarren import Cluster; cluster = Cluster(); pod = cluster.add_pod('pod')"


def loaded_by(statement: str) -> set[str]:
    """The modules a fresh interpreter has after ``statement`` and had not before."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def packages(modules: set[str]) -> set[str]:
    """The top of each."""
    return {name.partition(".")[0] for name in modules}


def test_importing_netwarren_loads_nothing_of_it_but_the_errors() -> None:
    loaded = loaded_by("import netwarren")
    assert {name for name in loaded if name.startswith("netwarren")} == {"netwarren", "netwarren.errors"}


def test_importing_netwarren_loads_nothing_heavy() -> None:
    assert loaded_by("import netwarren") & HEAVY == set()


@pytest.mark.parametrize(
    "use",
    [
        pytest.param("pass", id="made"),
        pytest.param("pod.__enter__(); pod.__exit__(None, None, None)", id="stepped into"),
        pytest.param("pod.run(len, ''); pod.socket().close()", id="called in"),
        pytest.param("pod.remove(); cluster.close()", id="removed"),
    ],
)
def test_a_pod_loads_nothing_that_only_other_things_need(use: str) -> None:
    loaded = loaded_by(f"{POD}; {use}")
    assert packages(loaded) & NEVER_BY_ITSELF == set()
    assert loaded & LATER == set()


@pytest.mark.parametrize(
    ("statement", "brings"),
    [
        ("cluster.add_service('web', pods=['pod'], ports={80: 80})", "netwarren.cluster.services"),
        ("pod.run(__import__('socket').gethostbyname, 'pod')", "dns"),
        ("pod.publish(80)", "netwarren.runtime.published"),
        ("cluster.report()", "netwarren.cluster.report"),
    ],
)
def test_what_is_used_comes_with_its_first_use_and_no_sooner(statement: str, brings: str) -> None:
    assert brings in loaded_by(f"{POD}; {statement}")
    assert brings not in loaded_by(POD)


def test_services_bring_no_event_loop_and_no_mesh() -> None:
    loaded = loaded_by(f"{POD}; cluster.add_service('web', pods=['pod'], ports={{80: 80}})")
    assert packages(loaded) & NEVER_BY_ITSELF == set()
    assert "netwarren.mesh" not in loaded


def test_tasks_bring_no_other_library_of_tasks_than_their_own() -> None:
    enter = "import asyncio\nasync def main():\n    async with pod: pass\nasyncio.run(main())"
    loaded = loaded_by(f"{POD}; exec({enter!r})")
    assert packages(loaded) & {"anyio", "trio", "uvloop", "dns", "pytest"} == set()
