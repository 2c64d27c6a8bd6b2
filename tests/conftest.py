"""What the tests of every folder need; what only one folder needs is in that folder's conftest."""

import signal
from collections.abc import Iterator

import hypothesis
import pytest

# No test fails for the time it takes: machines are slow and busy, and each test has the limit of pyproject.toml.
hypothesis.settings.register_profile("netwarren", deadline=None)
hypothesis.settings.load_profile("netwarren")

pytest_plugins = ["pytester"]

# Whoever started us may have had some signals ignored (nohup, a job in the background of a script), and
# programs inherit that; tests send them and mean them.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All ends at once, and nothing is made ahead or used again: for tests that count what is left."""
    from netwarren.cluster import ended, stock
    from tests.kept import let_go

    monkeypatch.setattr(stock, "MOST", 0)
    monkeypatch.setattr(ended, "ENOUGH", 1)

    let_go()
    yield
    let_go()
