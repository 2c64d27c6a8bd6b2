"""Servers have threads that live at the sandbox's home."""

import pytest


@pytest.fixture(autouse=True)
def _in_the_sandbox(_netwarren_sandbox: None) -> None:
    """For all tests here."""
