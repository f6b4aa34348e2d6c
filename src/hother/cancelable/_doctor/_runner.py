"""The runner: plays scenarios on servers, and judges them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from tempfile import NamedTemporaryFile
from typing import Any, TypeAlias, final

import anyio
import h2.exceptions
import h11
import wsproto.utilities

from . import _http1
from ._journal import Journal
from ._observation import Fate, Observation
from ._process import CannotStart, Process, ServerEnded, running, tracebacks_in
from ._scenario import Scenario
from ._servers import Quirk, Server
from ._sockets import Wire
from ._stage import Missed, Stage

APP = "hother.cancelable._doctor._probe._app:app"
FAILURES = (
    OSError,
    EOFError,
    h2.exceptions.ProtocolError,
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
)
"""What clients raise when a server fails them."""

_BIG = 100_000_000  # of a file, in bytes; it takes no space
_LONGEST = 20.0  # a scenario, in seconds
_SETTLING = (
    1.5  # how long something may still be there after its request, in seconds: daphne looks each second
)


class Verdict(str, Enum):
    """What is to be said of a scenario on a server."""

    PASS = "pass"
    LIMITATION = "limitation"  #: the server cannot, with or without us
    FAIL = "FAIL"
    ABSENT = "absent"  #: the server has no such thing

    __str__ = str.__str__


@dataclass(slots=True)
class Result:
    """One cell of the table."""

    server: str
    scenario: Scenario
    verdict: Verdict
    problems: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    seen: Observation | None = None
    control: Observation | None = None  #: what was seen without the middleware
    quirk: Quirk | None = None
    attempts: int = 1
    seconds: float = 0.0  #: how long it took to find out
    server_ended: list[str] = field(default_factory=list[str])  #: why, each time that it did, before this


_JOURNAL = 0.3  # how long the journal may be behind an answer, in seconds
_LOGGING = 4.0  # how long a server may take to log something, in seconds
_ENDING = 1.0  # how long a server that does not answer may take to have ended, in seconds
_STARTS = 3  # of a server, for one scenario

Report: TypeAlias = Callable[[Result], None]


@final
class ServerRun:
    """Plays scenarios on one server.

    Args:
        server: Which one.
        process: The process that it runs in.
        journal: Where that tells what happens.
        is_alone: Whether one is played after the other, so that what is logged or left is of the last one;
            otherwise nobody looks at that.
        prefix: What comes before a handler's name in a path, if not a stack of ours.
        headers: What every request has to bring.
    """

    def __init__(
        self,
        server: Server,
        process: Process,
        journal: Journal,
        *,
        is_alone: bool = True,
        prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self._process = process
        self._journal = journal
        self._is_alone = is_alone
        self._prefix = prefix
        self._headers = headers or {}
        self._state: dict[str, Any] = {}

    async def warm_up(self, targets: Sequence[str]) -> None:
        """Have everything made that is made once."""
        for target in targets:
            with self._journal.run() as run:
                client = _http1.Client(await Wire.open(self._process.port), self._headers)
                try:
                    await client.request("GET", target.format(run=run.name))
                    await client.read(10)
                finally:
                    client.close()
        await self._ask("freeze")
        self._state = await self._ask("state")

    async def control(self, scenario: Scenario) -> Observation:
        """Play a scenario without the middleware."""
        return await self._play(scenario, "bare")

    async def judge(self, scenario: Scenario) -> Result:
        """Play a scenario; and the control, if it does not go as it should.

        Raises:
            ServerEnded: If the server does.
        """
        began_at = time.monotonic()
        result = await self._judge_twice(scenario)
        result.seconds = time.monotonic() - began_at
        return result

    async def _judge_twice(self, scenario: Scenario) -> Result:
        result = await self._judge_once(scenario)
        if ours(scenario, result.problems, result.control) == {"ended"}:
            result = await self._judge_once(scenario)  # the machine may have been busy
            result.attempts = 2
        return result

    async def _judge_once(self, scenario: Scenario) -> Result:
        seen = await self._play(scenario, "")
        problems = list(scenario.expected.problems(seen))
        result = Result(self.server.name, scenario, Verdict.PASS, problems, seen)
        if problems:
            result.verdict = Verdict.FAIL
            if scenario.has_control:
                control = await self._play(scenario, "bare", logs="log" in dict(problems))
                compare(result, control, self.server)
        return result

    async def _play(self, scenario: Scenario, side: str, *, logs: bool = False) -> Observation:
        with self._journal.run() as run:
            stage = Stage(self._process, self._journal, run, side, prefix=self._prefix, headers=self._headers)
            stage.expects_request_only = scenario.expected.fate is Fate.ANY
            start = self._process.log_size
            try:
                with noting_failures(stage), anyio.fail_after(_LONGEST):
                    await scenario.play(stage)
            finally:
                stage.close()
            if await stage.run.wait("called", _JOURNAL) is not None:
                await stage.run.wait("left", _JOURNAL)  # scenarios have waited for it themselves
            if self._is_alone:
                await self._settle(stage, side)
                stage.seen.tracebacks = await self._tracebacks_since(start, wait=logs)
            seen = stage.observe()
            await self._end(stage)
            if self._process.has_ended:
                raise ServerEnded(self._process.log(start))
            return seen

    async def _tracebacks_since(self, start: int, *, wait: bool) -> list[str]:
        with anyio.move_on_after(_LOGGING):
            while wait and not tracebacks_in(self._process.log(start)):  # noqa: ASYNC110 (it is a file)
                await anyio.sleep(0.05)
        return tracebacks_in(self._process.log(start))

    async def _settle(self, stage: Stage, side: str) -> None:
        """Wait until nothing of the run is left; note what is."""
        try:
            before, self._state = self._state, await self._ask("state")
            with anyio.move_on_after(_SETTLING):
                while more_than(before, self._state, side):
                    await anyio.sleep(0.05)
                    self._state = await self._ask("state")
            stage.seen.behind = more_than(before, self._state, side)
        except (OSError, EOFError) as error:
            stage.note("script", f"the server does not answer: {error!r}")
            await self._process.wait(_ENDING)

    async def _end(self, stage: Stage) -> None:
        """End a handler that runs on, so that it does not disturb what follows."""
        if stage.run.find("called") is not None and stage.run.find("left") is None:
            with suppress(OSError, EOFError):
                await stage.order("cancel")
            await stage.run.wait("left", _JOURNAL)

    async def _ask(self, order: str) -> Any:
        return await _http1.ask(self._process.port, order)


@contextmanager
def noting_failures(stage: Stage) -> Generator[None, None, None]:
    """Take note of it if a script cannot go on, and end it."""
    try:
        yield
    except TimeoutError:
        stage.note("script", f"it took longer than {_LONGEST:g} s")
    except Missed as event:
        stage.note("began", f"{event} never happened")
    except FAILURES as error:
        stage.note("script", f"the client failed: {error!r}")


def compare(result: Result, control: Observation, server: Server) -> None:
    """Compare a result that is not as it should be with the control, and judge again."""
    result.control = control
    if is_limitation(result.scenario, result.problems, control):
        result.verdict = Verdict.LIMITATION
        result.quirk = server.quirk_for(result.scenario.name)


def is_limitation(scenario: Scenario, problems: Sequence[tuple[str, str]], control: Observation) -> bool:
    """Whether the application without the middleware fails in all that the one with it fails in."""
    return not ours(scenario, problems, control)


def ours(scenario: Scenario, problems: Sequence[tuple[str, str]], control: Observation | None) -> set[str]:
    """Return the kinds of problems that the application without the middleware does not have."""
    theirs = set[str]()
    if control is not None:
        theirs |= {_SAME.get(kind, kind) for kind, _ in scenario.expected.problems(control)}
    if "ended" in theirs:
        theirs |= {"behind", "left"}
    if "left" in theirs:
        theirs.add("log")  # by the server, sooner or later
    return {_SAME.get(kind, kind) for kind, _ in problems} - theirs


_SAME = {"late": "ended"}  # it ended as we closed the connection, after we had given up


def more_than(before: Mapping[str, Any], after: Mapping[str, Any], side: str = "") -> dict[str, Any]:
    """Return what there is *after* and was not *before*."""
    if side:
        number = after["bare"] - before["bare"]
        return {"Call": number} if number > 0 else {}
    found: dict[str, Any] = {}
    for name, number in after["objects"].items():
        if number > before["objects"].get(name, 0):
            found[name] = number - before["objects"].get(name, 0)
    tasks = list(after["tasks"])
    for name in before["tasks"]:
        if name in tasks:
            tasks.remove(name)
    if tasks:
        found["tasks"] = tasks
    return found


async def run_server(
    server: Server,
    scenarios: Sequence[Scenario],
    journal: Journal,
    report: Report,
    targets: Sequence[str],
) -> None:
    """Play all scenarios on one server, in a process of its own: in another one, if that ends by itself."""
    for scenario in scenarios:
        if not scenario.needs <= server.abilities:
            report(Result(server.name, scenario, Verdict.ABSENT))
    left = deque(it for it in scenarios if it.needs <= server.abilities and not it.needs_shutdown)
    ends: list[str] = []
    try:
        while left:
            async with running(server, APP, journal.environment) as process:
                run = ServerRun(server, process, journal)
                await run.warm_up(targets)
                await _judge_until_it_ends(run, left, ends, report)
    except (CannotStart, OSError, EOFError) as error:
        problems = [("server", why) for why in (*ends, str(error))]
        for scenario in left:
            report(Result(server.name, scenario, Verdict.FAIL, problems))


async def _judge_until_it_ends(
    run: ServerRun, left: deque[Scenario], ends: list[str], report: Report
) -> None:
    """Judge what is *left*. Returns before all of it is judged if the server ends by itself.

    Args:
        run: What plays.
        left: What is to be judged; what was is taken out.
        ends: Why the server ended, each time that it did in the first scenario that is left.
        report: Is told each result.
    """
    try:
        while left:
            result = await run.judge(left[0])
            result.server_ended = ends.copy()
            _tell(result, left, ends, report)
    except ServerEnded as error:
        ends.append(str(error))
        if error.may_be_ours or len(ends) == _STARTS:
            problems = [("server", why) for why in ends]
            _tell(Result(run.server.name, left[0], Verdict.FAIL, problems), left, ends, report)


def _tell(result: Result, left: deque[Scenario], ends: list[str], report: Report) -> None:
    report(result)
    left.popleft()
    ends.clear()


async def run_all(
    servers: Sequence[Server],
    work: Callable[[Server, Journal], Awaitable[None]],
    *,
    at_once: int,
) -> None:
    """Do *work* for each server, for some of them at once."""
    limiter = anyio.CapacityLimiter(at_once)
    journal = Journal()

    async def work_on(server: Server) -> None:
        async with limiter:
            await work(server, journal)

    with NamedTemporaryFile() as file:
        file.truncate(_BIG)
        journal.file = file.name
        async with anyio.create_task_group() as tasks:
            await tasks.start(journal.listen)
            async with anyio.create_task_group() as works:
                for server in servers:
                    works.start_soon(work_on, server)
            tasks.cancel_scope.cancel()
