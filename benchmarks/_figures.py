"""Figures: two things measured in rounds that take turns, and one told as a ratio of the other.

A machine is fast one moment and slow the next. So nothing is reported in seconds alone: in each round
both sides are measured, one soon after the other, and a figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the rounds lay: half of them between *low* and *high*."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be."""

    limit: float
    at_least: bool = False  #: rather than at most
    of: Literal["ratio", "value", "difference"] = "ratio"  #: what is compared with the limit

    def is_met_by(self, value: float) -> bool:
        """Return whether a value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def at_most(limit: float) -> Target:
    """Return the target of a ratio."""
    return Target(limit)


def at_least(limit: float) -> Target:
    """Return the target of a ratio."""
    return Target(limit, at_least=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a report."""

    subject: str  #: what was done
    where: str  #: the event loop or the server
    candidate: str  #: who did it
    floor: str  #: whose figure this one is told as a ratio of
    unit: Literal["s", "/s", "B", "s/s"]
    value: float  #: the median of the rounds; not a number if the thing never happened
    floor_value: float  #: the floor's median
    ratio: Spread
    rounds: int
    target: Target | None = None
    judged: Spread | None = None  #: what the target is about
    bound: str = ""  #: the candidate that shows what the target could be at best, if there is one
    percentiles: tuple[float, ...] = ()  #: from 0 to 100, where the distribution is what counts

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; ``None`` if there is none."""
        if self.target is None or self.judged is None:
            return None
        return self.target.is_met_by(self.judged.median)

    @property
    def is_clear(self) -> bool:
        """Whether half of the rounds and more say the same about the target."""
        if self.target is None or self.judged is None:
            return True
        return self.target.is_met_by(self.judged.low) == self.target.is_met_by(self.judged.high)

    @property
    def verdict(self) -> str:
        """What to say about the target."""
        word = {None: "", True: "met", False: "missed"}[self.is_met]
        return word if self.is_clear else f"{word}, within the spread"

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with four digits of each number: there are no more in it."""
        return {name: value for name, value in _rounded(asdict(self)).items() if value not in (None, "", [])}

    @classmethod
    def from_json(cls, it: Mapping[str, Any]) -> Figure:
        """Make a figure of what `as_json` returned."""
        fields = dict(it)
        fields["value"] = fields.get("value", math.nan)
        fields["ratio"] = Spread(**_numbers(fields["ratio"]))
        for name, kind in (("target", Target), ("judged", Spread)):
            if name in fields:
                fields[name] = kind(**_numbers(fields[name]))
        fields["percentiles"] = tuple(fields.get("percentiles", ()))
        return cls(**fields)


def figure(
    subject: str,
    where: str,
    candidate: str,
    floor: str,
    rounds: Iterable[tuple[float, float]],
    *,
    unit: Literal["s", "/s", "B", "s/s"] = "s",
    target: Target | None = None,
    bound: str = "",
    percentiles: Sequence[float] = (),
) -> Figure:
    """Make a figure of *rounds*: what the candidate took, and the floor, each time."""
    pairs = list(rounds)
    judged = {
        "ratio": [value / floor if floor else math.nan for value, floor in pairs],
        "value": [value for value, _ in pairs],
        "difference": [value - floor for value, floor in pairs],
    }
    return Figure(
        *(subject, where, candidate, floor, unit),
        value=median(judged["value"]),
        floor_value=median(floor for _, floor in pairs),
        ratio=spread(judged["ratio"]),
        rounds=len(pairs),
        target=target,
        judged=None if target is None else spread(judged[target.of]),
        bound=bound,
        percentiles=tuple(percentiles),
    )


def figures(
    subject: str,
    where: str,
    values: Mapping[str, Sequence[float]],
    reference: str,
    *,
    targets: Mapping[str, Target] | None = None,
    bound: str = "",
    unit: Literal["s", "/s", "B", "s/s"] = "s",
) -> list[Figure]:
    """Make a figure of each candidate beside the reference, from their values in the same rounds."""
    return [
        figure(
            *(subject, where, name, reference),
            zip(values[name], values[reference], strict=True),
            unit=unit,
            target=(targets or {}).get(name),
            bound=bound if bound in values and name in (targets or {}) else "",
        )
        for name in values
    ]


def in_turns(
    names: Iterable[str], rounds: int, once: Callable[[str], Sequence[float]], *, warm: bool = True
) -> list[dict[str, list[float]]]:
    """Measure each candidate once in each round, after a round that only warms up.

    Each second round goes the other way around, so that a machine that gets slower is fair.

    Args:
        names: What to measure.
        rounds: How often.
        once: Measures a candidate, and returns a value for each measure.
        warm: Whether there is a first round that does not count.

    Returns:
        For each measure, the values of each candidate, by rounds.
    """
    order = list(names)
    measures: list[dict[str, list[float]]] = []
    for number in range(0 if warm else 1, rounds + 1):
        for name in order if number % 2 else reversed(order):
            results = once(name)
            measures = measures or [{name: [] for name in order} for _ in results]
            for values, result in zip(measures, results, strict=True):
                if number:
                    values[name].append(result)
    return measures


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def percentile(values: Sequence[float], number: int) -> float:
    """Return the value that so many percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * number / 100) - 1)]


def amount(value: float, unit: str) -> str:
    """Write a number with a unit that suits it."""
    if math.isnan(value):
        return "never"
    if unit == "B":
        return f"{value / 1024:,.2f} KiB"
    if unit == "/s":
        return f"{value:,.0f} /s"
    if unit == "s/s":
        return f"{value * 1e3:.2f} ms/s"
    for name, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(value) * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e9:.0f} ns"


def bounds(it: Figure) -> str:
    """Write a target."""
    if it.target is None:
        return ""
    sign = "≥" if it.target.at_least else "≤"
    if it.target.of == "ratio":
        return f"{sign} {it.target.limit:.2f}"
    more = "+" if it.target.of == "difference" else ""
    return f"{sign} {more}{amount(it.target.limit, it.unit)}"


def number(value: float) -> str:
    """Write a ratio."""
    if math.isnan(value):
        return "·"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    return value


def _numbers(it: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in it.items()}
