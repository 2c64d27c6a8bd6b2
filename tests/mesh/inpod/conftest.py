"""Tests of what is done in pods enter the sandbox once, before the first of them."""

import pytest


@pytest.fixture(autouse=True)
def _in_the_sandbox(_netwarren_sandbox: None) -> None:
    """For tests that make their clusters by themselves."""
