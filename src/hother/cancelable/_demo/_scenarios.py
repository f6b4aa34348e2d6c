"""The scenarios, and whether they kept what is promised."""

from __future__ import annotations

from collections.abc import Iterator

from ._clients import hang_up, hang_up_in_mid_upload, hang_up_on_websocket, order_and_leave, upload_all
from ._runs import Pair, Run, Scenario

BOUND = 0.25
"""How soon after its client has left a handler must have stopped, in seconds."""

SCENARIOS = (
    Scenario("report", "GET /report", "async def", "report", hang_up("/report"), goes_on=1.5),
    Scenario("export", "GET /export", "def, in a thread", "export", hang_up("/export"), goes_on=1.5),
    Scenario("prompt", "GET /chat", "before 1st token", "prompt", hang_up("/chat?prompt=30"), goes_on=1.5),
    Scenario("tokens", "GET /chat", "in mid-stream*", "tokens", hang_up("/chat")),
    Scenario("upload", "PUT /upload", "in mid-body", "upload", hang_up_in_mid_upload, goes_on=0.3),
    Scenario("ticker", "WS  /ticker", "only sends", "ticker", hang_up_on_websocket, goes_on=0.3),
    Scenario("body", "PUT /upload", "sent whole", "upload", upload_all, finishes=True, success="intact"),
    Scenario("order", "POST /order", "background task", "order", order_and_leave, finishes=True),
)
"""What is played, on each backend, with the middleware and without it.

Where ``goes_on`` is 0 nothing is promised without the middleware: Starlette itself ends a stream whose
client has left, once it streams.
"""


def problems(pair: Pair) -> Iterator[str]:
    """Yield what did not go as promised, one sentence each."""
    for run in (pair.guarded, pair.plain):
        where = f"{run.scenario.name} on {run.backend}, {'with' if run.guarded else 'without'} the middleware"
        problem = run.failure or _problem(run)
        if problem is not None:
            yield f"{where}: {problem}"


def _problem(run: Run) -> str | None:
    if not run.has_begun.is_set():
        return "its handler never began"
    if not run.has_ended.is_set():
        return "its handler had not ended when the time was up"
    if run.scenario.finishes:
        return None if run.is_finished else f"stopped after {run.done} of {run.total} units ({run.how})"
    overrun = run.overrun
    if overrun is None or overrun < 0:
        return f"its handler ended before its client left ({run.how})"
    return _overrun_problem(run, overrun)


def _overrun_problem(run: Run, overrun: float) -> str | None:
    if run.guarded and overrun > BOUND:
        return f"its handler went on for {overrun * 1000:.0f} ms, {BOUND * 1000:.0f} ms are allowed"
    if run.guarded and run.is_finished:
        return "its handler was not stopped"
    if not run.guarded and overrun < run.scenario.goes_on:
        return f"its handler stopped after {overrun * 1000:.0f} ms, so there is nothing to compare with"
    return None
