"""``python -m hother.cancelable demo``, as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from urllib.request import urlopen

import anyio
import pytest

from hother.cancelable.__main__ import main

pytest.importorskip("rich")
pytest.importorskip("trio")

from rich.console import Console

from hother.cancelable._demo._children import TITLES
from hother.cancelable._demo._runs import Board, Pair
from hother.cancelable._demo._scenarios import SCENARIOS, problems
from hother.cancelable._demo._screen import picture, verdict

MODULE = (sys.executable, "-m", "hother.cancelable")

STARTING = "Starting "
PLAYING = "clients connect"
SERVING = "Ctrl-C ends them"

pytestmark = [pytest.mark.servers, pytest.mark.real_time]


@contextmanager
def demo(*options: str) -> Generator[subprocess.Popen[str], None, None]:
    """Start the demo, and kill it in the end if it still runs."""
    with subprocess.Popen(
        [*MODULE, "demo", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*MODULE, "demo", *options], capture_output=True, text=True, timeout=30, check=False
    )


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read what the demo prints until a line with *text*, and return that."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the demo never printed {text!r}")


def children_of(process: subprocess.Popen[str]) -> set[int]:
    """Return the ids of the processes that *process* has started."""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True).splitlines()
    return {int(pid) for pid, parent in map(str.split, lines) if int(parent) == process.pid}


def still_running(pids: set[int]) -> set[int]:
    """Return which of *pids* run. Those that only wait to be reaped do not."""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,stat="], text=True).splitlines()
    states = {int(pid): state for pid, state in map(str.split, lines)}
    return {pid for pid in pids if not states.get(pid, "Z").startswith("Z")}


def assert_all_end(pids: set[int]) -> None:
    """Assert that none of *pids* runs for long."""
    give_up_at = time.monotonic() + 5
    while still_running(pids) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not still_running(pids)


def test_the_demo_ends_by_itself_and_says_that_all_is_well() -> None:
    started_at = time.monotonic()

    result = run_demo()

    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert time.monotonic() - started_at < 20
    assert "all handlers stopped" in result.stdout
    assert "\x1b" not in result.stdout, "escape sequences, although it is no terminal"


def test_the_demo_draws_in_ascii_if_nothing_else_can_be_printed() -> None:
    console = Console(file=TextIOWrapper(BytesIO(), encoding="ascii"))
    board = Board(TITLES, SCENARIOS)

    console.print(picture(board, console))
    console.print(verdict(board, console, [], 5.0))
    console.print(verdict(board, console, ["a problem"], 5.0))
    # that was no UnicodeEncodeError


def test_the_measurements_can_be_had_as_json() -> None:
    result = run_demo("--json")

    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert {run["backend"] for run in report["runs"]} == {"asyncio", "trio"}


@pytest.mark.parametrize(
    ("options", "phase"), [((), STARTING), ((), PLAYING), (("--serve",), STARTING), (("--serve",), SERVING)]
)
def test_ctrl_c_ends_the_demo_and_its_children(options: tuple[str, ...], phase: str) -> None:
    with demo(*options) as process:
        wait_for(process, phase)
        children = children_of(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)

        assert (process.returncode, errors) == (130, "")
        assert not still_running(children)


def test_children_do_not_outlive_a_demo_that_is_killed() -> None:
    with demo() as process:
        wait_for(process, PLAYING)
        children = children_of(process)
        process.kill()

        assert len(children) == 2
        assert_all_end(children)


def test_a_demo_whose_output_is_not_read_on_ends_in_good_order() -> None:
    with demo() as process:
        wait_for(process, STARTING)
        children = children_of(process)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert process.wait(timeout=10) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
        assert not still_running(children)


def test_a_server_that_dies_is_a_failure_with_a_name() -> None:
    with demo() as process:
        wait_for(process, PLAYING)
        os.kill(min(children_of(process)), signal.SIGKILL)
        output, errors = process.communicate(timeout=10)

        assert (process.returncode, errors) == (1, "")
        assert "has ended" in output


def test_served_handlers_are_reported_as_they_stop() -> None:
    with demo("--serve") as process:
        url = wait_for(process, "curl --max-time 1 http").split()[-1]
        wait_for(process, SERVING)
        with pytest.raises(TimeoutError):
            urlopen(url, timeout=0.3)
        line = wait_for(process, "report  stopped")

        assert "uvicorn on asyncio  with " in line


def pair_of(name: str) -> Pair:
    """Return the runs of a scenario, as they are when all went well: 5 ms with, and 2 s without."""
    pair = next(pair for pair in Board(TITLES, SCENARIOS).pairs if pair.scenario.name == name)
    for run, stopped_at in (pair.guarded, 1.005), (pair.plain, 3.0):
        run.left_at = 1.0
        run.take({"event": "begins", "at": 0.5, "done": 0, "total": 30})
        how, done = ("CancelledError", 5) if run.guarded and not run.scenario.finishes else ("finished", 30)
        run.take({"event": "ends", "at": stopped_at, "done": done, "total": 30, "how": how})
    return pair


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_no_problem_is_seen_where_there_is_none(name: str) -> None:
    assert list(problems(pair_of(name))) == []


@pytest.mark.parametrize(
    ("name", "side", "facts", "problem"),
    [
        ("report", "guarded", {"failure": "the connection failed"}, "the connection failed"),
        ("report", "guarded", {"has_begun": anyio.Event()}, "never began"),
        ("report", "guarded", {"has_ended": anyio.Event()}, "had not ended"),
        ("report", "guarded", {"ended_at": 1.4}, "went on for 400 ms, 250 ms are allowed"),
        ("report", "guarded", {"ended_at": 0.9}, "ended before its client left"),
        ("report", "guarded", {"left_at": None}, "ended before its client left"),
        ("report", "guarded", {"how": "finished", "done": 30}, "was not stopped"),
        ("report", "plain", {"ended_at": 1.4}, "nothing to compare with"),
        ("order", "guarded", {"how": "CancelledError", "done": 5}, "stopped after 5 of 30 units"),
        ("order", "plain", {"done": 29}, "stopped after 29 of 30 units"),
    ],
)
def test_a_broken_promise_is_named(name: str, side: str, facts: dict[str, object], problem: str) -> None:
    pair = pair_of(name)
    for fact, value in facts.items():
        setattr(getattr(pair, side), fact, value)

    (found,) = problems(pair)

    assert f"{name} on asyncio, {'with' if side == 'guarded' else 'without'} the middleware" in found
    assert problem in found


def test_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn", None)

    assert main(["demo"]) == 2
    assert 'pip install "hother-cancelable[demo]"' in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_importing_the_library_imports_nothing_of_the_demo() -> None:
    needless = {"fastapi", "hypercorn", "rich", "starlette", "trio", "uvicorn", "hother.cancelable._demo"}
    code = "import hother.cancelable, sys; print(*sys.modules)"

    imported = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    assert not needless.intersection(imported)
