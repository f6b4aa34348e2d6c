"""Where nobody can see a client leave, the log says so."""

from __future__ import annotations

import logging

import anyio
import pytest

from hother.cancelable.asgi import RequestCancelationMiddleware, _blindness
from hother.cancelable.asgi._types import Receive, Scope, Send
from tests.asgi_peer import Peer

KB = 1024


async def serve(*body: bytes, works: float) -> None:
    """Serve a request whose handler works before it reads."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(works)
        for _ in body:
            await receive()

    await Peer(*body).run(RequestCancelationMiddleware(app, read_ahead=KB))


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is said once per process.
    """
    monkeypatch.setattr(_blindness, "_has_said", [False])


async def test_a_body_that_is_not_read_is_said_to_hide_the_client(caplog: pytest.LogCaptureFixture) -> None:
    """
    Once, with what to do.
    """
    for _ in range(2):
        await serve(bytes(KB), bytes(KB), works=10)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hother.cancelable", logging.WARNING)
    assert "more than read_ahead=1024 bytes" in record.getMessage()
    assert "set a timeout" in record.getMessage()


@pytest.mark.parametrize("body", [(bytes(10),), (bytes(KB), bytes(KB))], ids=["small", "read soon"])
async def test_what_is_read_soon_is_not_worth_a_line(
    body: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Nor is what has room.
    """
    await serve(*body, works=0.5 if len(body) > 1 else 10)

    assert caplog.records == []
