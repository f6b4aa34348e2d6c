"""The doctor's options: what cannot be followed is refused at once, not after minutes."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("rich")
pytest.importorskip("h2")
pytest.importorskip("wsproto")
pytest.importorskip("hypercorn")

from starlette.applications import Starlette

from hother.cancelable.__main__ import main
from hother.cancelable._doctor import _process
from hother.cancelable._doctor._advice import advice_about
from hother.cancelable._doctor._probe import _user
from hother.cancelable.asgi import Grace, RequestCancelationMiddleware

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the doctor needs signals")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--app", "a:b", "--path", "slow"], "--path must begin with a slash, got 'slow'"),
        (["--app", "a:b", "--deadline", "0"], "--deadline must be a number of seconds above 0, got 0"),
        (["--app", "a:b", "--deadline", "nan"], "above 0, got nan"),
        (["--app", "a:b", "--header", "Authorization"], "'NAME: VALUE', got 'Authorization'"),
        (["--app", "a:b", "--header", ": please"], "'NAME: VALUE', got ': please'"),
        (["--app", "a:b", "--header", "X: ✓"], "'NAME: VALUE', got 'X: ✓'"),
        (["--app", "a:b", "--json", "seen.json"], "--json goes not with --app"),
        (["--app", "a:b", "--only", "close/*"], "--only goes not with --app"),
        (["--path", "/slow"], "--path goes only with --app"),
        (["--deadline", "3"], "--deadline goes only with --app"),
        (["--header", "A: b"], "--header goes only with --app"),
        (["--json", "no/such/directory/seen.json"], "No such file or directory: no/such/directory/seen.json"),
    ],
)
def test_an_option_that_cannot_be_followed(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    It is named, and nothing is started or written.
    """
    monkeypatch.chdir(tmp_path)

    assert main(["doctor", *options]) == 2

    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_in_a_file_stays_until_there_is_something_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever interrupts an examination keeps the results of the last one.
    """
    file = tmp_path / "seen.json"
    file.write_text("before")

    async def interrupted(*_: object) -> int:
        return 130

    monkeypatch.setattr("hother.cancelable._doctor._command._examine", interrupted)

    assert main(["doctor", "--json", str(file)]) == 130
    assert file.read_text() == "before"


def test_the_deadline_of_an_application_is_found_wherever_it_is_given() -> None:
    """
    By its name, or by its place.
    """
    by_name, by_place = Starlette(), Starlette()
    by_name.add_middleware(RequestCancelationMiddleware, default_timeout=3)
    by_place.add_middleware(RequestCancelationMiddleware, 4)
    around = RequestCancelationMiddleware(Starlette(), 5)

    assert [_user.describe(app)[0]["timeout"] for app in (by_name, by_place, around)] == [3, 4, 5]


@pytest.mark.parametrize(
    ("policy", "said"),
    [(None, None), ("cancel", None), ("finish", "on_disconnect=finish"), (Grace(5), "on_disconnect=Grace(")],
)
def test_a_policy_of_the_application_is_named(policy: Any, said: str | None) -> None:
    """
    Its handlers run on because it has said so.
    """
    app = Starlette()
    app.add_middleware(RequestCancelationMiddleware, on_disconnect=policy)

    advice = list(advice_about(_user.describe(app), has_probes=True))

    assert advice == [] if said is None else said in advice[0]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nonsense:app", "No module named 'nonsense'"),
        ("tests.doctor_apps:nonsense", "has no attribute 'nonsense'"),
        ("tests.doctor_apps:factory", "app must be an ASGI 3 application"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_complained_of_once(
    place: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    And not by each server.
    """
    monkeypatch.chdir(Path(__file__).parents[1])

    assert (
        main(["doctor", "--app", place, "--server", "hypercorn-asyncio", "--server", "hypercorn-asyncio"])
        == 1
    )

    output = capsys.readouterr().out
    assert said in output
    assert output.count(f"--app {place} cannot be loaded") == 1


def test_an_application_that_only_exits_has_a_code() -> None:
    """
    There is nothing else to tell.
    """
    assert anyio.run(partial(_process.failure_of, "raise SystemExit(3)", "", directory="/")) == "exit code 3"


def test_an_application_that_takes_too_long_to_load_is_left_to_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    They have their own time to start; what has not failed may still work.
    """
    monkeypatch.setattr(_process, "TIME_TO_START", 0.1)

    assert anyio.run(partial(_process.failure_of, "import time; time.sleep(60)", "", directory="/")) is None
