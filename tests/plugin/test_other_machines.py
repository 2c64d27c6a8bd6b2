"""What is asked of other machines for their workers; that they do it is in `test_ssh`."""

from types import SimpleNamespace
from typing import Any

import pytest
from execnet import XSpec

from netwarren.pytest_plugin import pytest_xdist_setupnodes

RUN = "-m netwarren run --host-network"


def commands(*specs: str, sandbox: str = "early", map: str = "identity") -> list[str | None]:
    """What starts Python for each of ``specs``, under these settings."""
    settings = {"netwarren_sandbox": sandbox, "netwarren_map": map}
    config: Any = SimpleNamespace(getini=settings.__getitem__)
    read = [XSpec(spec) for spec in specs]
    pytest_xdist_setupnodes(config, read)
    return [spec.python for spec in read]


def test_a_worker_by_ssh_is_started_in_a_sandbox() -> None:
    assert commands("ssh=build-1", "ssh=build-2//python=/opt/bin/python3.13", "vagrant_ssh=default") == [
        f"python {RUN} -- python",
        f"/opt/bin/python3.13 {RUN} -- /opt/bin/python3.13",
        f"python {RUN} -- python",
    ]


def test_a_worker_here_inherits_and_is_left_alone() -> None:
    assert commands("popen", "popen//python=python3.12") == [None, "python3.12"]


@pytest.mark.parametrize(("map", "option"), [("root", "--map-root "), ("subids", "--subids ")])
def test_the_id_map_is_the_same_there(map: str, option: str) -> None:
    assert commands("ssh=build-1", map=map) == [f"python {RUN} {option}-- python"]


def test_a_session_that_stays_outside_stays_outside_there() -> None:
    assert commands("ssh=build-1", sandbox="never") == [None]
