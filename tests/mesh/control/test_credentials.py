"""The headers by which a proxy says who it is to its authority."""

from pathlib import Path

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.control.credentials import TOKEN_PATH, Credentials


def test_a_token_is_read_from_its_file_each_time_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    told = Credentials.told(str(path), "one")
    assert told.headers() == [("authorization", "Bearer first"), ("clusterid", "one")]
    path.write_text("second\n")
    assert told.headers() == [("authorization", "Bearer second"), ("clusterid", "one")]


def test_a_path_need_not_be_there_and_is_no_token_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in (TOKEN_PATH, str(tmp_path / "token")):
        path = Path(each)
        told = Credentials.told(each, "one")
        assert told.headers() == [("clusterid", "one")]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("late")
        assert told.headers() == [("authorization", "Bearer late"), ("clusterid", "one")]
        path.unlink()
        assert told.headers() == [("clusterid", "one")]


def test_what_is_neither_a_path_nor_a_file_is_the_token_itself() -> None:
    assert Credentials.told("a.b.c", "one").headers() == [
        ("authorization", "Bearer a.b.c"),
        ("clusterid", "one"),
    ]


def test_who_says_nothing_has_no_headers() -> None:
    assert Credentials().headers() == []


@pytest.mark.parametrize("text", ["", " \n", "two\nlines", "tokén", "\x00"])
def test_what_is_no_token_is_one_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(MeshError, match=r"token of .*/token"):
        Credentials.told(str(path), "").headers()


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="cannot be read"):
        Credentials.told(str(tmp_path), "").headers()


def test_a_cluster_that_no_header_can_say_is_one_error() -> None:
    with pytest.raises(MeshError, match="cluster"):
        Credentials(cluster_id="one\r\ntwo").headers()
