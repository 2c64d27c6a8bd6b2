"""docs/reference.md has everything that is public, with the parameters and defaults that it has.

An entry is a span of code such as `cluster.add_pod(name, node=None, *, address=None)`; the word before the
dot says whose it is.
"""

import argparse
import inspect
import re
import socket
from typing import Any

import pytest

import netwarren
from netwarren import (
    Background,
    Cluster,
    Node,
    Pod,
    Program,
    Published,
    Root,
    Sandbox,
    Service,
    cli,
    pytest_plugin,
)
from netwarren.names import ClusterDNS
from netwarren.runtime.machine import Machine
from tests.docs.markdown import ROOT, read

REFERENCE = read(ROOT / "docs" / "reference.md")
TEXT = REFERENCE.path.read_text()

# The words of entries, and the classes that have them; what a Machine has, pods, nodes and roots have.
OWNERS: dict[str, tuple[type, ...]] = {
    "cluster": (Cluster,),
    "dns": (ClusterDNS,),
    "pod": (Machine, Pod),
    "node": (Node, Pod),
    "program": (Program,),
    "background": (Background,),
    "published": (Published,),
    "sandbox": (Sandbox,),
    "service": (Service,),
}

ENTRY = re.compile(rf"`({'|'.join(OWNERS)})\.(\w+)(\([^`]*\))?`")
ENTRIES: list[tuple[str, str, str | None]] = [(m[1], m[2], m[3]) for m in ENTRY.finditer(TEXT)]


def own_attributes(owner: type) -> set[str]:
    """What its ``__init__`` sets, and that of those above it."""
    found: set[str] = set()
    for kind in owner.__mro__:
        if kind.__module__.startswith("netwarren"):
            found.update(re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", inspect.getsource(kind)))
    return found


def members(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")} | own_attributes(owner)


def parameters(signature: str) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter of ``(a, b=1, *, c=None)``."""
    scope: dict[str, Any] = {"AF_INET": socket.AF_INET, "SOCK_STREAM": socket.SOCK_STREAM}
    exec(f"def f{signature}: ...", scope)
    return [
        (each.name, each.kind, each.default) for each in inspect.signature(scope["f"]).parameters.values()
    ]


def real_parameters(function: Any) -> list[tuple[str, Any, Any]]:
    given = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in given if each.name != "self"]


@pytest.mark.parametrize("name", netwarren.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert re.search(rf"`(netwarren\.)?{name}\b", TEXT)


@pytest.mark.parametrize(
    "owner", [Cluster, ClusterDNS, Pod, Node, Root, Program, Background, Published, Sandbox, Service]
)
def test_every_public_member_is_there(owner: type) -> None:
    words = {ClusterDNS: ("dns",), Pod: ("pod", "node"), Node: ("pod", "node"), Root: ("pod",)}.get(
        owner, (owner.__name__.lower(),)
    )
    told = {name for word, name, _signature in ENTRIES if word in words}
    if owner is Pod:
        told |= set(re.findall(r"`Pod\.(\w+)\b", TEXT))
    assert members(owner) <= told


@pytest.mark.parametrize(("word", "name"), sorted({(word, name) for word, name, _signature in ENTRIES}))
def test_every_entry_is_as_in_the_code(word: str, name: str) -> None:
    owners = [owner for owner in OWNERS[word] if name in members(owner)]
    assert owners, f"{word}.{name} is not there any more"
    value = inspect.getattr_static(owners[0], name, None)
    signatures = {signature for *entry, signature in ENTRIES if entry == [word, name] and signature}
    assert len(signatures) == inspect.isfunction(value)
    for signature in signatures:
        assert parameters(signature) == real_parameters(value)


@pytest.mark.parametrize("owner", [Cluster, Sandbox])
def test_what_users_make_is_as_in_the_code(owner: type) -> None:
    match = re.search(rf"^`{owner.__name__}(\(.*\))`$", TEXT, re.MULTILINE)
    assert match
    assert parameters(match.group(1)) == real_parameters(owner)
    for name, _kind, _default in real_parameters(owner):
        assert f"`{name}`" in REFERENCE.section(owner.__name__)


ERRORS = [
    value
    for name in netwarren.__all__
    if isinstance(value := getattr(netwarren, name), type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_there_with_its_attributes(error: type[Exception]) -> None:
    (row,) = re.findall(rf"^\| `{error.__name__}` \|.*$", REFERENCE.section("Errors"), re.MULTILINE)
    for name in re.findall(r"self\.(\w+) = ", inspect.getsource(error)):
        assert f"`{name}`" in row


class Parser:
    """Takes what a plugin tells pytest of its options."""

    def __init__(self) -> None:
        self.options: list[str] = []
        self.markers: list[str] = []

    def addini(self, name: str, *_arguments: object, **_options: object) -> None:
        self.options.append(name)

    def addinivalue_line(self, _name: str, line: str) -> None:
        self.markers.append(line)


PLUGIN = REFERENCE.section("The pytest plugin")


def test_every_fixture_is_there() -> None:
    kind = type(pytest.fixture(lambda: None))
    fixtures = [name for name, value in vars(pytest_plugin).items() if isinstance(value, kind)]
    shown = re.findall(r"^\| `(\w*cluster)` \|", PLUGIN, re.MULTILINE)
    assert shown == [name for name in fixtures if not name.startswith("_")]


def test_every_option_of_the_configuration_is_there() -> None:
    parser: Any = Parser()
    pytest_plugin.pytest_addoption(parser)
    shown = re.findall(r"^\| `(netwarren_\w+)` \|", PLUGIN, re.MULTILINE)
    assert sorted(shown) == sorted(parser.options)


def test_every_marker_is_there() -> None:
    config: Any = Parser()
    pytest_plugin.pytest_configure(config)
    for line in config.markers:
        assert f"`@pytest.mark.{line.partition(':')[0]}`" in PLUGIN


def parsers() -> list[tuple[str, argparse.ArgumentParser]]:
    found = [("", cli._parser())]
    for action in found[0][1]._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.items()
    return found


@pytest.mark.parametrize(("command", "parser"), parsers())
def test_every_command_and_option_is_there(command: str, parser: argparse.ArgumentParser) -> None:
    section = REFERENCE.section("The command line")
    if command:
        assert f"| `netwarren {command}" in section
    for action in parser._actions:
        for option in action.option_strings:
            (row,) = re.findall(rf"^\| .*`{option}`.*$", section, re.MULTILINE)
            assert command in row or option in ("-h", "--help")


def test_every_variable_of_the_environment_is_there() -> None:
    section = REFERENCE.section("The environment")
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"NETWARREN_[A-Z]+", path.read_text()):
            assert f"| `{name}` |" in section
