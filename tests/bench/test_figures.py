"""Medians, percentiles and ratios of the benchmarks."""

import math
import statistics

import pytest
from bench.figures import (
    Ratio,
    Series,
    Summary,
    chunks,
    number,
    percentile,
    ratio,
    running_mean,
    summarised,
)
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


@given(VALUES, st.floats(0.01, 1))
def test_a_percentile_is_a_value_and_the_least_that_covers_its_share(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= math.floor(len(values) * share)
    assert sum(value < found for value in values) < len(values) * share


def test_the_95th_percentile_of_a_hundred_is_the_95th() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([7], 0.95) == 7


@given(VALUES)
def test_a_summary_is_in_order(values: list[float]) -> None:
    summary = Summary.of(values)
    assert summary.least <= summary.median <= summary.p95 <= summary.most
    assert summary.count == len(values)
    assert summary.mean == statistics.fmean(values)


def test_there_is_no_summary_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Summary.of([])


def test_a_ratio_is_of_all_turns_and_says_how_far_single_ones_are_from_it() -> None:
    ours, floor = Series([[2.0, 2.0], [6.0, 6.0]]), Series([[1.0, 1.0], [2.0, 2.0]])
    assert ratio(ours, floor, statistics.fmean) == Ratio(4 / 1.5, 2.0, 3.0)


def test_a_machine_that_slows_down_for_both_does_not_change_the_ratio() -> None:
    drift = [1.0, 3.0, 10.0]
    ours, floor = Series([[2 * speed] for speed in drift]), Series([[speed] for speed in drift])
    assert ratio(ours, floor) == Ratio(2, 2, 2)


def test_a_turn_in_which_one_could_not_run_is_left_out_of_the_spread() -> None:
    assert ratio(Series([[2.0], [4.0]]), Series([[1.0], []])) == Ratio(3, 2, 3)


def test_a_series_without_values_is_false() -> None:
    assert not Series()
    assert not Series([[]])
    assert Series([[0.0]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.5, "1.5"),
        (1, "1"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (100, "100"),
    ],
)
def test_a_number_has_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_a_ratio_shows_its_spread_where_there_is_one() -> None:
    assert str(Ratio(1.5, 1.5, 1.5)) == "1.5"
    assert str(Ratio(1.5, 1.2, 2)) == "1.5 (1.2 to 2)"


def test_a_running_mean_is_calm_and_hides_no_stall() -> None:
    assert running_mean([1, 1, 10, 2, 2, 8, 3], 3) == [(1.5, 4), (4.5, 4), (6.5, 3)]


@given(VALUES, st.integers(1, 10))
def test_chunks_are_all_of_it_in_order(values: list[float], count: int) -> None:
    parts = list(chunks(values, count))
    assert [value for part in parts for value in part] == values
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_long_lists_of_numbers_are_summarised_and_all_else_is_kept() -> None:
    tree = {"few": [1.00001, 2], "many": list(range(100)), "words": ["a"] * 50, "deep": [{"x": None}]}
    assert summarised(tree) == {
        "few": [1.0, 2],
        "many": {"count": 100, "mean": 49.5, "median": 49.5, "p95": 94, "least": 0, "most": 99},
        "words": ["a"] * 50,
        "deep": [{"x": None}],
    }
