"""SIGTERM: one server process, a request at every moment, and what becomes of them all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import anyio

from ._answers import Ending
from ._journal import Journal
from ._moments import MOMENTS, Moment
from ._observation import LIMIT, Expectation, Fate, Observation
from ._process import Process, running, tracebacks_in
from ._runner import Result, Verdict, compare, noting_failures
from ._scenario import Scenario
from ._servers import GRACE, Server
from ._stage import Stage

APPS = {
    "": "hother.cancelable._doctor._probe._app:app",
    "bare": "hother.cancelable._doctor._probe._app:bare_app",
}
Play: TypeAlias = Callable[[Moment, Stage, "dict[Moment, Any]"], Coroutine[Any, Any, None]]

HANDLERS_GRACE = 0.3  # as in `_probe._stacks`, which nothing but servers should import
"""How long the middleware lets handlers go on, in seconds."""

_LONGEST = GRACE + 3.0


def shutdowns() -> Iterator[Scenario]:
    """Yield a scenario for each moment."""
    for moment in MOMENTS:
        yield Scenario(
            "SIGTERM",
            f"sigterm/{moment.name}",
            moment.title,
            _nothing,
            _expected_at(moment),
            needs_shutdown=True,
        )


async def judge_shutdown(server: Server, scenarios: list[Scenario], journal: Journal) -> list[Result]:
    """Stop a server of its own; and one without the middleware, if not all goes as it should."""
    seen = await _play(server, journal, "")
    results = [_judge(server, scenario, seen[scenario.name]) for scenario in scenarios]
    failed = [result for result in results if result.problems]
    control = await _play(server, journal, "bare") if failed else {}
    for result in failed:
        compare(result, control[result.scenario.name], server)
    return results


def _judge(server: Server, scenario: Scenario, seen: Observation) -> Result:
    problems = list(scenario.expected.problems(seen))
    return Result(server.name, scenario, Verdict.FAIL if problems else Verdict.PASS, problems, seen)


def _expected_at(moment: Moment) -> Expectation:
    if moment.is_complete:
        return Expectation(Fate.FINISHED, 200, frozenset({Ending.COMPLETE}))
    return Expectation(
        Fate.SHUTDOWN,
        200 if moment.has_started else 503,
        frozenset({Ending.TRUNCATED if moment.has_started else Ending.COMPLETE}),
        within=HANDLERS_GRACE + LIMIT,
    )


async def _nothing(stage: Stage) -> None:
    """All moments are played at once."""


async def _play(server: Server, journal: Journal, side: str) -> dict[str, Observation]:
    async with running(server, APPS[side], journal.environment) as process:
        with ExitStack() as stack:
            stages = {
                moment: Stage(process, journal, stack.enter_context(journal.run()), side)
                for moment in MOMENTS
            }
            for stage in stages.values():
                stack.callback(stage.close)
            clients: dict[Moment, Any] = {}
            await _for_each(stages, _bring_about, clients)
            for stage in stages.values():
                stage.run.mark_cause()
            process.terminate()
            await _for_each(stages, _read, clients)
            has_ended = await process.wait(_LONGEST)
            return {
                f"sigterm/{moment.name}": _seen(stage, process, has_ended) for moment, stage in stages.items()
            }


async def _for_each(stages: dict[Moment, Stage], function: Play, clients: dict[Moment, Any]) -> None:
    async with anyio.create_task_group() as tasks:
        for moment, stage in stages.items():
            tasks.start_soon(function, moment, stage, clients)


async def _bring_about(moment: Moment, stage: Stage, clients: dict[Moment, Any]) -> None:
    client = clients[moment] = await stage.http1(buffer=moment.buffer)
    with noting_failures(stage):
        await moment.bring_about(stage, client, stage.target(moment.handler, query=_query(moment)))


def _query(moment: Moment) -> dict[str, float]:
    return {"for": 1.0} if moment.is_complete else {}


async def _read(moment: Moment, stage: Stage, clients: dict[Moment, Any]) -> None:
    if not moment.is_complete:
        stage.answer = await clients[moment].read(_LONGEST)
    await stage.run.wait("left", 1.0)


def _seen(stage: Stage, process: Process, has_ended: bool) -> Observation:
    seen = stage.observe()
    seen.tracebacks = tracebacks_in(process.log())
    if not has_ended:
        stage.note("process", f"the server had not ended after {_LONGEST:g} s")
    return seen
