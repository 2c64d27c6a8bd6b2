"""Curves of the benchmarks: well-formed, inside their frame, the same each time."""

import xml.etree.ElementTree as ElementTree

import pytest
from bench.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Curve, chart, nice_step
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"
VALUE = st.just(0.0) | st.floats(1e-6, 1e6)
POINTS = st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=30)


def lines(text: str) -> list[list[tuple[float, float]]]:
    """The points of each curve, as they are drawn."""
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())]
        for line in ElementTree.fromstring(text).iter(f"{SVG}polyline")
    ]


@given(POINTS, st.booleans(), st.booleans())
def test_all_points_are_drawn_inside_the_frame(points: list[tuple[float, float]], x: bool, y: bool) -> None:
    points = [*points, (10.0, 10.0)]
    (drawn,) = lines(chart("t", Axis("x", x), Axis("y", y), [Curve("c", points)]))
    shown = [(at, value) for at, value in points if (at > 0 or not x) and (value > 0 or not y)]
    assert len(drawn) == len(shown)
    for at, value in drawn:
        assert LEFT - 0.1 <= at <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= value <= HEIGHT - BOTTOM + 0.1


def test_what_is_more_is_drawn_higher_and_further_right() -> None:
    (drawn,) = lines(
        chart("t", Axis("x", True), Axis("y", True), [Curve("c", [(10, 1), (100, 10), (1000, 100)])])
    )
    (x1, y1), (x2, y2), (x3, y3) = drawn
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)  # equal factors, equal steps
    assert y1 > y2 > y3


def test_each_curve_has_a_name_and_a_colour_of_its_own() -> None:
    text = chart("a <title> & more", Axis("x"), Axis("y"), [Curve(f"curve {n}", [(n, n)]) for n in range(4)])
    tree = ElementTree.fromstring(text)
    assert tree.findtext(f"{SVG}title") == "a <title> & more"
    assert {f"curve {n}" for n in range(4)} <= {each.text for each in tree.iter(f"{SVG}text")}
    assert len({each.attrib["stroke"] for each in tree.iter(f"{SVG}polyline")}) == 4


def test_the_same_points_give_the_same_text() -> None:
    drawn = [chart("t", Axis("x"), Axis("y"), [Curve("c", [(1, 2), (3, 4)])]) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no point to draw in 'empty'"):
        chart("empty", Axis("x", logarithmic=True), Axis("y"), [Curve("c", [(0, 1)])])


@given(st.floats(1e-6, 1e9))
def test_steps_are_round_and_not_much_too_wide(rough: float) -> None:
    assert rough * 0.999 <= nice_step(rough) <= rough * 2.6
