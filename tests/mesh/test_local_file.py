"""The file of a mesh's local configuration, written by one and followed by another."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from netwarren.errors import MeshConfigError
from netwarren.mesh.local_file import LocalFile, write
from netwarren.mesh.model import Workload
from netwarren.mesh.state.dump import dump_json, dump_yaml
from netwarren.mesh.state.local_config import Config

ONE = Config((Workload(uid="a", name="a", namespace="default", addresses=(ip_address("10.0.0.1"),)),))


def test_it_is_read_and_again_when_it_is_another(tmp_path: Path) -> None:
    path = str(tmp_path / "mesh.yaml")
    write(path, dump_json(Config()).encode())
    file = LocalFile(path)
    assert file.changed()
    assert file.read() == Config()
    assert not file.changed()
    write(path, dump_yaml(ONE).encode())
    assert file.changed()
    assert file.read() == ONE
    assert [each.name for each in tmp_path.iterdir()] == ["mesh.yaml"]


def test_one_that_is_gone_for_a_while_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    write(str(path), b"")
    file = LocalFile(str(path))
    assert file.read() == Config()
    path.unlink()
    assert not file.changed()
    write(str(path), dump_json(ONE).encode())
    assert file.changed()


def test_one_that_is_not_there_or_does_not_parse_is_one_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    with pytest.raises(MeshConfigError, match=r"LOCAL_XDS_PATH=.*mesh\.yaml.*No such file"):
        LocalFile(str(path)).read()
    write(str(path), b"workloads: [{colour: red}]")
    file = LocalFile(str(path))
    with pytest.raises(MeshConfigError, match=r"mesh\.yaml: workloads\[0\]"):
        file.read()
    assert not file.changed()  # it is not read again and again
