"""The application of a user, with its own middleware: what of all this holds there?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, final

import anyio
from rich.console import Console
from rich.text import Text

from . import _http1
from ._advice import advice_about, advice_for_status
from ._answers import Answer, Ending
from ._catalogue import SCENARIOS
from ._journal import Journal
from ._probe._witness import HEADER
from ._process import CannotStart, Process, ServerEnded, failure_of, running
from ._runner import APP, FAILURES, Result, ServerRun, Verdict, compare, run_all
from ._servers import Server
from ._sockets import Wire
from ._stage import PATIENCE

PROBES = "/__doctor__"  # as in `_probe._user`, which nothing but servers should import
USER_APP = "hother.cancelable._doctor._probe._user:app"
_LOAD = "import sys; from hother.cancelable._doctor._probe._user import load; load(sys.argv[1])"
_PROBED = (
    "close/unasked",
    "close/unread",
    "close/mid-body",
    "close/handler",
    "close/started",
    "close/background",
    "reset/handler",
    "operator/handler",
    "native/handler",
    "lines/close",
    "events/close",
    "session/close",
    "asks/close",
    "body/length-1-late",
    "body/chunked-1-late",
    "body/form",
    "websocket/ticker/lost",
)
_SOON = 1.0  # seconds
_TIME_TO_BEGIN = 0.3
_LONGEST_DEADLINE = 15.0  # seconds; a longer one is not waited for, unless it was asked for


@dataclass(frozen=True, slots=True)
class UserApp:
    """What to look at."""

    place: str  #: ``module:attribute``
    path: str | None = None  #: of a GET that is slow, or streams
    deadline: float | None = None  #: after which it must be answered, in seconds
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, place: str, path: str | None, deadline: float | None, headers: Sequence[str]) -> UserApp:
        """Make it of what the command line gives.

        Raises:
            ValueError: If that cannot be asked for.
        """
        if path is not None and not path.startswith("/"):
            raise ValueError(f"--path must begin with a slash, got {path!r}")
        if deadline is not None and not 0 < deadline < inf:
            raise ValueError(f"--deadline must be a number of seconds above 0, got {deadline:g}")
        for header in headers:
            if not header.partition(":")[0].strip() or ":" not in header or not header.isascii():
                raise ValueError(f"--header must be 'NAME: VALUE', got {header!r}")
        pairs = (header.partition(":") for header in headers)
        return cls(place, path, deadline, {name.strip(): value.strip() for name, _, value in pairs})


@final
class Findings:
    """What was found on one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.results: list[Result] = []
        self.lines: list[tuple[bool, str]] = []  #: about the path: whether it is good, and a sentence
        self.advice: list[str] = []

    @property
    def has_failed(self) -> bool:
        """Whether something is wrong."""
        return any(result.verdict is Verdict.FAIL for result in self.results) or not all(
            good for good, _ in self.lines
        )


async def examine_user_app(user: UserApp, servers: Sequence[Server], console: Console) -> int:
    """Look at an application on each server, and say what to do. Returns the exit code."""
    found: list[Findings] = []
    if (failure := await failure_of(_LOAD, user.place, directory=_here())) is not None:
        console.print(Text(f"--app {user.place} cannot be loaded:\n{failure}", "red"), soft_wrap=True)
        return 1

    async def work(server: Server, journal: Journal) -> None:
        findings = Findings(server)
        found.append(findings)
        try:
            await _examine(user, findings, journal)
        except (CannotStart, ServerEnded, *FAILURES) as error:
            findings.lines.append((False, str(error)))
        _print(console, findings)

    await run_all(servers, work, at_once=2)
    return 1 if any(findings.has_failed for findings in found) else 0


async def _examine(user: UserApp, findings: Findings, journal: Journal) -> None:
    environment = {**journal.environment, "HOTHER_DOCTOR_APP": user.place}
    async with running(findings.server, USER_APP, environment, directory=_here()) as process:
        stack: dict[str, Any] = await _http1.ask(process.port, "layers")
        findings.advice += advice_about(stack["layers"], has_probes=stack["probes"])
        if stack["probes"]:
            await _probe(user, findings, journal, process)
        if user.path is not None:
            findings.lines += [await _leave(user, journal, process)]
            deadline = _deadline_of(user, stack["layers"])
            if deadline is not None and (user.deadline is not None or deadline <= _LONGEST_DEADLINE):
                findings.lines += [await _wait(user, journal, process, deadline)]
            elif deadline is not None:
                findings.advice.append(
                    f"The deadline of {deadline:g} s was not waited for: --deadline {deadline:g} does that."
                )
        elif not stack["probes"]:
            findings.lines += [(False, "give the --path of a GET that is slow, or streams")]
    await _prove(findings, journal)


def _here() -> str:
    return os.getcwd()  # noqa: PTH109 (it is for other processes)


def _deadline_of(user: UserApp, layers: Sequence[Mapping[str, Any]]) -> float | None:
    found = [layer["timeout"] for layer in layers if layer["is_ours"] and layer["timeout"]]
    return user.deadline or min(found, default=None)


async def _probe(user: UserApp, findings: Findings, journal: Journal, process: Process) -> None:
    answer = await _ask_for(PROBES + "/ping", user, process.port)
    if (advice := advice_for_status(answer.status)) is not None:
        findings.lines.append((False, "our handlers in it cannot be reached"))
        findings.advice.append(advice)
        return
    run = ServerRun(findings.server, process, journal, prefix=PROBES, headers=user.headers)
    await run.warm_up(())
    for scenario in SCENARIOS:
        if scenario.name in _PROBED and scenario.needs <= findings.server.abilities:
            result = await run.judge(replace(scenario, has_control=False))
            findings.results.append(replace(result, scenario=scenario))


async def _ask_for(path: str, user: UserApp, port: int) -> Answer:
    client = _http1.Client(await Wire.open(port), user.headers)
    try:
        await client.request("GET", path)
        return await client.read(PATIENCE)
    finally:
        client.close()


async def _prove(findings: Findings, journal: Journal) -> None:
    """See whether an application without any middleware does better."""
    failed = [result for result in findings.results if result.problems and result.scenario.has_control]
    if not failed:
        return
    async with running(findings.server, APP, journal.environment) as process:
        run = ServerRun(findings.server, process, journal)
        await run.warm_up(())
        for result in failed:
            compare(result, await run.control(result.scenario), findings.server)


async def _leave(user: UserApp, journal: Journal, process: Process) -> tuple[bool, str]:
    """Ask for the path, and leave."""
    assert user.path is not None
    with journal.run() as run:
        client = _http1.Client(await Wire.open(process.port))
        try:
            await client.request("GET", user.path, {**user.headers, HEADER.decode(): run.name})
            answer = await client.read(_TIME_TO_BEGIN)
        except FAILURES as error:
            return False, f"GET {user.path}: the client failed: {error!r}"
        finally:
            run.mark_cause()
            client.close()
        if answer.ending is not Ending.WAITING:
            what = "a path that is slow" if (answer.status or 500) < 400 else "one that works, and is slow"
            return (
                False,
                f"GET {user.path} was answered at once, with {answer.status or 'nothing'}: choose {what}",
            )
        left = await run.wait("left", _SOON)
    where = "before it was answered" if answer.status is None else "in the middle of its stream"
    if left is None:
        return False, f"GET {user.path}: it ran on for more than {_SOON:g} s after its client left, {where}"
    after = left["at"] - (run.cause_at or left["at"])
    return True, f"GET {user.path}: it ended {after * 1000:.0f} ms after its client left, {where}"


async def _wait(user: UserApp, journal: Journal, process: Process, deadline: float) -> tuple[bool, str]:
    """Ask for the path, and wait for the deadline."""
    assert user.path is not None
    with journal.run() as run:
        client = _http1.Client(await Wire.open(process.port))
        began_at = anyio.current_time()
        try:
            await client.request("GET", user.path, {**user.headers, HEADER.decode(): run.name})
            answer = await client.read(deadline + _SOON)
        finally:
            client.close()
        took = anyio.current_time() - began_at
    what = f"GET {user.path}: its answer was {answer.ending} ({answer.status}) after {took:.1f} s"
    return answer.ending is not Ending.WAITING, f"{what}, the deadline is {deadline:g} s"


def _print(console: Console, findings: Findings) -> None:
    console.print(Text(f"{findings.server.name} {findings.server.version}", "bold"))
    for result in findings.results:
        style = {Verdict.FAIL: "red", Verdict.LIMITATION: "yellow"}.get(result.verdict, "green")
        line = f"  {result.verdict!s:<10} {result.scenario.group}: {result.scenario.title}"
        console.print(Text(line, style))
        for _, sentence in result.problems:
            console.print(Text(f"             {sentence}", style))
    for good, sentence in findings.lines:
        console.print(Text(f"  {'pass' if good else 'FAIL':<10} {sentence}", "green" if good else "red"))
    for sentence in dict.fromkeys(findings.advice):
        console.print(Text(f"  ! {sentence}", "yellow"))
    console.print()
