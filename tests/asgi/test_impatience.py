"""Servers that cancel a request which was to go on without its client: the log says what to tell them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from hother.cancelable.asgi import (
    TOKEN_KEY,
    ASGIApp,
    Grace,
    RequestCancelationMiddleware,
    _impatience,
    begin_shutdown,
    commit,
)
from hother.cancelable.asgi._types import Receive, Scope, Send
from tests.asgi_peer import Peer


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is said once per process.
    """
    monkeypatch.setattr(_impatience, "_has_said", [False])


async def serve(app: ASGIApp, *, patience: float, leaves: bool = True, **options: Any) -> Peer:
    """Serve a client that leaves after a second, on a server that cancels the request later."""
    peer = Peer(**options)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(1)
        if leaves:
            peer.disconnect()
        await anyio.sleep(patience)
        tasks.cancel_scope.cancel()
    return peer


def working(begin: Callable[[], object] = lambda: None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begin()
        await anyio.sleep(10)

    return app


async def test_what_a_policy_has_go_on_is_said_to_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """
    Once, with the names of the settings.
    """
    for policy in ("finish", "ignore", Grace(8), Grace(1, delay=7)):
        await serve(RequestCancelationMiddleware(working(), on_disconnect=policy), patience=3)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hother.cancelable", logging.WARNING)
    assert "gunicorn --asgi-disconnect-grace-period" in record.getMessage()
    assert "daphne --application-close-timeout" in record.getMessage()


@pytest.mark.parametrize("leaves", [True, False])
async def test_so_is_what_has_passed_its_point_of_no_return(
    leaves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Whatever has happened: a client that left, or a time limit that has passed.
    """
    await serve(RequestCancelationMiddleware(working(commit), 2), patience=3, leaves=leaves)

    assert len(caplog.records) == 1


async def cancel(scope: Scope, receive: Receive, send: Send) -> None:
    """Cancel oneself."""
    scope[TOKEN_KEY].cancel()
    await anyio.sleep(10)


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail once the client has left."""
    await anyio.sleep(2)
    raise OSError("no database")


@pytest.mark.parametrize(
    ("app", "options"),
    [
        (working(), {}),  # is cancelled by us
        (working(), {"on_disconnect": Grace(2)}),  # and so is this one
        (cancel, {"on_disconnect": "finish"}),
        (working(), {"default_timeout": 2, "on_disconnect": "finish"}),
    ],
)
async def test_who_is_cancelled_by_us_is_not_talked_of(
    app: ASGIApp, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Nor is who is slow to end then.
    """

    async def slow_to_end(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)

    await serve(RequestCancelationMiddleware(slow_to_end, **options), patience=3)

    assert caplog.records == []


async def test_nor_is_a_websocket_handler_that_does_not_take_the_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    Nor if the server cancels it in the very moment in which it is cancelled by us.
    """

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await anyio.sleep(10)
        finally:
            server.cancel()

    peer = Peer(kind="websocket")
    with anyio.CancelScope() as server:
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(deaf, websocket_grace=2))
            await anyio.sleep(1)
            peer.disconnect()

    assert anyio.current_time() == 3
    assert caplog.records == []


async def test_who_fails_is_not_talked_of(caplog: pytest.LogCaptureFixture) -> None:
    """
    The error says it all.
    """
    with pytest.RaisesGroup(OSError):
        await serve(RequestCancelationMiddleware(fail, on_disconnect="finish"), patience=3)

    assert caplog.records == []


async def test_who_is_cancelled_while_the_client_is_there_is_not_talked_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    That is for the server to say, at the end of its shutdown for instance.
    """
    middleware = RequestCancelationMiddleware(working(begin_shutdown), on_shutdown="finish")

    await serve(middleware, patience=3, leaves=False)

    assert caplog.records == []
