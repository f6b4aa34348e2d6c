"""The doctor's scenarios, on every server that is installed.

They are played in the background, as the command does it: on several servers at once. Each test waits
for its own result.
"""

from __future__ import annotations

from threading import Condition, Thread
from typing import Any

import anyio
import pytest

pytest.importorskip("rich")
pytest.importorskip("h2")
pytest.importorskip("wsproto")

from hother.cancelable._doctor._catalogue import SCENARIOS
from hother.cancelable._doctor._command import AT_ONCE
from hother.cancelable._doctor._journal import Journal
from hother.cancelable._doctor._runner import Result, Verdict, run_all
from hother.cancelable._doctor._servers import SERVERS, Server
from hother.cancelable._doctor._work import examine
from tests.servers.known_faults import KNOWN_FAULTS

LONGEST = 50.0  #: seconds, until the next result

#: In the order in which they are started, so that no test waits for servers whose turn has not come.
ORDER = sorted(SERVERS.values(), key=lambda server: -server.pace)


class Examination:
    """What was found up to now."""

    def __init__(self, names: set[str], scenarios: set[str]) -> None:
        self._servers = [server for server in ORDER if server.name in names]
        self._scenarios = [scenario for scenario in SCENARIOS if scenario.name in scenarios]
        self._results: dict[tuple[str, str], Result] = {}
        self._changed = Condition()
        self._thread = Thread(target=anyio.run, args=[self._examine], daemon=True)

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()

    def wait(self, server: str, scenario: str) -> Result:
        """Wait for a result."""
        with self._changed:
            found = self._changed.wait_for(lambda: (server, scenario) in self._results, LONGEST)
            assert found, "the doctor has stopped" if not self._thread.is_alive() else "it takes too long"
            return self._results[server, scenario]

    async def _examine(self) -> None:
        async def work(server: Server, journal: Journal) -> None:
            await examine(server, self._scenarios, journal, self._take)

        await run_all(self._servers, work, at_once=AT_ONCE)

    def _take(self, result: Result) -> None:
        with self._changed:
            self._results[result.server, result.scenario.name] = result
            self._changed.notify_all()


@pytest.fixture(scope="session")
def examination(request: pytest.FixtureRequest) -> Examination:
    """
    An examination of what the selected tests ask for.
    """
    calls: list[Any] = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [call.params for call in calls if call is not None and "doctored" in call.params]
    names = {params["doctored"] for params in chosen}
    examination = Examination(names, {params["scenario"] for params in chosen})
    examination.start()
    return examination


def _installed() -> list[object]:
    return [
        pytest.param(
            server.name,
            marks=pytest.mark.skipif(bool(server.missing), reason=f"{server.missing} not installed"),
        )
        for server in ORDER
    ]


@pytest.mark.parametrize("scenario", [scenario.name for scenario in SCENARIOS])
@pytest.mark.parametrize("doctored", _installed())
def test_a_request_ends_as_it_should(examination: Examination, doctored: str, scenario: str) -> None:
    """
    What a server cannot do is proven in the same run, and known.
    """
    result = examination.wait(doctored, scenario)

    if result.verdict is Verdict.ABSENT:
        pytest.skip("the server has no such thing")
    if (doctored, scenario) in KNOWN_FAULTS:
        assert result.verdict is Verdict.FAIL, "a known fault is mended: take it out of the list"
        pytest.xfail("a known fault")
    assert result.verdict is not Verdict.FAIL, f"{result.problems}\n{result.seen}\n{result.control}"
    if result.verdict is Verdict.LIMITATION:
        assert result.quirk is not None, f"a limitation that is new: {result.problems}\n{result.control}"
