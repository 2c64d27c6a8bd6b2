"""After a session the host is as it was before it."""

import os
import uuid

import pytest

from tests.plugin.conftest import Session
from tests.plugin.host import MARK, Host, wait_until_none_is_left

BUSY = """
    import sys
    import pytest

    SHELL = "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo started; sleep 1000"

    @pytest.mark.parametrize("number", range(3))
    @pytest.mark.parametrize("families", ["ipv4", "ipv6"])
    def test_busy(cluster, module_cluster, session_cluster, number, families):
        for each in (cluster, module_cluster, session_cluster):
            pod = each.add_pod(f"pod-{families}-{number}")
            pod.popen(["sh", "-c", SHELL])
            pod.check_output(["echo", "hello"])
            pod.start(lambda stop: stop.wait())
            with pod:
                pass
        if number == 1:
            cluster.remove_pod(f"pod-{families}-{number}")

    def test_fails(cluster):
        cluster.add_pod("a").popen(["sleep", "1000"])
        assert 0
"""

THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@pytest.mark.parametrize("how", ["in process", "fork way", "workers"])
def test_host_is_the_same_before_and_after_a_session(
    session: Session, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = str(uuid.uuid4())
    temporary = session.path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(temporary))
    session.file("test_it.py", BUSY)
    if how == "fork way":
        session.file("conftest.py", THREAD)
    before = Host.now()
    result = session.run(*(["-n2"] if how == "workers" else []), plugins="xdist")
    result.assert_outcomes(passed=6, failed=1)
    wait_until_none_is_left(mark)  # the warden goes a moment after the session
    assert before.settled() == before
    assert os.listdir(temporary) == []
