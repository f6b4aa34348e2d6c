"""The examples in a real browser: what it stops ends on the server, with the right reason, and soon."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from time import monotonic, sleep, time
from typing import Any

import pytest

from tests.servers.process import TIMEOUT, ServerProcess
from tests.servers.raw_client import http_request, read_response
from tools.install_chromium import find_chromium

APP = "examples.stop_button:app"
LIMIT = 1.0  #: seconds, for a browser that shares the machine with the server; mostly it takes a few ms

pytestmark = [
    pytest.mark.browser,
    pytest.mark.parametrize(
        "server_kind", ["uvicorn-asyncio", "hypercorn-trio"], indirect=True, scope="module"
    ),
]

Page = Any


def missing(what: str) -> None:
    """Skip the test; but not in CI, where it would not be missed."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """
    A browser without a window.
    """
    if find_spec("playwright") is None:
        missing("playwright is not installed")
    playwright_api: Any = import_module("playwright.sync_api")  # type checkers need not have it
    path = find_chromium()
    if path is None:
        missing("Chromium is not installed: python tools/install_chromium.py")
    is_root = os.geteuid() == 0  # as in a container
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if is_root else [])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[[ServerProcess], Page]]:
    """
    Open a page of a server, in a window of its own; what goes wrong in its script fails the test.
    """
    context = chromium.new_context()
    context.set_default_timeout(1000 * TIMEOUT)
    errors: list[str] = []

    def open_page(server: ServerProcess, query: str = "") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{server.url}/{query}")
        return page

    yield open_page
    context.close()
    assert errors == []


def start(page: Page, kind: str) -> str:
    """Start a stream, wait until something of it is there, and return its name."""
    page.click(f"#start-{kind}")
    page.wait_for_function(f"document.getElementById('{kind}').textContent.includes('2')")
    name: str = page.get_attribute(f"#{kind}", "data-name")
    return name


def ended(server: ServerProcess, name: str) -> dict[str, Any]:
    """Wait until a stream has ended, and return what the server has written down about it."""
    deadline = monotonic() + TIMEOUT
    while monotonic() < deadline:
        with server.connect() as sock:
            http_request(sock, path="/ended", headers={"Connection": "close"})
            streams: list[dict[str, Any]] = json.loads(read_response(sock).body)
        if found := [stream for stream in streams if stream["name"] == name]:
            assert len(found) == 1
            return found[0]
        sleep(0.01)
    raise AssertionError(f"{name} has not ended: {streams}")


WAYS_TO_LEAVE: dict[str, Callable[[Page, ServerProcess], object]] = {
    "reload": lambda page, server: page.reload(),
    "another page": lambda page, server: page.goto(f"{server.url}/ended"),
    "close": lambda page, server: page.close(),
}


@pytest.mark.parametrize("kind", ["news", "answer"])
def test_the_stop_button_ends_the_stream(
    server: ServerProcess, open_page: Callable[..., Page], kind: str
) -> None:
    """
    ``EventSource.close()`` and the abort of a ``fetch()``; the other stream goes on.
    """
    page = open_page(server)
    other = start(page, "answer" if kind == "news" else "news")
    name = start(page, kind)
    stopped = time()
    page.click(f"#stop-{kind}")

    stream = ended(server, name)

    assert stream["reason"] == "disconnect"
    assert stream["at"] - stopped < LIMIT
    page.wait_for_selector(f"#ended :text('{name}: disconnect')")
    assert page.locator(f"#ended :text('{other}')").count() == 0


@pytest.mark.parametrize("way", WAYS_TO_LEAVE)
@pytest.mark.parametrize("kind", ["news", "answer"])
def test_leaving_the_page_ends_its_streams(
    server: ServerProcess, open_page: Callable[..., Page], kind: str, way: str
) -> None:
    """
    However the user does it; there is no script for that.
    """
    page = open_page(server)
    name = start(page, kind)
    left = time()
    WAYS_TO_LEAVE[way](page, server)

    stream = ended(server, name)

    assert stream["reason"] == "disconnect"
    assert stream["at"] - left < LIMIT


def test_a_stream_that_ends_by_itself_is_complete(
    server: ServerProcess, open_page: Callable[..., Page]
) -> None:
    """
    The reload that follows is not taken for its end.
    """
    page = open_page(server, "?words=4")
    name = start(page, "answer")
    page.wait_for_selector("#start-answer:enabled")
    page.reload()

    assert ended(server, name)["reason"] == "complete"
    assert "4" not in page.text_content("#answer")


def test_a_closed_window_leaves_the_chat(
    start_server: Callable[..., ServerProcess], open_page: Callable[..., Page]
) -> None:
    """
    The other window shows it, and what was said before.
    """
    server = start_server("examples.chat:app")
    ann, bob = open_page(server), open_page(server)
    for page, name in ((ann, "Ann"), (bob, "Bob")):
        page.fill("#name", name)
        page.click("#door button")
        page.wait_for_selector(f"#log :text('{name} is here')")
    bob.fill("#text", "hello")
    bob.click("#mouth button")
    ann.wait_for_selector("#log :text('Bob: hello')")
    assert ann.text_content("#members") == "Ann, Bob"

    left = monotonic()
    bob.close()
    ann.wait_for_selector("#log :text('Bob has left')")

    assert monotonic() - left < LIMIT
    assert ann.text_content("#members") == "Ann"
