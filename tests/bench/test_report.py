"""The marks and the page that shows them, from results that nobody measured."""

import json
from dataclasses import replace

import pytest
from bench.curves import curves
from bench.figures import Ratio, Series
from bench.marks import Mark, difference, marks
from bench.readme import between_marks, summary
from bench.report import marks_table, report
from bench.results import Built, Results, Size, Where
from bench.suite import suites
from bench.waiting import Call


def results() -> Results:
    """A run in which netwarren took 1.2 times the floor, on two turns each."""
    found = Results(
        {"Kernel": "Linux 6.18"}, quick=False, began="2026-11-28", pause=20.0, nodes=50, seconds=540
    )
    for kept in (found.single, found.paused, found.sustained):
        kept["netwarren"] = Built(Series([[3.6] * 99] * 2), Series([[4.8] * 99] * 2), 1.0, 2.0)
        kept["floor (C)"] = Built(Series([[3.0] * 99] * 2), Series([[4.0] * 99] * 2), 0.1, 2.0)
    found.single["ip commands"] = Built(Series([[100.0]] * 2), Series([[110.0]] * 2))
    found.single["Mininet"] = Built(skipped="Mininet needs root")
    found.skipped = ["Mininet: Mininet needs root"]
    flat = {"memory_kb": 12000, "descriptors": 60, "threads": 4}
    found.held = [[{"clusters": count, **flat} for count in range(50, 1001, 50)]] * 2
    phase = {"name": "root", "wall": 1.0, "user": 0.2, "system": 0.3, "queued": 0.1, "background": 0.5}
    found.where = Where(
        [phase],
        [("rtnl_newlink", 0.25)],
        [("futex_do_wait", 1.0)],
        [("rtnl_newlink", 0.5)],
        {"netwarren": [("synchronize_rcu", 0.9)]},
        {"netwarren": [Call("unshare", 0.3, 120), Call("sendmsg", 0.1, 30)]},
        30,
    )
    found.suites = suites([2, 4])
    for suite in found.suites:
        suite.tests_ms.turns = [[5.0] * 100] * 2
        suite.rate.turns = [[190.0], [200.0]]
    found.scale = {
        name: [
            Size(
                pods,
                Series([[pods * each]] * 2),
                Series([[pods * each]] * 2),
                Series([[each] * 10] * 2),
                Series([[each / 10] * 10] * 2),
                own_kb=[5.0],
                kernel_kb=[330.0],
                sent=200,
                arrived=200,
            )
            for pods in (10, 1000)
        ]
        for name, each in (("netwarren", 1.2), ("floor (C)", 1.0))
    }
    micro = {"call_us": 0.03, "with_us": 3.0, "run_us": 3.1, "pod_task_us": 6.0, "plain_task_us": 3.0}
    micro |= {"plain_socket_us": 3.0, "pod_socket_us": 6.0, "step_us": 0.8}
    found.stepping = {name: Series([[value]] * 3) for name, value in micro.items()}
    milli = {"python": 20.0, "import netwarren": 30.0, "from netwarren import Cluster": 80.0, "pytest": 200.0}
    milli |= {"pytest with the plugin, unused": 205.0, "pytest with a first cluster": 300.0}
    found.start_up = {name: Series([[value]] * 5) for name, value in milli.items()}
    found.noise = {"spread": 1.02, "loads": [0.1, 1.0, 0.9], "stolen": 0.0, "work_ms": [10.0] * 50}
    return found


def verdicts(found: Results) -> dict[str, str]:
    return {f"{mark.group}: {mark.what}": mark.verdict for mark in marks(found)}


def test_a_mark_is_reached_or_missed_by_so_much() -> None:
    mark = Mark("g", "w", 2, Ratio(2, 1, 3))
    assert (mark.reached, mark.verdict) == (True, "reached, but not in every turn")
    assert replace(mark, found=Ratio(2, 1, 2)).verdict == "reached"
    assert replace(mark, found=Ratio(3, 3, 3)).verdict == "missed by 50 %"
    assert replace(mark, at_least=True, found=Ratio(1, 1, 1)).verdict == "missed by 50 %"
    assert replace(mark, at_least=True, found=Ratio(25, 25, 25)).reached is True
    unknown = replace(mark, found=None, reason="no compiler")
    assert (unknown.reached, unknown.verdict) == (None, "not measured: no compiler")


def test_a_verdict_says_where_turns_disagree() -> None:
    mark = Mark("g", "w", 2, Ratio(3, 1, 4))
    assert mark.verdict == "missed by 50 %, but not in every turn"
    assert replace(mark, found=Ratio(1, 1, 4)).verdict == "reached, but not in every turn"
    assert replace(mark, found=Ratio(3, 1, 4), at_least=True).verdict == "reached, but not in every turn"
    assert replace(mark, found=Ratio(1, 1, 4), at_least=True).verdict.endswith(", but not in every turn")


def test_all_six_marks_are_judged() -> None:
    found = verdicts(results())
    missed = {what for what, verdict in found.items() if verdict != "reached"}
    assert missed == {
        "3. 1,000 pods on 50 nodes: pods in the largest cluster",
        "6. Start-up: the first cluster of a session, over bare pytest",
    }
    assert {what[0] for what in found} == set("123456")
    assert found["6. Start-up: the first cluster of a session, over bare pytest"] == "missed by 66.7 %"


def test_growing_memory_threads_and_times_are_missed_marks() -> None:
    found = results()
    for turn in found.held:
        turn[-1].update(memory_kb=13000, threads=5)  # type: ignore[attr-defined]
    found.sustained["netwarren"].whole.turns[:] = [[4.0] * 50 + [8.0] * 49] * 2
    missed = [
        what
        for what, verdict in verdicts(found).items()
        if verdict.startswith("missed") and "one process" in what
    ]
    assert [what.partition(": ")[2] for what in missed] == [
        "mean of the second half, of the first",
        "memory at the end, of that after a fifth",
        "threads at the end, of those after a fifth",
    ]


def test_a_lost_packet_is_a_missed_mark() -> None:
    found = results()
    found.scale["netwarren"][-1].arrived = 199
    assert verdicts(found)["3. 1,000 pods on 50 nodes: packets between pods that arrive"] == "missed by 0.5 %"


def test_without_a_compiler_the_marks_that_need_the_floor_are_not_measured() -> None:
    found = results()
    for kept in (found.single, found.paused, found.sustained):
        kept["floor (C)"] = Built(skipped="no C compiler")
    found.scale["floor (C)"] = [Size(10, skipped="no C compiler"), Size(1000, skipped="no C compiler")]
    del found.stepping["step_us"]
    unmeasured = [verdict for verdict in verdicts(found).values() if verdict.startswith("not measured")]
    assert len(unmeasured) == 4 + 1 + 3 + 1
    page = report(found)["benchmarks.md"]
    assert "not measured: no C compiler" in page


def test_a_difference_is_of_the_process_in_the_same_turn() -> None:
    assert difference(Series([[30.0], [130.0]]), Series([[20.0], [120.0]])) == Ratio(10, 10, 10)


def test_the_page_says_what_could_not_be_run_and_how_quiet_it_was() -> None:
    page = report(results(), "## What was tried\n\nA lot.")["benchmarks.md"]
    assert "- Mininet: Mininet needs root" in page
    assert "It was quiet" in page
    assert "took 1.02 times as long as its fastest" in page
    assert page.endswith("## What was tried\n\nA lot.\n")
    assert "--quick" not in page


def test_a_quick_run_says_that_it_means_nothing() -> None:
    page = report(replace(results(), quick=True))["benchmarks.md"]
    assert "its figures mean nothing" in page


def test_every_row_of_every_table_has_as_many_cells_as_its_heading() -> None:
    width = 0
    for line in report(results())["benchmarks.md"].splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_missed_marks_stand_out() -> None:
    table = "\n".join(marks_table(marks(results())))
    assert "**missed by 66.7 %**" in table
    assert "**reached**" not in table


def test_the_page_shows_every_curve_that_is_drawn() -> None:
    texts = report(results())
    drawn = {name for name in texts if name.endswith(".svg")}
    assert drawn == {f"benchmarks-{what}.svg" for what in ("sustained", "memory", "scale", "adding")}
    assert all(f"]({name})" in texts["benchmarks.md"] for name in drawn)


def test_the_data_has_summaries_ratios_and_verdicts() -> None:
    data = json.loads(report(results())["benchmarks.json"])
    assert data["sustained"]["netwarren"]["whole"]["turns"][0]["median"] == 4.8
    (first, *_) = data["marks"]
    assert first["found"] == {"value": 1.2, "least": 1.2, "most": 1.2}
    assert first["verdict"] == "reached"


def test_the_readme_gets_ratios_alone() -> None:
    text = "\n".join(summary(results()))
    assert "| one node and three pods, ready for traffic | 1 | 0.833 | 27.8 |  |" in text
    assert "| 1,000 pods on 50 nodes | 1 | 0.833 |  |  |" in text
    assert "takes 2 % longer with the plugin than without, and one with a first cluster 50 %" in text


def test_the_readmes_figures_are_replaced_between_its_comments() -> None:
    page = "before\n<!-- figures of make bench -->\nold\n<!-- end of the figures -->\nafter\n"
    once = between_marks(page, "new\n")
    assert once == page.replace("old", "new")
    assert between_marks(once, "new\n") == once
    with pytest.raises(ValueError, match=r"README\.md has lost its comments"):
        between_marks("before\nafter\n", "new")


def test_results_of_nothing_make_a_page_all_the_same() -> None:
    empty = Results({"Kernel": "Linux"}, quick=True, began="2026-11-28")
    assert curves(empty) == {}
    assert report(empty)["benchmarks.md"].startswith("# Benchmarks\n")


@pytest.mark.parametrize(("spread", "word"), [(1.0, "quiet"), (1.3, "not quite quiet"), (3.0, "noisy")])
def test_noise_has_a_word(spread: float, word: str) -> None:
    found = results()
    found.noise = {**found.noise, "spread": spread}
    page = report(found)["benchmarks.md"]
    assert f"It was {word}:" in page
    assert ("run it again" in page) == (word == "noisy")
