"""A session killed with SIGKILL, at whatever moment, leaves nothing."""

import os
import random
import signal
import uuid

import pytest

from tests.plugin.conftest import Session
from tests.plugin.host import MARK, Host, marked, wait_until_none_is_left

FOR_EVER = """
    import itertools
    import os

    SHELL = "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo started; sleep 1000"

    def test_for_ever(cluster):
        for number in itertools.count():
            pod = cluster.add_pod(f"pod-{number}")
            pod.popen(["sh", "-c", SHELL])
            pod.popen(["sleep", "1000"])
            with pod:
                pass
            if number > 1:
                cluster.remove_pod(f"pod-{number - 2}")
            os.write(2, f"turn {number}\\n".encode())  # of a worker, this alone is heard
"""

THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


# A worker of pytest-xdist goes on for five seconds after its controller was killed.
@pytest.mark.parametrize(("how", "times"), [("in process", 4), ("fork way", 3), ("worker", 1)])
def test_nothing_is_left_of_a_session_killed_at_a_random_moment(
    session: Session, how: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = str(uuid.uuid4())
    temporary = session.path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(session.path))
    session.file("test_it.py", FOR_EVER)
    if how == "fork way":
        session.file("conftest.py", THREAD)
    arguments = ["-s", *(["-n1"] if how == "worker" else [])]
    before = Host.now()
    for _ in range(times):
        running = session.start(*arguments, plugins="xdist")
        running.line(f"turn {random.randrange(3)}")
        assert len(marked(mark)) > 2  # the session, the warden, programs
        # Up to the length of a turn later, so that it is met in the middle of anything.
        with pytest.raises(AssertionError):
            running.line("(never written)", random.uniform(0, 0.1))
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        wait_until_none_is_left(mark)
    assert before.settled() == before
    assert os.listdir(temporary) == []
