"""The doctor with a real server, as far as that goes in seconds; the servers' tests have all of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import anyio
import pytest

pytest.importorskip("rich")
pytest.importorskip("h2")
pytest.importorskip("wsproto")
pytest.importorskip("hypercorn")

from hother.cancelable.__main__ import main
from hother.cancelable._doctor import _runner, _user_app
from hother.cancelable._doctor._catalogue import SCENARIOS, WARM_UP
from hother.cancelable._doctor._journal import Journal
from hother.cancelable._doctor._process import running
from hother.cancelable._doctor._runner import APP, Result, ServerRun, Verdict, run_server
from hother.cancelable._doctor._servers import SERVERS, Server
from hother.cancelable._doctor._shutdown import judge_shutdown
from hother.cancelable._doctor._stage import Stage

HYPERCORN = SERVERS["hypercorn-asyncio"]


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What has not ended soon runs on.
    """
    monkeypatch.setattr(Stage, "missed", 1.0)


pytestmark = [
    pytest.mark.only_on("asyncio"),
    pytest.mark.skipif(sys.platform == "win32", reason="the doctor needs signals"),
]

#: Every way, every moment, and every script once.
ONCE = (
    "close/unasked",
    "reset/unread",
    "half-close/mid-body",
    "deadline/handler",
    "deadline/background",
    "operator/started",
    "operator-thread/stalled",
    "error/background",
    "native/handler",
    "h2-stream-reset/started",
    "h2-close/mid-body",
    "h2-deadline/handler",
    "h2-deadline/started",
    "in-base-close/handler",
    "stream/deadline",
    "big-file/close",
    "session/close",
    "limited/decorator",
    "error/handled",
    "thread/deaf",
    "cleanup/close",
    "asks/close",
    "websocket/ticker/goodbye",
    "websocket/busy/lost",
    "websocket/busy/reset",
    "websocket/talk/goodbye",
    "websocket/closes/handler",
    "websocket/ticker/operator",
    "body/length-1-early",
    "body/chunked-1-late",
    "body/http2",
    "body/form",
    "body/asked-for",
    "crowd/close",
    "blind/pipelined",
    "blind/unread",
    "blind/stream-unread",
)


async def test_scenarios_can_be_played_at_once() -> None:
    """
    What is logged or left behind may be another's then, and is not looked at.
    """
    journal = Journal()
    results: list[Result] = []

    async def judge(name: str) -> None:
        scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
        async with limiter:
            results.append(await run.judge(scenario))

    with NamedTemporaryFile() as file:
        file.truncate(50_000_000)
        journal.file = file.name
        async with anyio.create_task_group() as tasks:
            await tasks.start(journal.listen)
            async with running(HYPERCORN, APP, journal.environment) as process:
                run = ServerRun(HYPERCORN, process, journal, is_alone=False)
                await run.warm_up(WARM_UP)
                limiter = anyio.CapacityLimiter(18)
                async with anyio.create_task_group() as plays:
                    for name in ONCE:
                        plays.start_soon(judge, name)
            tasks.cancel_scope.cancel()

    unexpected = {"late", "idle"}  # the process is busy
    failed = {
        result.scenario.name: result.problems
        for result in results
        if result.verdict is Verdict.FAIL and not {kind for kind, _ in result.problems} <= unexpected
    }
    assert failed == {}
    assert len(results) == len(ONCE)


async def test_a_server_is_stopped_with_a_request_at_every_moment() -> None:
    """
    Each hears of it, and is answered.
    """
    scenarios = [scenario for scenario in SCENARIOS if scenario.needs_shutdown]
    journal = Journal()

    async with anyio.create_task_group() as tasks:
        await tasks.start(journal.listen)
        results = await judge_shutdown(HYPERCORN, scenarios, journal)
        tasks.cancel_scope.cancel()

    assert {result.scenario.name: result.problems for result in results} == {
        scenario.name: [] for scenario in scenarios
    }


async def test_a_server_that_does_not_start_fails_in_all() -> None:
    """
    Its log says why.
    """
    server = Server("broken", "hypercorn", ("hypercorn", "no_such_module:app"))
    results: list[Result] = []

    await run_server(server, SCENARIOS[:2], Journal(), results.append, WARM_UP)

    assert [result.verdict for result in results] == [Verdict.FAIL, Verdict.FAIL]
    assert "no_such_module" in results[0].problems[0][1]


def examine(monkeypatch: pytest.MonkeyPatch, app: str, *options: str, probed: tuple[str, ...]) -> int:
    """Look at an application, with a few scenarios and not much patience."""
    monkeypatch.setattr(Stage, "patience", 0.5)
    monkeypatch.setattr(Stage, "missed", 0.5)
    monkeypatch.setattr(_runner, "_SETTLING", 0.2)
    monkeypatch.setattr(_user_app, "_SOON", 0.5)
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(_user_app, "_PROBED", probed)
    place = f"tests.doctor_apps:{app}"
    return main(["doctor", "--server", HYPERCORN.name, "--no-color", "--app", place, *options])


def test_an_application_that_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Its slow path ends when its client leaves, and at its deadline.
    """
    probed = ("close/handler", "session/close", "body/form", "body/asked-for")

    assert examine(monkeypatch, "good", "--path", "/slow", probed=probed) == 0

    output = " ".join(capsys.readouterr().out.split())
    assert "ms after its client left, before it was answered" in output
    assert "the deadline is 0.6 s" in output
    assert "limitation" in output
    assert "FAIL" not in output


def test_an_application_without_the_middleware(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The doctor says what to do.
    """
    probed = ("session/close",)

    assert examine(monkeypatch, "naked", "--path", "/slow", "--deadline", "0.2", probed=probed) == 1

    output = " ".join(capsys.readouterr().out.split())
    assert "RequestCancelationMiddleware was not found" in output
    assert "it ran on for more than 0.5 s after its client left" in output
    assert "its answer was waiting" in output


def test_an_application_that_wants_to_see_a_header(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    It answers before anything is tried, and the doctor says how to get in.
    """
    assert examine(monkeypatch, "guarded", "--path", "/fast", probed=("close/unasked",)) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "let us in with --header" in output
    assert "Auth is a BaseHTTPMiddleware outside" in output

    options = ("--path", "/fast", "--header", "Authorization: please")
    assert examine(monkeypatch, "guarded", *options, probed=("close/unasked",)) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "let us in" not in output
    assert "was answered at once, with 200" in output


def test_an_application_of_no_framework(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Only its path can be looked at.
    """
    assert examine(monkeypatch, "good", probed=()) == 0, "nothing was asked for"
    assert "FAIL" not in capsys.readouterr().out

    assert examine(monkeypatch, "pure", "--path", "/not a path", probed=()) == 1
    assert "the client failed" in capsys.readouterr().out

    assert examine(monkeypatch, "pure", probed=()) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "give the --path" in output
    assert "only the given path was looked at" in output


def test_the_policy_of_an_application_is_not_taken_for_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The doctor's own handlers are to be cancelled in any case.
    """
    probed = ("close/handler", "session/close", "websocket/ticker/lost")

    assert examine(monkeypatch, "patient", probed=probed) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_an_application_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The server's log says why.
    """
    assert examine(monkeypatch, "nonsense", probed=()) == 1
    assert "nonsense" in capsys.readouterr().out


def test_the_command_writes_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    And prints a table.
    """
    file = tmp_path / "seen.json"

    options = ["--server", HYPERCORN.name, "--only", "close/handler", "--json", str(file)]
    assert main(["doctor", *options]) == 0

    assert "1 pass, 0 limitations, 0 failed" in capsys.readouterr().out
    (result,) = json.loads(file.read_text())["results"]
    assert (result["verdict"], result["seen"]["reason"]) == ("pass", "disconnect")


def _processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the state of each process."""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,stat="], text=True).splitlines()
    return {int(pid): (int(parent), state) for pid, parent, state in map(str.split, lines)}


def _descendants(pid: int) -> set[int]:
    processes = _processes()
    found = {pid}
    while more := {child for child, (parent, _) in processes.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _is_running(pid: int) -> bool:
    return not _processes().get(pid, (0, "Z"))[1].startswith("Z")


def _wait_for(ask: Callable[[], set[int]], *, at_least: int) -> set[int]:
    give_up_at = time.monotonic() + 10
    while len(found := ask()) < at_least:
        assert time.monotonic() < give_up_at, found
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_the_doctor(tmp_path: Path, number: int) -> None:
    """
    Neither after Ctrl-C, nor if the doctor is killed.
    """
    command = [sys.executable, "-m", "hother.cancelable", "doctor", "--server", HYPERCORN.name]
    with subprocess.Popen([*command, "--only", "deadline/*"], cwd=tmp_path) as doctor:
        try:
            children = _wait_for(lambda: _descendants(doctor.pid), at_least=2)
            doctor.send_signal(number)
            assert doctor.wait(timeout=10) == (130 if number == signal.SIGINT else -signal.SIGKILL)
            _wait_for(lambda: {pid for pid in children if not _is_running(pid)}, at_least=len(children))
        finally:
            doctor.kill()
