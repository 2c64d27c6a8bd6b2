"""What pods and nodes may be called, and why not."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.errors import ConfigurationError, InvalidName
from netwarren.topology.naming import check_labels, check_name, check_service_name


@pytest.mark.parametrize(
    "name", ["a", "web", "node-a", "web-0", "0web", "10-0-1-2", "a--b", "x" * 63, "0xyz"]
)
def test_rfc_1123_labels_are_names(name: str) -> None:
    assert check_name("pod", name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("x" * 64, "is 64 characters long"),
        ("Web", "contains the capital letter 'W'"),
        ("web_0", "contains '_'"),
        ("web.default", "contains '.'"),
        ("web/0", "contains '/'"),
        ("wéb", "contains 'é'"),
        ("web\n", "contains '\\\\n'"),
        ("-web", "starts with '-'"),
        ("web-", "ends with '-'"),
        ("-", "starts with '-'"),
        ("localhost", "is reserved"),
        ("10", "is a number"),
        ("0x7f", "is a number"),
    ],
)
def test_a_refused_name_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(InvalidName, match=why) as refusal:
        check_name("pod", name)
    assert refusal.value.kind == "pod"
    assert refusal.value.name == name


@given(st.text(string.printable, max_size=70))
def test_a_name_is_one_that_kubernetes_takes(name: str) -> None:
    try:
        check_name("pod", name)
    except InvalidName:
        return
    assert 1 <= len(name) <= 63
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert not name.startswith("-")
    assert not name.endswith("-")


@pytest.mark.parametrize(
    ("key", "value"),
    [("app", "web"), ("app", ""), ("app.kubernetes.io/name", "Web_1.2-x"), ("x" * 63, "y" * 63)],
)
def test_labels_of_kubernetes_are_labels(key: str, value: str) -> None:
    assert check_labels({key: value}) == {key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "web"),
        ("-app", "web"),
        ("app", "a b"),
        ("app", "x" * 64),
        ("Ex.com/app", "web"),
        ("a/b/c", "web"),
    ],
)
def test_labels_that_kubernetes_refuses_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="is none of Kubernetes'"):
        check_labels({key: value})


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ("app=web", r"labels 'app=web' are no dictionary; write them like \{'app': 'web'\}"),
        (["app"], r"labels \['app'\] are no dictionary"),
        ({"app": 1}, "label 'app': 1 is no text; write it like 'web'"),
        ({1: "web"}, "the label 1 is no text; write it like 'app'"),
    ],
)
def test_what_are_no_labels_is_refused_in_a_sentence(labels: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        check_labels(labels)


@pytest.mark.parametrize("name", [5, None, b"web", ["web"]])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    with pytest.raises(InvalidName, match="is no text; a name is an RFC 1123 label"):
        check_name("namespace", name)
    with pytest.raises(InvalidName, match="is no text; a name is an RFC 1035 label"):
        check_service_name(name)
