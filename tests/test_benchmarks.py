"""The benchmarks' arithmetic, and the page that tells their figures."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from benchmarks import page
from benchmarks._figures import (
    Figure,
    Target,
    amount,
    at_least,
    at_most,
    bounds,
    figure,
    in_turns,
    percentile,
)
from benchmarks._record import facts, keep, read

ROUNDS = [(2.0, 1.0), (3.0, 1.0), (4.0, 2.0)]


def figure_of(target: Target | None, rounds: list[tuple[float, float]] = ROUNDS) -> Figure:
    return figure("a block", "trio", "ours", "theirs", rounds, target=target, bound="least")


def test_a_figure_is_the_median_of_the_rounds_ratios() -> None:
    """
    Not the ratio of the medians.
    """
    it = figure_of(None)

    assert (it.ratio.median, it.ratio.low, it.ratio.high) == (2.0, 2.0, 2.5)
    assert (it.value, it.floor_value, it.rounds) == (3.0, 1.0, 3)
    assert it.verdict == ""


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (at_most(3.0), "met"),
        (at_most(2.0), "met, within the spread"),
        (at_most(1.9), "missed"),
        (at_least(2.1), "missed, within the spread"),
        (Target(3.2, of="value"), "met, within the spread"),
        (Target(4.0, of="value"), "met"),
        (Target(1.7, of="difference"), "missed, within the spread"),
        (Target(2.0, of="difference"), "met"),
    ],
)
def test_a_verdict_says_whether_the_rounds_agree(target: Target, verdict: str) -> None:
    """
    A target between the quartiles is not clearly met or missed.
    """
    assert figure_of(target).verdict == verdict


def test_what_never_happens_misses_its_target() -> None:
    """
    And is told so, without arithmetic on what is not a number.
    """
    it = figure_of(Target(1.0, of="value"), [(math.nan, 1.0)])

    assert it.verdict == "missed"
    assert amount(it.value, it.unit) == "never"
    back = Figure.from_json(it.as_json())
    assert math.isnan(back.value)
    assert back.verdict == "missed"


def test_a_floor_of_nothing_has_no_ratio() -> None:
    """
    The difference may still be judged.
    """
    it = figure_of(Target(1.0, of="difference"), [(0.5, 0.0), (0.5, 0.0)])

    assert math.isnan(it.ratio.median)
    assert it.verdict == "met"


def test_candidates_take_turns_in_both_directions() -> None:
    """
    The first round only warms up.
    """
    asked: list[str] = []

    def once(name: str) -> tuple[int, int]:
        asked.append(name)
        return len(asked), -len(asked)

    first, second = in_turns("ab", 2, once)

    assert asked == ["b", "a", "a", "b", "b", "a"]
    assert first == {"a": [3, 6], "b": [4, 5]}
    assert second == {"a": [-3, -6], "b": [-4, -5]}


def test_percentiles_are_values_that_were_measured() -> None:
    """
    The hundredth is the largest, the zeroth the smallest.
    """
    values = [4.0, 1.0, 3.0, 2.0]

    assert [percentile(values, number) for number in (0, 25, 50, 99, 100)] == [1.0, 1.0, 2.0, 4.0, 4.0]


def test_figures_have_units_that_people_read() -> None:
    """
    Whatever their size.
    """
    seconds = [amount(value, "s") for value in (2.0, 3e-3, 4.56e-6, 7e-9)]

    assert seconds == ["2 s", "3 ms", "4.56 µs", "7 ns"]
    assert amount(3072, "B") == "3.00 KiB"
    assert bounds(figure_of(at_most(2.0))) == "≤ 2.00"
    assert bounds(figure_of(Target(1e-3, of="value"))) == "≤ 1 ms"


def test_a_run_replaces_what_it_measured_and_keeps_the_rest(tmp_path: Path) -> None:
    """
    So one benchmark can be repeated.
    """
    path = tmp_path / "new" / "figures.json"
    first, second = figure_of(at_most(3.0)), figure_of(at_least(2.0))
    keep(path, "core", facts("tiny"), [first])
    keep(path, "growth", facts("tiny"), [first])
    keep(path, "core", facts("quick"), [second, first])

    record = read(path)

    assert list(record) == ["core", "growth"]
    assert record["core"]["level"] == "quick"
    assert record["core"]["figures"] == [second, first]
    assert record["growth"]["figures"] == [first]


def test_the_page_on_the_price_says_what_its_figures_say() -> None:
    """
    Run ``python -m benchmarks.page`` after changing either.
    """
    record = read(page.DIRECTORY / page.FIGURES)

    assert page.PAGE.read_text(encoding="utf-8") == page.page(record)


def test_the_page_on_the_price_tells_of_each_target_that_is_missed() -> None:
    """
    With its floor from the same run.
    """
    least = figure("a block", "trio", "least", "theirs", [(1.5, 1.0)] * 2)
    about = facts("full")

    text = page.page({"core": {**about, "figures": [figure_of(at_most(1.8)), least]}})

    assert "**a block**, trio: 2.00 instead of ≤ 1.80. The floor, 'least', has 1.50" in text
    assert "Preliminary" not in text


def test_the_page_on_the_price_tells_what_the_promise_itself_costs() -> None:
    """
    Where a request's target is missed, and the least that can keep the promise was measured.
    """
    working = figure("a block", "trio", page.WORKING, "theirs", [(1.9, 1.0)] * 2)
    least = figure("a block", "trio", "least", "theirs", [(1.5, 1.0)] * 2)

    text = page.page({"core": {**facts("full"), "figures": [figure_of(at_most(1.8)), working, least]}})

    assert (
        "so that there is room left. The working floor, the least that can keep the promise, has 1.90" in text
    )
    assert "and misses it." in text


def test_the_working_floor_can_be_interrupted_once_it_waits(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    """
    Else it would not show what that costs.
    """
    name, options = anyio_backend
    app = import_module("benchmarks._wrappings").build("raw", "working floor")

    async def serve() -> None:
        request: dict[str, Any] = {"type": "http", "path": "/hang"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, request, None, None)
            await anyio.wait_all_tasks_blocked()
            request["cancelation_token"].callbacks["interrupt"]()

    anyio.run(serve, backend=name, backend_options=options)
