"""What requests come to, without a connection and without pods."""

import random

import pytest

from netwarren.mesh.backoff import Backoff
from netwarren.mesh.inpod.pod_states import Action, Answer, Exit, NetnsIdentity, PodStates, Start, Stop
from netwarren.mesh.inpod.zds import Ack, Add, Delete, Keep, SnapshotSent, WorkloadInfo

INFO = WorkloadInfo("name", "ns", "sa")
ONE, TWO = NetnsIdentity(4, 1), NetnsIdentity(4, 2)
DONE: list[Action] = [Answer(Ack())]


def added(states: PodStates, uid: str = "u1", netns: NetnsIdentity = ONE) -> None:
    """A pod that was added, and started."""
    (start,) = states.receive(Add(uid, INFO), netns)
    assert isinstance(start, Start)
    assert states.started(start) == DONE


def failed(states: PodStates, uid: str = "u1", netns: NetnsIdentity = ONE) -> Start:
    """A pod that was added, and could not be started."""
    (start,) = states.receive(Add(uid, INFO), netns)
    assert isinstance(start, Start)
    assert states.started(start, "EADDRINUSE") == [Answer(Ack("failure to start proxy : EADDRINUSE"))]
    return start


def synced(*uids: str) -> PodStates:
    states = PodStates()
    for uid in uids:
        added(states, uid)
    assert states.receive(SnapshotSent()) == DONE
    return states


def test_an_added_pod_is_started_and_then_acknowledged() -> None:
    states = PodStates()
    assert states.receive(Add("u1", INFO), ONE) == [Start("u1", INFO, ONE)]
    assert "u1" not in states.active
    assert states.started(Start("u1", INFO, ONE)) == DONE
    assert "u1" in states.active
    assert states.started_total == 1


def test_a_pod_added_again_in_its_namespace_stays_as_it_is() -> None:
    states = synced("u1")
    assert states.receive(Add("u1", INFO), ONE) == DONE


def test_a_pod_added_again_in_another_namespace_is_stopped_and_started() -> None:
    states = synced("u1")
    assert states.receive(Add("u1", INFO), TWO) == [Stop("u1"), Start("u1", INFO, TWO)]
    assert states.started(Start("u1", INFO, TWO)) == DONE
    assert states.active["u1"].netns == TWO
    assert states.stopped_total == 1


@pytest.mark.parametrize(
    ("info", "netns", "what"), [(None, ONE, "workload info"), (INFO, None, "network namespace")]
)
def test_an_addition_that_lacks_something_is_the_end(
    info: WorkloadInfo | None, netns: NetnsIdentity | None, what: str
) -> None:
    answer, end = PodStates().receive(Add("u1", info), netns)
    assert isinstance(answer, Answer)
    assert what in answer.ack.error
    assert isinstance(end, Exit)


def test_ready_is_when_the_snapshot_has_come_and_nothing_is_pending() -> None:
    states = PodStates()
    added(states)
    ready = [states.ready]
    states.receive(SnapshotSent())
    ready.append(states.ready)
    start = failed(states, "u2")
    ready.append(states.ready)
    states.started(start)
    ready.append(states.ready)
    states.connected()
    ready.append(states.ready)
    assert ready == [False, True, False, True, False]


def test_a_second_snapshot_is_the_end() -> None:
    states = synced()
    assert isinstance(states.receive(SnapshotSent())[-1], Exit)


def test_a_pod_kept_after_the_snapshot_is_the_end() -> None:
    states = synced("u1")
    assert isinstance(states.receive(Keep("u1"))[-1], Exit)


def test_a_new_snapshot_stops_who_is_not_named_in_it() -> None:
    states = synced("u1", "u2", "u3")
    states.connected()
    assert set(states.active) == {"u1", "u2", "u3"}
    assert states.receive(Add("u1", INFO), ONE) == DONE
    assert states.receive(Keep("u2")) == DONE
    assert states.receive(SnapshotSent()) == [Stop("u3"), Answer(Ack())]
    assert set(states.active) == {"u1", "u2"}


def test_a_deletion_before_the_snapshot_only_takes_the_name_back() -> None:
    states = synced("u1")
    states.connected()
    states.receive(Add("u1", INFO), ONE)
    assert states.receive(Delete("u1")) == DONE
    assert states.receive(SnapshotSent()) == [Stop("u1"), Answer(Ack())]


def test_a_deletion_before_the_snapshot_ends_the_wait_for_a_start() -> None:
    states = PodStates()
    failed(states)
    assert states.receive(Delete("u1")) == DONE
    states.receive(SnapshotSent())
    assert states.ready
    assert states.retry() == []


def test_a_deletion_after_the_snapshot_stops_the_pod() -> None:
    states = synced("u1")
    assert states.receive(Delete("u1")) == [Stop("u1"), Answer(Ack())]
    assert states.active == {}


def test_a_deletion_of_nobody_is_fine() -> None:
    assert synced().receive(Delete("u1")) == DONE
    assert PodStates().receive(Delete("u1")) == DONE


def test_what_could_not_be_started_is_tried_again_and_nobody_is_told() -> None:
    states = synced()
    failed(states)
    (again,) = states.retry()
    assert again == Start("u1", INFO, ONE, retry=True)
    assert states.started(again, "EADDRINUSE") == []
    assert states.retry() == [again]
    assert states.started(again) == []
    assert states.retry() == []
    assert "u1" in states.active


def test_a_later_addition_that_works_ends_the_wait() -> None:
    states = synced()
    failed(states)
    added(states, netns=TWO)
    assert states.pending == {}
    assert states.ready


def test_a_later_addition_that_fails_is_what_is_tried_again() -> None:
    states = synced()
    failed(states)
    failed(states, netns=TWO)
    assert states.retry() == [Start("u1", INFO, TWO, retry=True)]


def test_what_waits_for_its_start_is_given_up_with_a_snapshot_that_does_not_name_it() -> None:
    states = synced()
    failed(states)
    states.connected()
    states.receive(SnapshotSent())
    assert states.ready


def test_a_replaced_pod_that_does_not_start_is_not_active_any_more() -> None:
    states = synced("u1")
    _, start = states.receive(Add("u1", INFO), TWO)
    assert isinstance(start, Start)
    states.started(start, "no")
    assert states.active == {}
    assert set(states.pending) == {"u1"}


def test_at_the_end_all_are_stopped() -> None:
    states = synced("u1", "u2")
    failed(states, "u3")
    assert states.stop_all() == [Stop("u1"), Stop("u2")]
    assert (states.active, states.pending) == ({}, {})
    assert states.stopped_total == 2


# --- waits ------------------------------------------------------------------------------------------


def test_waits_double_up_to_the_most_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.01, 0.05)
    assert [backoff.wait() for _ in range(4)] == [0.01, 0.02, 0.04, 0.05]
    backoff.reset()
    assert backoff.wait() == 0.01


def test_waits_vary_by_their_jitter() -> None:
    backoff = Backoff(1.0, 1.0, jitter=0.2, rng=random.Random(1))
    waits = [backoff.wait() for _ in range(100)]
    assert 0.8 <= min(waits) < 0.9
    assert 1.1 < max(waits) <= 1.2
