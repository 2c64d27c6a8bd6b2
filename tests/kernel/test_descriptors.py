"""Whether there are plenty of descriptors, for what is made ahead."""

import os

import pytest

from netwarren.kernel import descriptors


@pytest.fixture
def latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt in a test goes with it."""
    monkeypatch.setattr(descriptors, "_latest", descriptors._latest)


@pytest.mark.usefixtures("latest")
def test_there_are_plenty_where_less_than_half_are_in_use() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    descriptors.leave_room(fd)
    os.close(fd)
    assert descriptors.plenty()


@pytest.mark.usefixtures("latest")
def test_where_few_are_left_none_is_taken_to_find_that_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(fd: int) -> int:
        raise AssertionError("one was taken")

    monkeypatch.setattr(descriptors, "_latest", 1 << 30)
    monkeypatch.setattr(os, "dup", dup)
    assert not descriptors.plenty()
