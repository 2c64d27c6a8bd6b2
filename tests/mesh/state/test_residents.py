"""Who lives on a node, and who has come and gone."""

import time

import pytest

from netwarren.mesh.model import Identity, Workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.residents import Movement
from netwarren.mesh.state.store import State
from tests.mesh.state.builders import identity

NOTHING = Movement((), ())


def pod(name: str, account: str = "", node: str = "node-a", **fields: object) -> Workload:
    given = {"protocol": "HBONE", **fields}
    return Workload(name, name, "default", service_account=account or name, node=node, **given)  # type: ignore[arg-type]


def told(*workloads: Workload) -> State:
    """A state that has these, and has been asked about them."""
    state = State(Config(workloads), node="node-a")
    state.residents.movement()
    return state


def named(name: str) -> Identity:
    return identity(name, "default")


def test_those_that_are_there_from_the_start_are_here() -> None:
    state = State(Config((pod("a"), pod("b"))), node="node-a")
    assert state.residents.movement() == Movement((named("a"), named("b")), ())
    assert state.residents.movement() == NOTHING


@pytest.mark.parametrize(
    ("workload", "here"),
    [
        (pod("a"), True),
        (pod("a", protocol="TCP"), False),
        (pod("a", protocol="TCP", native_tunnel=True), True),
        (pod("a", node="node-b"), False),
        (pod("a", node=""), False),
    ],
)
def test_who_takes_hbone_on_the_node_is_here(workload: Workload, here: bool) -> None:
    state = told()
    state.add_workload(workload)
    assert state.residents.movement() == Movement((named("a"),) if here else (), ())


def test_without_a_node_nobody_is_here() -> None:
    assert State(Config((pod("a", node=""), pod("b")))).residents.movement() == NOTHING


def test_an_identity_is_gone_with_its_last_workload() -> None:
    state = told(pod("a", "robot"), pod("b", "robot", protocol="TCP"), pod("c", "robot", node="node-b"))
    state.remove_workload("a")
    assert state.residents.movement() == NOTHING
    state.remove_workload("b")
    assert state.residents.movement() == Movement((), (named("robot"),))
    state.remove_workload("c")
    state.remove_workload("b")
    assert state.residents.movement() == NOTHING


def test_one_that_changes_is_not_gone_unless_it_is_somebody_else_or_elsewhere() -> None:
    state = told(pod("a"))
    state.add_workload(pod("a", status="Unhealthy"))
    assert state.residents.movement().gone == ()
    state.add_workload(pod("a", "b"))
    assert state.residents.movement() == Movement((named("b"),), (named("a"),))
    state.add_workload(pod("a", "b", node="node-b"))
    assert state.residents.movement() == Movement((), (named("b"),))


def test_who_comes_and_goes_between_two_questions_is_gone() -> None:
    state = told()
    state.add_workload(pod("a"))
    state.remove_workload("a")
    assert state.residents.movement() == Movement((), (named("a"),))


def test_of_what_replaces_everything_the_difference_is_told() -> None:
    state = told(pod("a"), pod("b"))
    state.replace(Config((pod("b"), pod("c"))))
    moved = state.residents.movement()
    assert (sorted(moved.here), moved.gone) == ([named("b"), named("c")], (named("a"),))


def test_a_change_costs_the_same_among_thousands() -> None:
    state = told(*(pod(f"p{number}", f"a{number % 500}") for number in range(10_000)))
    took = []
    for _ in range(20):
        start = time.perf_counter()
        state.add_workload(pod("one"))
        state.residents.movement()
        state.remove_workload("one")
        state.residents.movement()
        took.append(time.perf_counter() - start)
    # To look at all of them takes some milliseconds.
    assert min(took) < 0.0005
