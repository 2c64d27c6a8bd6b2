"""The pytest plugin: fixtures that hand a cluster to a test, and a report when the test fails.

Rules: thin: it decides when to enter the sandbox and which options a cluster gets; nothing of netwarren
is imported before a test asks for a cluster, and a session where none does is left as it was.
Does not belong here: anything a script without pytest could want.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from execnet import XSpec

    from netwarren.cluster import Cluster
    from netwarren.errors import ProgramError
    from netwarren.sandbox import Sandbox

# Every fixture of ours needs this one, and no fixture of anybody else's with a name like ours does.
_SANDBOX = "_netwarren_sandbox"

# The clusters that fixtures have open in this process, by the fixtures' names.
_OPEN = pytest.StashKey[dict[str, "Cluster"]]()

_NO_LOCALHOST = (
    "Before this test, another one had stepped into a pod on this thread, which cannot go back to the host's\n"
    "network: here 127.0.0.1 is not the host's. Tests that use a cluster are put last for that reason; keep\n"
    "that order (pytest-xdist does with --dist load, its default, but not with worksteal or loadscope), or\n"
    "step in by pod.run, pod.popen, pod.socket and `async with` on a loop of another thread, which move nothing."
)

_SETTINGS = {
    "netwarren_families": "ipv4 (default), ipv6, or both: the address families of clusters",
    "netwarren_nodes": "the names of the nodes that a cluster has (default: node-a node-b)",
    "netwarren_pod_range": "the range(s) that nodes' pod ranges are taken from (default: 10.0.0.0/14)",
    "netwarren_pod_prefix": "the length of each node's part of the pod range (default: 24, in IPv6 64)",
    "netwarren_node_range": "the range(s) that nodes' addresses are taken from (default: 172.18.0.0/16)",
    "netwarren_service_range": "the range(s) that services' addresses are taken from (default: 10.96.0.0/12)",
    "netwarren_egress": "what of the host and the internet pods reach (default: nothing): localhost:5432 10.1.2.0/24 ...",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "netwarren_sandbox",
        "when to enter netwarren's sandbox: auto (once a test that uses a cluster was collected), early "
        "(before collection), never",
        default="auto",
    )
    parser.addini(
        "netwarren_map", "how ids are mapped in the sandbox: identity, root, subids", default="identity"
    )
    for name, help in _SETTINGS.items():
        parser.addini(name, help, type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "cluster(families=, nodes=, pod_range=, pod_prefix=, node_range=, service_range=, egress=): options of the "
        "`cluster` fixture (netwarren)",
    )


# --- entering the sandbox -------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("collectonly", False) or _is_worker(config):
        return
    mode = config.getini("netwarren_sandbox")
    # Workers of pytest-xdist have threads from their start and cannot enter, but they inherit what this
    # process has entered; and it never collects, so all it can do is look into the files.
    if mode == "early":
        from netwarren.errors import NetwarrenError

        try:
            _sandbox(config).enter()
        except NetwarrenError as error:
            raise pytest.UsageError(f"netwarren_sandbox = early: {error}") from error
    elif mode == "auto" and _distributes(config) and _mentioned(config):
        _try_to_enter(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: "Sequence[XSpec]") -> None:
    # A worker on another machine inherits from nobody here, so there the sandbox is entered before Python starts.
    mode = config.getini("netwarren_sandbox")
    if mode == "early" or (mode == "auto" and _mentioned(config)):
        sandbox = _sandbox(config)
        options = "--map-root " * sandbox.map_root + "--subids " * sandbox.subids
        for spec in specs:
            if spec.ssh or spec.vagrant_ssh:
                python = spec.python or "python"  # as execnet has it
                spec.python = f"{python} -m netwarren run --host-network {options}-- {python}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The first `with pod:` moves the main thread out of the host's network for good, so tests of others,
    # which may want the host's localhost, come first.
    ours = [item for item in items if _uses_cluster(item)]
    if ours and len(ours) < len(items):
        items[:] = [item for item in items if not _uses_cluster(item)] + ours


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("collectonly", False) or _is_worker(config):
        return
    if config.getini("netwarren_sandbox") == "auto" and any(_uses_cluster(item) for item in session.items):
        _try_to_enter(config, meanwhile=_load)


def _try_to_enter(config: pytest.Config, meanwhile: Callable[[], object] | None = None) -> None:
    from netwarren.errors import NetwarrenError

    try:
        _sandbox(config).enter(meanwhile)
    except NetwarrenError:
        pass  # told by each test that needs it; the others go on


def _load() -> None:
    """What the first test will need, and a process without tests of ours will not."""
    import netwarren.cluster  # noqa: F401


def _uses_cluster(item: pytest.Item) -> bool:
    return _SANDBOX in getattr(item, "fixturenames", ())


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _distributes(config: pytest.Config) -> bool:
    return bool(config.getoption("numprocesses", None) or config.getoption("tx", None))


def _sandbox(config: pytest.Config) -> "Sandbox":
    from netwarren.errors import ConfigurationError
    from netwarren.sandbox import Sandbox

    kind = config.getini("netwarren_map")
    if kind not in ("identity", "root", "subids"):
        raise ConfigurationError(f"netwarren_map = {kind!r} means nothing; it is identity, root or subids")
    return Sandbox(map_root=kind == "root", subids=kind == "subids")


_PARAMETER = re.compile(rb"def\s+\w+\s*\([^)]*\b(?:module_|session_)?cluster\b|usefixtures\([^)]*cluster")
_OWN_FIXTURE = re.compile(rb"def\s+cluster\s*\(")
_PASSED_OVER = frozenset({"node_modules", "build", "dist", "venv", "__pycache__"})


def _mentioned(config: pytest.Config) -> bool:
    """Whether the files to collect look as if some test asked for a cluster of ours."""
    parameter = own = False
    for path in _python_files([arg.split("::")[0] for arg in config.args], str(config.rootpath)):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if b"netwarren" in text:
            return True
        if b"cluster" in text:
            parameter = parameter or _PARAMETER.search(text) is not None
            own = own or _OWN_FIXTURE.search(text) is not None
    return parameter and not own


def _python_files(arguments: list[str], root: str) -> Iterator[str]:
    for argument in arguments:
        start = os.path.abspath(argument)
        above = start
        while above != root and above.startswith(root + os.sep):
            above = os.path.dirname(above)
            yield os.path.join(above, "conftest.py")
        if os.path.isfile(start):
            yield start
        for folder, folders, files in os.walk(start):
            folders[:] = [name for name in folders if name[0] != "." and name not in _PASSED_OVER]
            for name in files:
                if name.endswith(".py"):
                    yield os.path.join(folder, name)


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session", name=_SANDBOX)
def _entered(request: pytest.FixtureRequest) -> None:
    from netwarren.errors import ConfigurationError, SandboxError
    from netwarren.sandbox import inside

    config = request.config
    if inside():
        return
    mode = config.getini("netwarren_sandbox")
    if mode == "never":
        raise ConfigurationError("this test needs a cluster, and netwarren_sandbox = never forbids it")
    if mode not in ("auto", "early"):
        raise ConfigurationError(f"netwarren_sandbox = {mode!r} means nothing; it is auto, early or never")
    if _is_worker(config):
        raise SandboxError(
            "enter the sandbox",
            "this is a worker of pytest-xdist, which has threads from its start, and the controller did not "
            "enter: no file it was given mentions netwarren or a parameter `cluster`, or it was refused",
            "put `netwarren_sandbox = early` into pytest's configuration, or run without -n to see the refusal",
        )
    _sandbox(config).enter()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, _netwarren_sandbox: None) -> Iterator["Cluster"]:
    """A fresh cluster for this test, gone afterwards; options by ``@pytest.mark.cluster(...)`` or ini."""
    yield from _cluster(request)


@pytest.fixture(scope="module")
def module_cluster(request: pytest.FixtureRequest, _netwarren_sandbox: None) -> Iterator["Cluster"]:
    """One cluster for all tests of a module; options by ``pytestmark = pytest.mark.cluster(...)``."""
    yield from _cluster(request)


@pytest.fixture(scope="session")
def session_cluster(request: pytest.FixtureRequest, _netwarren_sandbox: None) -> Iterator["Cluster"]:
    """One cluster for the session (of each process, under pytest-xdist); options by ini."""
    yield from _cluster(request)


def _cluster(request: pytest.FixtureRequest) -> Iterator["Cluster"]:
    from netwarren.cluster import Cluster

    node = request.node
    options = _options(request.config, reversed(list(node.iter_markers("cluster"))))
    with Cluster(node.name or "session", **options) as made:
        print(f"netwarren: step in with: {made.step_in_command()}", file=sys.stderr)
        by_fixture = request.config.stash.setdefault(_OPEN, {})
        by_fixture[request.fixturename or ""] = made
        try:
            yield made
        finally:
            del by_fixture[request.fixturename or ""]


def _options(config: pytest.Config, markers: Iterable[pytest.Mark]) -> dict[str, Any]:
    """The ini's options, and over them those of ``markers``, of which the last one wins."""
    options: dict[str, Any] = {}
    for setting in _SETTINGS:
        if value := config.getini(setting):
            options[setting.removeprefix("netwarren_")] = tuple(value)
    if "pod_prefix" in options:
        options["pod_prefix"] = _number("netwarren_pod_prefix", options["pod_prefix"])
    known = {setting.removeprefix("netwarren_") for setting in _SETTINGS}
    for marker in markers:
        if marker.args or not known.issuperset(marker.kwargs):
            from netwarren.errors import ConfigurationError

            raise ConfigurationError(
                f"@pytest.mark.cluster takes {', '.join(sorted(known))} by name, not "
                f"{', '.join([*map(repr, marker.args), *sorted(set(marker.kwargs) - known)])}"
            )
        options.update(marker.kwargs)
    return options


def _number(setting: str, words: tuple[str, ...]) -> int:
    if len(words) != 1 or not words[0].isdigit():
        from netwarren.errors import ConfigurationError

        raise ConfigurationError(f"{setting} = {' '.join(words)} is not a number, like 24")
    return int(words[0])


# --- programs that die ---------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    # Here and not with the cluster's end, so that it is the test's failure, with the cluster in its report, and
    # not the last test's of those that share a cluster.
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        for death in _deaths(item):
            error.add_note(f"And in the cluster: {death.where}: {shlex.join(death.command)} {death.why}")
        raise
    if deaths := _deaths(item):
        for other in deaths[1:]:
            deaths[0].add_note(f"And also: {other}")
        raise deaths[0]


def _deaths(item: pytest.Item) -> "list[ProgramError]":
    """The ends of programs that nobody expected, which are told by that, in the clusters that ``item`` has."""
    if "netwarren.cluster" not in sys.modules:
        return []
    from netwarren.runtime.ending import died_unseen

    return [death for cluster in _clusters_of(item).values() for death in died_unseen(cluster._machines())]


# --- the report -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "netwarren.cluster" in sys.modules:
        for name, cluster in _clusters_of(item).items():
            report.sections.append((f"netwarren {name}", cluster.report()))
    if report.failed and not _uses_cluster(item) and "netwarren.runtime.standing" in sys.modules:
        from netwarren.runtime import standing

        if standing.left_the_host():
            report.sections.append(("netwarren", _NO_LOCALHOST))
    return report


def _clusters_of(item: pytest.Item) -> dict[str, "Cluster"]:
    """The open clusters that ``item`` has, by the names of their fixtures; those of the user's own, too."""
    from netwarren.cluster import Cluster

    asked_for = getattr(item, "fixturenames", ())
    # What a fixture that failed had asked for is in no test's arguments.
    clusters = {
        name: cluster
        for name, cluster in item.config.stash.get(_OPEN, {}).items()
        if name == "cluster" or name in asked_for
    }
    for name, value in (getattr(item, "funcargs", None) or {}).items():
        if isinstance(value, Cluster) and value not in clusters.values():
            clusters[name] = value
    return {name: cluster for name, cluster in clusters.items() if not cluster.closed}
