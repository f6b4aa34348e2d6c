"""Make the page on the price of it all from the figures: ``python -m benchmarks.page``.

``python -m benchmarks --docs`` measures, and makes the page, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._figures import Figure, amount, bounds, number
from ._record import Record, read

DOCS = Path(__file__).parents[1] / "docs" / "explanation"
PAGE, DIRECTORY, FIGURES = DOCS / "price.md", DOCS / "price", "figures.json"
WORKING = "working floor"
COMMAND = "nox -s benchmarks -- --docs"

HEAD = """# What it costs

<!-- Made by benchmarks/page.py from price/figures.json: change neither by hand. -->

Every figure here is a ratio of two things that were measured in the same run, in rounds that take turns:
the library, and a floor, which is the same thing without it. The table gives the median of the rounds'
ratios, and between which two values half of the rounds lay. Absolute times are of one machine, and say
little about yours.

This measures all of it again, in about three quarters of an hour on two processors, and writes this page, its
plots and [the figures](price/figures.json):

```console
{command}
```

{facts}
"""

QUICK = """
!!! warning "Preliminary"

    These figures are from a quick look (`--quick`): few rounds, and not everything is in them.
"""

TARGETS = """## Targets, and whether they are met

"Within the spread" says that the quartiles lie on both sides of the target: the next run may say otherwise.
"""

MISSED = """
### Where a target is missed

Each is told beside the least that the same run found possible: something that does what the contract demands
of it, and nothing else.
"""

REQUESTS = """
## A request

Requests per second of a whole server under full load, as a share of the bare application's. The
*pass-through* middleware only calls on. The *floor* does what the contract demands of each request: a token
in the scope and in a context variable, a `send` that knows how far the response has got, a `receive`; and
nothing that makes any of it come true. The *working floor* is the least with which it can: the application is
taken its first step by hand, and where that begins is noted, for the scope that would stop it; once it waits,
whoever cancels the token reaches it, and what was stopped sends no more. What is between the two is the price
of the promise; what is between the working floor and *ours* is the library's own. An empty cell: it does
not run there, or was not measured.

Of two processes that run the very same code, one may be seven percent faster than the other, for as long as
both live. So where there is a target, each candidate has four servers, which take turns.

![Requests per second, of bare](price/throughput.svg)
"""

LEAVING = """
## When a client leaves

From the moment when the client closes its connection until its handler has ended, while the server answers
200 other requests in a second. Each handler waits in its library's own way; the floor is one that does
nothing but wait for the server to say that the client has left. Handlers that poll ask ten times a second.
*Never* says that a handler had not ended a second later.

![How long handlers run on](price/disconnect.svg)
"""

CORE = """
## Without a server

![The core beside AnyIO](price/core.svg)

How the cost of one cancel grows with the number of operations that it reaches:

![One cancel, many waiting](price/fan_out.svg)
"""

REASONS = {
    "one cancel, ": "What is ours: each operation's own token learns the cause, and each block is left with a"
    " status and nothing registered.",
    "a block": "The rest is the lifecycle that observers and registries are told of, and what the block can"
    " be asked about: its status, its times, its deadline.",
    "each item": "At each step, a stream in a block looks for a cancelation, and gives others a turn if its"
    " source did not.",
    "memory for each": "What is ours: two frames between the server and the application, a scope that can"
    " stop it, and what is known of the request: an exchange, a reader, its monitors, and its context.",
    "fastapi, a handler that waits": "A good part of it is the garbage collector's, which looks through what"
    " 200 open requests consist of, and finds nothing.",
}
"""What more is to be said of a target that is missed, by the beginning of its subject."""


def page(record: Record) -> str:
    """Return the page."""
    return "\n".join(_lines(record)).rstrip() + "\n"


def write() -> None:
    """Make the page from the figures in the docs."""
    PAGE.write_text(page(read(DIRECTORY / FIGURES)), encoding="utf-8")


def _lines(record: Record) -> Iterator[str]:
    yield HEAD.format(command=COMMAND, facts=_facts(record)).rstrip()
    if any(run["level"] != "full" for run in record.values()):
        yield QUICK.rstrip()
    figures = [it for run in record.values() for it in run["figures"]]
    judged = [it for it in figures if it.target]
    yield f"\n{TARGETS}"
    yield from _table(judged)
    yield from _missed([it for it in judged if not it.is_met], figures)
    yield REQUESTS
    yield from _pivot([it for it in figures if it.subject.endswith("one endpoint: requests")])
    yield "\nLatency under that load, as a multiple of the bare application's:\n"
    yield from _pivot([it for it in figures if "one endpoint: latency" in it.subject])
    yield "\nThe same without a server, in processor time for each request:\n"
    yield from _pivot([it for it in figures if it.subject.endswith("one request in process")])
    yield LEAVING
    yield from _pivot(
        [it for it in figures if it.subject.startswith("from a client's leaving to its handler")]
    )
    yield CORE
    yield from _table([it for it in record.get("core", {"figures": []})["figures"] if not it.target])
    yield "\n## Many of them\n"
    yield from _table(_of(record, "growth", "registry"))
    yield "\n## Open requests and streams\n"
    yield from _table(_of(record, "memory", "streams"))


def _of(record: Record, *names: str) -> list[Figure]:
    return [
        it
        for name in names
        for it in record.get(name, {"figures": []})["figures"]
        if not it.target and it.candidate != it.floor
    ]


def _facts(record: Record) -> str:
    """Return when and with what the figures were made, once for each way in which that was."""
    ways: dict[str, list[str]] = {}
    for name, run in record.items():
        packages = ", ".join(f"{package} {version}" for package, version in run["packages"].items())
        python = run["python"].replace("cpython", "CPython")
        ways.setdefault(f"{run['at']} with {python}, {packages}", []).append(f"`{name}`")
    made = [
        f"{'All' if len(ways) == 1 else ', '.join(names)} measured on {way}." for way, names in ways.items()
    ]
    loads = [run["load"] for run in record.values() if run["load"] is not None]
    if loads:
        processors = next(iter(record.values()))["processors"]
        made.append(
            f"Before each part, the load of the {processors} processors was {min(loads)} to {max(loads)}."
        )
    return "\n".join(made)


def _table(figures: list[Figure]) -> Iterator[str]:
    yield "| what | where | | beside | ratio | half of the rounds | target | |"
    yield "|:--|:--|:--|:--|--:|:-:|--:|:--|"
    subject = ""
    for it in figures:
        said = "" if it.subject == subject else it.subject
        subject = it.subject
        yield f"| {said} | {' | '.join(_cells(it))} |"


def _cells(it: Figure) -> tuple[str, ...]:
    """Return what to say of a figure; what its target is about, if that is not the ratio."""
    verdict = {None: "", True: "✓ ", False: "✗ "}[it.is_met] + it.verdict
    if it.target is None or it.target.of == "ratio" or it.judged is None:
        values = (number(it.ratio.median), _range(number(it.ratio.low), number(it.ratio.high)))
    else:
        more = "+" if it.target.of == "difference" else ""
        low, middle, high = (
            more + amount(value, it.unit) for value in (it.judged.low, it.judged.median, it.judged.high)
        )
        values = (middle.replace("+-", "-"), _range(low, high).replace("+-", "-"))
    return (it.where, f"{it.candidate}", it.floor, *values, bounds(it), verdict)


def _range(low: str, high: str) -> str:
    return f"{low} to {high}"


def _missed(missed: list[Figure], figures: list[Figure]) -> Iterator[str]:
    if not missed:
        return
    yield MISSED
    for it in missed:
        found, wanted = _cells(it)[3], bounds(it)
        yield f"* **{it.subject}**, {it.where}: {found} instead of {wanted}. {_excuse(it, figures)}"


def _excuse(it: Figure, figures: list[Figure]) -> str:
    """Return why a target is missed, as far as the same run can tell."""
    reason = next((text for start, text in REASONS.items() if it.subject.startswith(start)), "")
    best = next(
        (b for b in figures if (b.subject, b.where, b.candidate) == (it.subject, it.where, it.bound)), None
    )
    if best is None or it.target is None:
        return f"No floor was measured for it. {reason}".rstrip()
    value = {
        "ratio": best.ratio.median,
        "value": best.value,
        "difference": best.value - best.floor_value,
    }[it.target.of]
    shown = number(value) if it.target.of == "ratio" else amount(value, it.unit)
    if it.target.of == "difference":
        shown = f"+{shown}"
    room = "so that there is room left" if it.target.is_met_by(value) else "which misses it, too"
    return (
        f"The floor, {best.candidate!r}, has {shown}, {room}. {_can_come_true(it, figures)}{reason}".rstrip()
    )


def _can_come_true(it: Figure, figures: list[Figure]) -> str:
    """Return what a request costs at least if the promise is to be kept, where that was measured."""
    for other in figures:
        if (other.subject, other.where, other.candidate) == (it.subject, it.where, WORKING):
            assert it.target is not None
            verdict = "meets" if it.target.is_met_by(other.ratio.median) else "misses"
            found = number(other.ratio.median)
            return f"The {WORKING}, the least that can keep the promise, has {found} and {verdict} it. "
    return ""


def _pivot(figures: list[Figure]) -> Iterator[str]:
    """Yield a line for each subject and place, and a column for each candidate."""
    names = list(dict.fromkeys(it.candidate for it in figures))
    yield f"| what | where | {' | '.join(names)} |"
    yield f"|:--|:--|{'--:|' * len(names)}"
    rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for it in sorted(figures, key=lambda it: it.subject):
        rows.setdefault((it.subject, it.where), {})[it.candidate] = it
    for (subject, where), row in rows.items():
        cells = (_short(row[name]) if name in row else "" for name in names)
        yield f"| {subject} | {where} | {' | '.join(cells)} |"


def _short(it: Figure) -> str:
    if it.candidate == it.floor or it.subject.startswith("from a client"):
        return amount(it.value, it.unit)
    return number(it.ratio.median)


if __name__ == "__main__":
    write()
