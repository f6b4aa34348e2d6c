"""``python -m hother.cancelable doctor``: what it says of what it saw. The servers' tests let it see."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("h2")
pytest.importorskip("wsproto")

from rich.console import Console

from hother.cancelable.__main__ import main
from hother.cancelable._doctor import Options, _command, run
from hother.cancelable._doctor._advice import advice_about, advice_for_status
from hother.cancelable._doctor._answers import Ending
from hother.cancelable._doctor._catalogue import SCENARIOS
from hother.cancelable._doctor._command import Wrong, chosen_scenarios, chosen_servers
from hother.cancelable._doctor._observation import Expectation, Fate, Observation
from hother.cancelable._doctor._process import tracebacks_in
from hother.cancelable._doctor._report import Progress, as_json, print_report
from hother.cancelable._doctor._runner import Result, Verdict, is_limitation, more_than
from hother.cancelable._doctor._servers import SERVERS, Quirk, Server
from tests.servers.known_faults import KNOWN_FAULTS

STOPPED = Expectation(Fate.DISCONNECT, 503, frozenset({Ending.COMPLETE}))
GOOD = Observation(
    began=True,
    how="CancelledError",
    reason="disconnect",
    after=0.01,
    left="returned",
    status=503,
    ending=Ending.COMPLETE,
)


def problems(expected: Expectation, seen: Observation) -> list[str]:
    return [kind for kind, _ in expected.problems(seen)]


# --- What is a problem


def test_nothing_is_said_of_what_went_well() -> None:
    """
    An observation that is as expected.
    """
    assert problems(STOPPED, GOOD) == []


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"began": False}, "began"),
        ({"how": None, "reason": None, "after": None, "left": None}, "ended"),
        ({"after": 0.7}, "late"),
        ({"how": "finished"}, "fate"),
        ({"reason": "timeout"}, "fate"),
        ({"reason": None}, "fate"),
        ({"how": "ClientDisconnect", "reason": None}, "fate"),
        ({"left": None}, "left"),
        ({"left": "ExceptionGroup"}, "left"),
        ({"status": 500}, "status"),
        ({"ending": Ending.WAITING}, "answer"),
        ({"tracebacks": ["KeyError: 1"]}, "log"),
        ({"behind": {"Exchange": 1}}, "behind"),
        ({"notes": [("body", "bytes were lost")]}, "body"),
    ],
)
def test_each_problem_is_named(facts: dict[str, Any], kind: str) -> None:
    """
    One wrong fact is one problem.
    """
    assert problems(STOPPED, replace(GOOD, **facts)) == [kind]


def test_a_request_may_be_judged_without_its_handler() -> None:
    """
    It has to end, and in time.
    """
    expected = Expectation(Fate.ANY)

    assert problems(expected, replace(GOOD, how=None)) == []
    assert problems(expected, replace(GOOD, left=None)) == ["ended"]
    assert problems(expected, replace(GOOD, after=2.0)) == ["late"]


def test_a_handler_that_finishes_may_take_its_time() -> None:
    """
    A background task is not late.
    """
    assert problems(Expectation(Fate.FINISHED), replace(GOOD, how="finished", after=5.0)) == []


@pytest.mark.parametrize(
    ("how", "reason", "fate"),
    [
        (None, None, None),
        ("finished", "disconnect", Fate.FINISHED),
        ("CancelledError", "timeout", Fate.TIMEOUT),
        ("CancelledError", "signal", Fate.ANY),
        ("Cancelled", None, Fate.NATIVE),
        ("GeneratorExit", None, Fate.NATIVE),
        ("KeyError", None, Fate.ERROR),
    ],
)
def test_the_fate_of_a_handler(how: str | None, reason: str | None, fate: Fate | None) -> None:
    """
    By the exception that ended it, and the reason of its token.
    """
    assert Observation(how=how, reason=reason).fate is fate


# --- Whose problem it is


SCENARIO = replace(SCENARIOS[0], expected=STOPPED)


@pytest.mark.parametrize(
    ("kinds", "control", "answer"),
    [
        (["status"], {"status": 500}, True),
        (["status"], {}, False),
        (["status", "answer"], {"status": 500}, False),
        (["late"], {"how": None, "reason": None, "left": None}, True),
        (["ended"], {"after": 1.5}, True),
        (["ended", "behind"], {"how": None, "reason": None, "left": None}, True),
        (["log"], {"tracebacks": ["KeyError"]}, True),
        (["log"], {"left": "KeyError"}, True),
    ],
)
def test_a_limitation_is_what_happens_without_the_middleware_too(
    kinds: list[str], control: dict[str, Any], answer: bool
) -> None:
    """
    All of it, not some of it.
    """
    found = [(kind, "a sentence") for kind in kinds]

    assert is_limitation(SCENARIO, found, replace(GOOD, **control)) is answer


def test_what_was_left_behind_is_what_was_not_there_before() -> None:
    """
    What goes away meanwhile does not matter.
    """
    before = {"objects": {"Exchange": 1, "Reader": 2}, "tasks": ["a", "b"], "bare": 1}
    after = {"objects": {"Exchange": 2, "Reader": 1}, "tasks": ["b", "b"], "bare": 3}

    assert more_than(before, after) == {"Exchange": 1, "tasks": ["b"]}
    assert more_than(before, after, "bare") == {"Call": 2}
    assert more_than(before, before) == more_than(before, before, "bare") == {}


def test_tracebacks_are_found_in_a_log() -> None:
    """
    With the line that names the exception, in groups too.
    """
    log = (
        "INFO: started\nERROR: oh\nTraceback (most recent call last):\n"
        '  File "app.py", line 1, in <module>\n    fail()\nmodule.Failure: it failed\nINFO: more\n'
        "  + Exception Group Traceback (most recent call last):\n  |   File x\n"
        "  | ExceptionGroup: some errors (1 sub-exception)\nTraceback (most recent call last):\n"
    )

    assert tracebacks_in(log) == [
        "module.Failure: it failed",
        "ExceptionGroup: some errors (1 sub-exception)",
        "an exception",
    ]


# --- The catalogue


def test_scenarios_have_names_of_their_own() -> None:
    """
    They can be asked for by name.
    """
    names = [scenario.name for scenario in SCENARIOS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)
def test_every_quirk_is_about_a_scenario_and_says_where_to_read_of_it(server: Server) -> None:
    """
    None is left over from a scenario that was renamed.
    """
    for quirk in server.quirks:
        assert quirk.reference
        assert any(server.quirk_for(scenario.name) is quirk for scenario in SCENARIOS), quirk


def test_the_command_of_a_server_knows_its_place() -> None:
    """
    An open socket, or a port for those that open one themselves.
    """
    uvicorn = SERVERS["uvicorn-h11"].command_for("m:app", descriptor=7, port=80)
    granian = SERVERS["granian"].command_for("m:app", descriptor=7, port=80)

    assert uvicorn[:5] == [sys.executable, "-m", "uvicorn", "m:app", "--fd"]
    assert uvicorn[5] == "7"
    assert granian[granian.index("--port") + 1] == "80"


def test_a_server_that_is_not_installed_has_no_version() -> None:
    """
    It says what it needs.
    """
    server = Server("nonsense", "no_such_package", ())

    assert (server.version, server.missing) == ("", ["no_such_package"])


# --- The report


def results() -> list[Result]:
    first, second = SCENARIOS[:2]
    quirk = Quirk("*", "it cannot", "https://example.org/1")
    return [
        Result("granian", first, Verdict.PASS, [], GOOD, server_ended=["it ended by itself"]),
        Result("granian", second, Verdict.LIMITATION, [("late", "too late")], GOOD, GOOD, quirk),
        Result("daphne", second, Verdict.LIMITATION, [("late", "too late")], GOOD, GOOD),
        Result("daphne", first, Verdict.FAIL, [("began", "it never began")], GOOD),
        Result("gunicorn", first, Verdict.ABSENT),
    ]


SHOWN = [SERVERS["granian"], SERVERS["daphne"], SERVERS["gunicorn"]]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_report_says_what_failed_and_what_cannot_be(encoding: str) -> None:
    """
    In any encoding.
    """
    output = BytesIO()
    console = Console(file=TextIOWrapper(output, encoding=encoding), width=100)

    print_report(console, SHOWN, SCENARIOS[:2], results(), 12.3)

    console.file.flush()
    text = output.getvalue().decode(encoding)
    assert "it cannot (https://example.org/1)" in text
    assert "please tell us" in text
    assert "! granian close/unasked: it ended by itself." in text
    assert "FAIL daphne close/unasked" in text
    assert "1 pass, 2 limitations, 1 failed; it took 12 s." in text


def test_all_that_was_seen_can_be_had_as_json() -> None:
    """
    A row for each scenario and server, in the order of the table.
    """
    report = json.loads(as_json(SHOWN, SCENARIOS[:2], results()))

    cells = [(it["scenario"], it["server"], it["verdict"]) for it in report["results"]]
    assert cells == [
        ("close/unasked", "granian", "pass"),
        ("close/unasked", "daphne", "FAIL"),
        ("close/unasked", "gunicorn", "absent"),
        ("close/unread", "granian", "limitation"),
        ("close/unread", "daphne", "limitation"),
    ]
    assert report["results"][3]["limitation"]["reference"] == "https://example.org/1"
    assert report["results"][0]["seen"]["ending"] == "complete"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown(is_terminal: bool) -> None:
    """
    As a picture on a terminal, as a line for each server elsewhere.
    """
    output = BytesIO()
    file = TextIOWrapper(output, encoding="utf-8")
    console = Console(file=file, width=100, force_terminal=is_terminal, color_system=None)

    with Progress(console, SHOWN, 2) as progress:
        for result in results():
            progress.take(result)
        progress.finish("granian")

    file.flush()
    text = output.getvalue().decode()
    assert "1 pass, 1 limitations, 0 failed" in text
    assert ("2 of 2" in text) is is_terminal


# --- Advice


def layer(name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name, "is_base": False, "is_ours": False, "timeout": None, **facts}


OURS = layer("RequestCancelationMiddleware", is_ours=True)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([OURS, layer("Auth", is_base=True)], []),
        ([layer("Auth", is_base=True), OURS], ["Auth is a BaseHTTPMiddleware outside"]),
        ([layer("GZip"), OURS], ["GZip is outside of"]),
        ([layer("GZip")], ["was not found"]),
    ],
)
def test_the_place_of_the_middleware_is_looked_at(layers: list[dict[str, Any]], said: list[str]) -> None:
    """
    Outermost is right.
    """
    advice = list(advice_about(layers, has_probes=True))

    assert len(advice) == len(said)
    assert all(part in sentence for part, sentence in zip(said, advice, strict=True))


def test_an_application_that_cannot_be_looked_into_is_said_to_be_one() -> None:
    """
    Then only the path counts.
    """
    (advice,) = advice_about([OURS], has_probes=False)

    assert "only the given path" in advice


@pytest.mark.parametrize(("status", "part"), [(401, "--header"), (404, "before our handler")])
def test_an_application_that_answers_too_early(status: int, part: str) -> None:
    """
    It may want to see who we are.
    """
    assert part in (advice_for_status(status) or "")


@pytest.mark.parametrize("status", [None, 200])
def test_there_is_no_advice_without_an_error(status: int | None) -> None:
    """
    The handler was reached.
    """
    assert advice_for_status(status) is None


# --- The command


def test_a_server_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The command names those that there are.
    """
    assert main(["doctor", "--server", "apache"]) == 2
    assert "uvicorn-h11" in capsys.readouterr().err


def test_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command says what to install.
    """
    server = Server("nonsense", "no_such_package", ())
    monkeypatch.setitem(SERVERS, "nonsense", server)

    with pytest.raises(Wrong, match="pip install no_such_package"):
        chosen_servers(["nonsense"])
    assert server not in chosen_servers([])


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is nothing to examine.
    """
    monkeypatch.setattr("hother.cancelable._doctor._command.SERVERS", {})

    with pytest.raises(Wrong, match="no server is installed"):
        chosen_servers([])


def test_scenarios_that_there_are_not() -> None:
    """
    A pattern that matches nothing is a mistake.
    """
    with pytest.raises(Wrong, match="--list"):
        chosen_scenarios("nonsense/*")


def test_all_there_is_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Servers, and scenarios.
    """
    assert main(["doctor", "--list"]) == 0
    output = capsys.readouterr().out
    assert "hypercorn-trio" in output
    assert "close/unasked" in output


def test_the_doctor_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The extra, and what is missing of it.
    """
    monkeypatch.setitem(sys.modules, "wsproto", None)

    assert main(["doctor"]) == 2
    assert 'pip install "hother-cancelable[doctor]"' in capsys.readouterr().err


def test_there_is_no_doctor_on_windows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    It says so.
    """
    monkeypatch.setattr("sys.platform", "win32")

    assert run(Options()) == 2
    assert "Windows" in capsys.readouterr().err


@pytest.mark.real_time
@pytest.mark.only_on("asyncio")
async def test_nothing_is_written_that_nobody_asked_for() -> None:
    """
    An examination of nothing is over at once, and well.
    """
    assert await _command._examine([], [], Console(file=StringIO()), None) == 0


# --- The page on servers


ROOT = Path(__file__).parents[1]


def servers_page() -> Any:
    """Import the tool that makes it."""
    spec = spec_from_file_location("servers_page", ROOT / "tools" / "servers_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_servers_says_what_its_facts_say() -> None:
    """
    Run tools/servers_page.py after changing either.
    """
    tool = servers_page()
    facts = json.loads(tool.FACTS.read_text(encoding="utf-8"))

    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(facts)


def test_the_page_on_servers_is_about_all_scenarios_and_servers() -> None:
    """
    Examine them again, and make the page from that, if one is new.
    """
    facts = json.loads(servers_page().FACTS.read_text(encoding="utf-8"))

    assert [it["name"] for it in facts["scenarios"]] == [scenario.name for scenario in SCENARIOS]
    assert list(facts["servers"]) == list(SERVERS)
    failed = {
        (server, row["name"])
        for row in facts["scenarios"]
        for server, mark in zip(facts["servers"], row["marks"], strict=True)
        if mark == "✗"
    }
    assert failed <= KNOWN_FAULTS
    assert all(it["reference"] for it in facts["limitations"])
