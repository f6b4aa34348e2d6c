"""All that is done with one server."""

from __future__ import annotations

from collections.abc import Sequence

from ._catalogue import WARM_UP
from ._journal import Journal
from ._process import CannotStart
from ._runner import Report, Result, Verdict, run_server
from ._scenario import Scenario
from ._servers import Server
from ._shutdown import judge_shutdown


async def examine(server: Server, scenarios: Sequence[Scenario], journal: Journal, report: Report) -> None:
    """Play all scenarios on one server, and report each result as it comes."""
    await run_server(server, scenarios, journal, report, WARM_UP)
    ending = [scenario for scenario in scenarios if scenario.needs_shutdown]
    if ending:
        try:
            results = await judge_shutdown(server, ending, journal)
        except CannotStart as error:
            results = [Result(server.name, it, Verdict.FAIL, [("server", str(error))]) for it in ending]
        for result in results:
            report(result)
