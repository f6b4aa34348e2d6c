"""Policies that change, or become known, while something is put off by the ones before."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import create_task_group

from hother.cancelable.asgi import (
    ASGIApp,
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    apply_policy,
    commit,
)
from hother.cancelable.asgi._types import Receive, Scope, Send
from tests.asgi.test_policy import Handler, routed, serve


def changing(handler: Handler, policy: RequestPolicy, *, after: float) -> ASGIApp:
    """An application that applies *policy* to its request, some seconds after that began."""

    async def change() -> None:
        await anyio.sleep(after)
        apply_policy(policy)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(change)
            await handler(scope, receive, send)

    return app


@pytest.mark.parametrize(
    ("policy", "told_at", "ended_at"),
    [("cancel", 3, 3), ("ignore", 3, 10), ("finish", None, 10), (Grace(2), 3, 5)],
    ids=str,
)
async def test_what_holds_when_a_delay_is_over_decides(
    policy: Any, told_at: float | None, ended_at: float
) -> None:
    """
    Whatever held when the client left: no handler runs on that should not.
    """
    handler = Handler()
    app = changing(handler, RequestPolicy(on_disconnect=policy), after=2)

    await serve(RequestCancelationMiddleware(app, on_disconnect=Grace(4, delay=2)), leaves_after=1)

    assert handler.outcome == (told_at, ended_at)


@pytest.mark.parametrize(
    ("policy", "ended_at"), [("cancel", 5), ("ignore", 10), ("finish", 10), (Grace(9), 5)], ids=str
)
async def test_what_holds_when_a_grace_is_over_decides(policy: Any, ended_at: float) -> None:
    """
    A handler can still say that it must run to its end, or its route does so when it is found.
    """
    handler = Handler()
    app = changing(handler, RequestPolicy(on_disconnect=policy), after=2)

    await serve(RequestCancelationMiddleware(app, on_disconnect=Grace(4)), leaves_after=1)

    assert handler.outcome == (1, ended_at)


@pytest.mark.parametrize(
    ("limit", "status", "ended_at"), [(20, 200, 10), (None, 200, 10), (4, 504, 4), ("inherit", 504, 3)]
)
async def test_what_holds_when_a_commitment_is_over_decides(limit: Any, status: int, ended_at: float) -> None:
    """
    A handler can extend its time although that had passed, as long as nobody has stopped it.
    """
    handler = Handler()
    inner = changing(handler, RequestPolicy(timeout=limit), after=2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        commit(timeout=3)
        await inner(scope, receive, send)

    peer = await serve(RequestCancelationMiddleware(app, 1))

    assert (peer.status, handler.ended_at) == (status, ended_at)


async def test_a_timeout_of_nothing_lets_others_be_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Those who look for a route with a time limit let time pass, be the limit 0.
    """
    monkeypatch.setattr("hother.cancelable.asgi._policy._shortest", [0.0])

    peer = await serve(RequestCancelationMiddleware(routed(Handler(), after=1)))

    assert (peer.status, anyio.current_time()) == (200, 11)
