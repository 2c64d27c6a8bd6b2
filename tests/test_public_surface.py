"""What users import: the names there are, that they are documented and typed."""

import copy
import errno
import importlib
import importlib.metadata
import inspect
import pickle
import pkgutil
from ipaddress import ip_network
from pathlib import Path

import pytest

import netwarren
from netwarren import (
    AddressError,
    AddressTaken,
    BackgroundError,
    ClosedError,
    ConfigurationError,
    DuplicateName,
    InvalidName,
    KernelError,
    NetwarrenError,
    ProgramError,
    RangeExhausted,
    SandboxError,
    SteppingError,
    UnknownName,
    UnsupportedByKernel,
)

# Written out, so that a change to it is a decision.
PUBLIC = {
    "AddressError",
    "AddressTaken",
    "Background",
    "BackgroundError",
    "ClosedError",
    "Cluster",
    "ConfigurationError",
    "DuplicateName",
    "InvalidName",
    "KernelError",
    "NetwarrenError",
    "Node",
    "Pod",
    "Program",
    "ProgramError",
    "Published",
    "RangeExhausted",
    "Root",
    "Sandbox",
    "SandboxError",
    "Service",
    "ServicePort",
    "SteppingError",
    "UnknownName",
    "UnsupportedByKernel",
    "__version__",
    "all_of",
    "http",
    "log",
    "port",
}


def test_exactly_the_public_names_are_exported() -> None:
    assert set(netwarren.__all__) == PUBLIC
    assert list(netwarren.__all__) == sorted(netwarren.__all__)
    assert set(dir(netwarren)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_imported(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from netwarren import {name}", namespace)
    assert namespace[name] is getattr(netwarren, name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'netwarren' has no attribute 'Clutser'"):
        _ = netwarren.Clutser


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_class_and_what_it_offers_is_documented(name: str) -> None:
    kind = getattr(netwarren, name)
    assert inspect.getdoc(kind)
    undocumented = [
        f"{name}.{member}"
        for base in getattr(kind, "__mro__", ())
        if base.__module__.startswith("netwarren")
        for member, value in vars(base).items()
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]
    assert undocumented == []


def modules() -> list[str]:
    return sorted(
        module.name
        for module in pkgutil.walk_packages(netwarren.__path__, "netwarren.")
        if module.name not in ("netwarren.__main__", "netwarren.sandbox.auto")  # which act when imported
    )


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_every_function_of_it_what_it_does(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    undocumented = [
        member
        for member, value in vars(module).items()
        if not member.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ == name
        and not member.startswith("pytest_")  # pytest documents its hooks
        and not inspect.getdoc(value)
    ]
    assert undocumented == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(netwarren.__path__[0]) / "py.typed").is_file()


def test_the_version_is_that_of_the_installed_package() -> None:
    assert netwarren.__version__ == importlib.metadata.version("netwarren")


def test_the_package_needs_python_and_a_codec_for_dns() -> None:
    required = importlib.metadata.requires("netwarren") or []
    assert [each for each in required if "extra ==" not in each] == ["dnspython>=2.6"]


# --- errors travel: between workers of pytest-xdist, out of forked children -------------------------

ERRORS: list[NetwarrenError] = [
    NetwarrenError("something"),
    KernelError("add route", errno.EEXIST, where="node-a", detail="File exists", hint="Do not"),
    UnsupportedByKernel("add veth", errno.EOPNOTSUPP, where="the root", hint="modprobe veth"),
    SandboxError("create a user namespace", "it may not", "let it", errno.EPERM),
    InvalidName("pod", "Web", "contains the capital letter 'W'"),
    DuplicateName("pod", "web", "10.0.1.2 on node-a"),
    UnknownName("pod", "wbe", ["web", "db"]),
    AddressError("10.0.1.0 is not yours"),
    RangeExhausted("pod address", ip_network("10.0.1.0/29"), 5, "remove one"),
    AddressTaken("pod address", "10.0.1.2", "pod web"),
    ClosedError("pod 'web'", "was removed", "add it anew"),
    SteppingError("cannot step"),
    BackgroundError("it failed"),
    ProgramError("pod 'web'", ["nginx", "-g"], "has ended", returncode=1, output="no such file"),
    ConfigurationError("families='ipx'"),
]


def test_there_is_an_example_of_every_error() -> None:
    public = {getattr(netwarren, name) for name in PUBLIC - {"__version__"}}
    errors = {kind for kind in public if isinstance(kind, type) and issubclass(kind, NetwarrenError)}
    assert {type(error) for error in ERRORS} == errors


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_text_its_data_and_its_notes(error: NetwarrenError) -> None:
    original = copy.copy(error)
    original.add_note("while it was tested")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(original, protocol))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == {**vars(error), "__notes__": ["while it was tested"]}


def all_errors(kind: type[NetwarrenError] = NetwarrenError) -> set[type[NetwarrenError]]:
    for name in modules():
        importlib.import_module(name)
    found = {kind}
    for below in kind.__subclasses__():
        found |= all_errors(below)
    return found


def test_every_error_of_the_package_is_made_anew_in_the_same_way() -> None:
    own = {kind for kind in all_errors() if "__reduce__" in vars(kind)}
    assert own == {NetwarrenError}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_can_be_caught_as_one_of_netwarrens(error: NetwarrenError) -> None:
    assert isinstance(error, NetwarrenError)
    assert str(error)
    assert "\n\n" not in str(error)
