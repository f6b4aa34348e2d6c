"""The documentation: its programs run, print what they say, and do what the text around them says.

The blocks of Python of a page are one program, run in order. What a program prints is written beside
it, as ``# -> ...``. Web applications are called in-process, by a client that can leave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import hother.cancelable
from hother.cancelable import Cancelation, CancelationReason
from hother.cancelable._core._lifecycle import TRANSITIONS
from hother.cancelable.asgi import outcome_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs/tutorial.md"
FASTAPI = ROOT / "docs/how-to/fastapi.md"
POLICIES = ROOT / "docs/how-to/policies.md"
SHUTDOWN = ROOT / "docs/how-to/shutdown.md"
DESIGN = ROOT / "docs/explanation/design.md"
PAGES = [README, *sorted(ROOT.glob("docs/**/*.md"))]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"# -> (.*)")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

Program = dict[str, Any]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_blocks(page: Path, program: Program, *, without: str | None = None) -> Program:
    """Run the blocks of *page*, but for those that contain *without*."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if without is None or without not in block[1]:
            line = text.count("\n", 0, block.start(1))
            code = compile("\n" * line + block[1], str(page), "exec", dont_inherit=True)
            exec(code, program)
    return program


def load(page: Path, **stubs: Any) -> Program:
    """Make the web application of *page*, in a test that has an event loop already."""
    return run_blocks(page, {"__name__": "example", **stubs}, without="anyio.run(")


@dataclass
class Answer:
    """What a client got, and when its request was over, in seconds."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = inf

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.messages if "status" in message), None)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(pair for message in self.messages for pair in message.get("headers", ()))

    @property
    def pieces(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message.get("body")]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        return any(is_last(message) for message in self.messages)


def is_last(message: dict[str, Any]) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


async def ask(
    app: Any,
    path: str,
    method: str = "GET",
    *,
    body: Sequence[bytes] = (b"",),
    leaves_after: float = inf,
    sends_all: bool = True,
) -> Answer:
    """Send a request, as a client that leaves after so many seconds, or once it has its answer."""
    messages = [
        {"type": "http.request", "body": part, "more_body": not sends_all or number < len(body)}
        for number, part in enumerate(body, start=1)
    ]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    return await _connect(app, scope, messages, {"type": "http.disconnect"}, leaves_after)


async def talk(app: Any, path: str, says: Sequence[str] = (), *, leaves_after: float = inf) -> Answer:
    """Open a WebSocket, say something, and leave after so many seconds."""
    messages = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": text} for text in says),
    ]
    scope = {"type": "websocket", "path": path, "query_string": b"", "headers": [], "subprotocols": []}
    end = {"type": "websocket.disconnect", "code": 1001, "reason": ""}
    return await _connect(app, scope, messages, end, leaves_after)


async def _connect(
    app: Any,
    scope: dict[str, Any],
    messages: list[dict[str, Any]],
    end: dict[str, Any],
    leaves_after: float,
) -> Answer:
    answer = Answer()
    answered = anyio.Event()
    start = anyio.current_time()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        with anyio.CancelScope(deadline=start + leaves_after):
            await answered.wait()
        return end

    async def send(message: dict[str, Any]) -> None:
        answer.messages.append(message)
        if is_last(message):
            answered.set()

    await app(scope, receive, send)
    answer.seconds = anyio.current_time() - start
    return answer


# --- Every page


@pytest.mark.parametrize("page", PAGES, ids=name)
@pytest.mark.parametrize("backend", anyio.get_available_backends())
def test_programs_print_what_they_say(
    page: Path, backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every program of every page runs, on both backends, and its output is the one beside it.
    """
    monkeypatch.setattr(anyio, "run", partial(anyio.run, backend=backend))

    run_blocks(page, {"__name__": "example"})

    text = page.read_text(encoding="utf-8")
    expected = [line for block in BLOCK.findall(text) for line in PRINTED.findall(block)]
    output = capsys.readouterr()
    assert sorted(output.out.splitlines()) == sorted(expected)
    assert output.err == ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_program_is_overlooked(page: Path) -> None:
    """
    Each block that looks like Python is found by the pattern above.
    """
    text = page.read_text(encoding="utf-8")

    assert len(BLOCK.findall(text)) == len(re.findall(r"^\s*(?:```|~~~)\s*py", text, re.MULTILINE))


def test_a_program_that_fails_fails_where_it_stands(tmp_path: Path) -> None:
    """
    These tests can fail, and the traceback shows the line of the page.
    """
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 0\n```\n\n```python\n\nprint(1 / x)\n```\n")

    with pytest.raises(ZeroDivisionError) as failure:
        run_blocks(page, {})

    assert failure.traceback[-1].path == page
    assert failure.traceback[-1].lineno + 1 == 9


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """
    Links between pages name a file that exists, and a heading in it.
    """
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if not re.match(r"\w+:", link):
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


# --- README


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_the_readme_says_how_to_begin(session: str) -> None:
    """
    One line shows it, one line checks it.
    """
    command = f"python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox -s {session}"

    assert command in README.read_text(encoding="utf-8").splitlines()


async def test_the_three_programs_of_the_readme() -> None:
    """
    They answer; and each of them is stopped when its client leaves.
    """
    stopped: list[str] = []

    async def work(answer: str) -> str:
        try:
            await anyio.sleep(1)
        except BaseException:
            stopped.append(answer)
            raise
        return answer

    app = load(README, fetch_data=partial(work, "data"), long_operation=partial(work, "long"))["app"]

    data, slow, stream = [await ask(app, path) for path in ("/data", "/slow", "/stream")]
    gone = [await ask(app, path, leaves_after=0.5) for path in ("/data", "/slow", "/stream")]

    assert (data.status, data.body) == (200, b'"data"')
    assert (slow.status, slow.body) == (200, b"null")
    assert (stream.status, stream.headers[b"content-type"]) == (
        200,
        b"text/event-stream; charset=utf-8",
    )
    assert stream.pieces[:2] == [b"data: 0\n\n", b"data: 1\n\n"]
    assert not stream.is_complete  # 1000 pieces take longer than the middleware's 30 seconds
    assert stream.seconds == pytest.approx(30)
    assert stopped == ["data", "long"]
    assert [answer.status for answer in gone] == [None, None, 200]
    assert [answer.seconds for answer in gone] == pytest.approx([0.5] * 3)


# --- Tutorial


async def test_tutorial_the_handler_stops(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The output of the first program is the one on the page.
    """
    app = load(TUTORIAL)["app"]

    answer = await ask(app, "/report", leaves_after=1)

    assert answer.messages == []
    assert answer.seconds == pytest.approx(1)
    assert f"```text\n{capsys.readouterr().out}```" in TUTORIAL.read_text(encoding="utf-8")


async def test_tutorial_without_the_middleware(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """
    Without the line, the handler works to its end.
    """
    page = tmp_path / "page.md"
    line = "app.add_middleware(RequestCancelationMiddleware, default_timeout=30)\n"
    page.write_text(TUTORIAL.read_text(encoding="utf-8").replace(line, "", 1))

    answer = await ask(load(page)["app"], "/report", leaves_after=1)

    assert answer.seconds == pytest.approx(10)
    assert capsys.readouterr().out.splitlines() == [
        "the work begins",
        "the work is done",
        "the work has ended",
    ]


@pytest.mark.parametrize("path", ["/quick", "/slow"])
async def test_tutorial_timeouts(path: str) -> None:
    """
    The answers are the ones on the page.
    """
    answer = await ask(load(TUTORIAL)["app"], path)

    content_type = answer.headers[b"content-type"].decode()
    shown = f"HTTP/1.1 504 Gateway Timeout\ncontent-type: {content_type}\n\n{answer.body.decode()}\n"
    assert answer.status == 504
    assert answer.seconds == pytest.approx(2)
    assert shown in TUTORIAL.read_text(encoding="utf-8")


async def test_tutorial_operations(capsys: pytest.CaptureFixture[str]) -> None:
    """
    An operation tells why it was stopped, and how much time is left.
    """
    app = load(TUTORIAL)["app"]

    await ask(app, "/data", leaves_after=1)
    query = await ask(app, "/query")

    printed = capsys.readouterr().out.splitlines()
    text = TUTORIAL.read_text(encoding="utf-8")
    assert query.body == b"[1,2,3]"
    assert len(printed) == 2
    assert all(f"```text\n{line}\n```" in text for line in printed)


async def test_tutorial_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The stream ends with its client, and with its time.
    """
    app = load(TUTORIAL)["app"]

    gone = await ask(app, "/ticks", leaves_after=1.9)
    late = await ask(app, "/ticks")

    assert capsys.readouterr().out == "the stream has ended\n" * 2
    assert gone.pieces == [f"data: {tick}\n\n".encode() for tick in range(4)]
    assert late.status == 200
    assert late.seconds == pytest.approx(5)
    assert not late.is_complete


async def test_tutorial_websocket(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A handler that only sends is stopped when its client leaves.
    """
    answer = await talk(load(TUTORIAL)["app"], "/prices", leaves_after=1.5)

    assert [message["type"] for message in answer.messages] == ["websocket.accept", *["websocket.send"] * 2]
    assert answer.seconds == pytest.approx(1.5)
    assert capsys.readouterr().out == "no more prices: the client disconnected\n"


@pytest.mark.real_time
@pytest.mark.parametrize(("page", "path"), [(TUTORIAL, "/sum"), (FASTAPI, "/primes")])
async def test_def_endpoints(page: Path, path: str) -> None:
    """
    A thread that asks stops when the client leaves.
    """
    answer = await ask(load(page)["app"], path, leaves_after=0.1)

    assert answer.messages == []
    assert answer.seconds < 2


async def test_tutorial_bodies() -> None:
    """
    A body arrives whole; half of one ends the handler quietly.
    """
    app = load(TUTORIAL)["app"]

    whole = await ask(app, "/upload", "POST", body=[b"x" * 100_000] * 20)
    half = await ask(app, "/upload", "POST", body=[b"x"], leaves_after=1, sends_all=False)

    assert whole.body == b'{"bytes":2000000}'
    assert half.messages == []
    assert half.seconds == pytest.approx(1)


async def test_tutorial_ignoring_the_disconnect(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The handler of a client that may leave works to its end.
    """
    await ask(load(TUTORIAL)["orders"], "/orders", "POST", leaves_after=1)

    assert capsys.readouterr().out == "the order is placed\n"


# --- How-to


async def test_howto_policies() -> None:
    """
    Routes have timeouts of their own, and go on without their clients as they say.
    """
    program = load(POLICIES)
    app = program["app"]

    report, events = [await ask(app, path) for path in ("/report", "/events")]
    order = await ask(app, "/orders", "POST", leaves_after=1)
    paid = await ask(app, "/pay", "POST", leaves_after=2)
    not_paid = await ask(app, "/pay", "POST", leaves_after=0.5)

    assert (report.status, report.seconds) == (200, pytest.approx(60))
    assert (events.status, events.seconds) == (200, pytest.approx(100))
    assert program["done"] == ["order", "payment"]
    assert [order.seconds, paid.seconds, not_paid.seconds] == pytest.approx([2, 5, 0.5])


async def test_howto_shutdown() -> None:
    """
    A stream ends by itself, with all it has to say; a route finishes.
    """
    program = load(SHUTDOWN)

    async def stop() -> None:
        await anyio.sleep(2.5)
        program["stop"](SimpleNamespace())

    async def place_order() -> None:
        orders.append(await ask(program["api"], "/orders", "POST"))

    orders: list[Answer] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        tasks.start_soon(place_order)
        events = await ask(program["events"], "/events")

    assert events.pieces[-2:] == [b"data: tick\n\n", b"event: goodbye\ndata: reconnect\n\n"]
    assert (events.seconds, events.is_complete) == (pytest.approx(2.5), True)
    assert [(order.status, order.seconds) for order in orders] == [(200, pytest.approx(10))]


async def test_howto_shutdown_in_the_lifespan() -> None:
    """
    A task of the application hears of the end, and the lifespan ends.
    """
    program = load(SHUTDOWN)
    began_at = anyio.current_time()
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        if sent:
            await anyio.sleep(90)
            program["begin_shutdown"]()
            await anyio.sleep(1)
        return {"type": next(messages)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    await program["worker"]({"type": "lifespan", "state": {}}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert anyio.current_time() - began_at == pytest.approx(91)


@pytest.mark.real_time
async def test_howto_cleanup_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The temporary file is gone.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    answer = await ask(load(POLICIES)["app"], "/download")

    assert answer.body == b"a large report"
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


async def test_howto_installing() -> None:
    """
    Both ways to install the middleware stop handlers.
    """
    program = load(FASTAPI)

    inside = await ask(program["app"], "/two-steps")
    wrapped = await ask(program["server"], "/wait")

    assert inside.headers[b"x-served-by"] == b"example"
    assert inside.body == b'{"same":false}'
    assert wrapped.status == 504
    assert wrapped.seconds == pytest.approx(5)
    assert wrapped.headers[b"content-type"] == b"application/problem+json"


async def test_howto_time_limits_and_answers() -> None:
    """
    The page's exception handler answers for operations, and not for the decorator's errors.
    """
    app = load(FASTAPI)["app"]

    search, export, best_effort = [await ask(app, path) for path in ("/search", "/export", "/best-effort")]

    assert (search.status, search.body) == (504, b'{"error":"stopped","reason":"timeout"}')
    assert (export.status, export.body) == (504, b'{"detail":"timed out after 20 seconds"}')
    assert (best_effort.status, best_effort.body) == (200, b'{"fresh":false}')


async def test_howto_cleaning_up() -> None:
    """
    The shielded cleanup of a dependency runs to its end.
    """
    program = load(FASTAPI)

    await ask(program["app"], "/customers", leaves_after=1)

    assert program["Database"].open == 0


@pytest.mark.parametrize(("leaves_after", "paid"), [(0.1, []), (0.3, ["order 1"])])
async def test_howto_critical_sections(leaves_after: float, paid: list[str]) -> None:
    """
    Before the point of no return the handler stops; after it, it pays.
    """
    program = load(FASTAPI)

    await ask(program["app"], "/pay", "POST", leaves_after=leaves_after)

    assert program["paid"] == paid


async def test_howto_background_tasks() -> None:
    """
    The mail is sent although the client has left.
    """
    program = load(FASTAPI)

    answer = await ask(program["app"], "/signup", "POST")

    assert answer.status == 200
    assert program["sent"] == ["welcome"]


async def test_howto_websockets() -> None:
    """
    Starlette's own error, with and without an operation.
    """
    program = load(FASTAPI)

    chat = await talk(program["app"], "/chat", ["hello"], leaves_after=1)
    echo = await talk(program["app"], "/echo", ["hello"], leaves_after=1)

    assert chat.messages[1]["text"] == "you said: hello"
    assert echo.messages[1]["text"] == "hello"
    assert program["farewells"] == ["bye", "disconnect 1001"]


async def test_howto_operators() -> None:
    """
    One request cancels another one, whose client is told.
    """
    app = load(FASTAPI)["app"]
    answers: dict[str, Answer] = {}

    async def start() -> None:
        answers["job"] = await ask(app, "/jobs/nightly")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.sleep(1)
        answers["stop"] = await ask(app, "/jobs/nightly", "DELETE")

    assert answers["stop"].body == b'{"stopped":true}'
    assert answers["job"].status == 503
    assert answers["job"].seconds == pytest.approx(1)
    assert b"stopped by an operator" in answers["job"].body
    assert b"admin" not in answers["job"].body


async def test_howto_clients_that_may_leave() -> None:
    """
    The receipt is written although the client has left.
    """
    program = load(FASTAPI)

    answer = await ask(program["orders"], "/orders", "POST", leaves_after=1)

    assert answer.messages == []
    assert program["receipts"] == [1]


# --- What is in the text twice, here and in the code


@pytest.mark.parametrize("reason", set(CancelationReason) - {CancelationReason.PARENT}, ids=str)
def test_the_table_of_outcomes(reason: CancelationReason) -> None:
    """
    The design page has the codes that the code has.
    """
    outcome = outcome_of(Cancelation(reason))

    row = f"| `{reason}` | {outcome.status} | {outcome.close_code} |"
    assert row in DESIGN.read_text(encoding="utf-8").splitlines()


def test_the_life_of_an_operation() -> None:
    """
    The diagram of the design page is the table that the code goes by.
    """
    width = max(map(len, TRANSITIONS))
    lines = [
        f"{status:<{width}} → {', '.join(filter(following.__contains__, TRANSITIONS)) or '(the end)'}"
        for status, following in TRANSITIONS.items()
    ]

    assert "```text\n" + "\n".join(lines) + "\n```" in DESIGN.read_text(encoding="utf-8")


def test_the_tree_of_modules() -> None:
    """
    Every module that the design page draws exists.
    """
    drawing = next(
        block for block in FENCED.findall(DESIGN.read_text(encoding="utf-8")) if "_scope.py" in block
    )
    package = Path(hother.cancelable.__file__).parent
    existing = {path.name for path in package.rglob("*.py")}

    drawn = set(re.findall(r"\w+\.py", drawing))
    assert drawn >= {"_token.py", "_exchange.py", "fastapi.py"}
    assert drawn <= existing
