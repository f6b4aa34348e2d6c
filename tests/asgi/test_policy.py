"""Policies: what a route and an application may decide about a request, and who of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from hother.cancelable import Cancelable, CancelationToken, DisconnectCancelation
from hother.cancelable.asgi import (
    TOKEN_KEY,
    ASGIApp,
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    apply_policy,
    clean_up_with,
    commit,
    current_request_token,
)
from hother.cancelable.asgi._policy import MARK, policy_of
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, Habits, Peer

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


class Handler:
    """An endpoint that works for ten seconds, and answers."""

    def __init__(self) -> None:
        self.told_at: float | None = None
        self.ended_at = -1.0
        self.has_finished = False
        self.token = CancelationToken()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.token = scope[TOKEN_KEY]
        start = anyio.current_time()
        self.token.add_callback(lambda _: setattr(self, "told_at", anyio.current_time() - start))
        try:
            await anyio.sleep(10)
            self.has_finished = True
            await send(START)
            await send(LAST)
        finally:
            self.ended_at = anyio.current_time() - start

    @property
    def outcome(self) -> tuple[float | None, float]:
        """When the token was cancelled, and when the handler ended."""
        return self.told_at, self.ended_at


def routed(endpoint: ASGIApp, *, after: float = 0) -> ASGIApp:
    """An application that routes all requests to *endpoint*, some seconds after they began."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(after)
        scope["endpoint"] = endpoint
        await endpoint(scope, receive, send)

    return app


async def serve(app: ASGIApp, *, leaves_after: float = inf, **options: Any) -> Peer:
    """Serve one request of a client that may leave."""
    peer = Peer(**options)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        with anyio.move_on_after(leaves_after):
            await peer.until(lambda: peer.returned)
        if not peer.returned:
            peer.disconnect()
    return peer


# --- The client leaves


@every_server
@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        ("cancel", (1, 1)),
        ("ignore", (1, 10)),
        ("finish", (None, 10)),
        (Grace(3), (1, 4)),
        (Grace(3, delay=2), (3, 6)),
        (Grace(0), (1, 1)),
        (Grace(20), (1, 10)),
        (Grace(1, delay=20), (None, 10)),
    ],
    ids=str,
)
async def test_a_policy_says_what_becomes_of_the_handler(
    policy: Any, outcome: tuple[float | None, float], habits: Habits
) -> None:
    """
    When its token is cancelled, and when it is stopped; nothing is sent in any case.
    """
    handler = Handler()

    peer = await serve(
        RequestCancelationMiddleware(handler, on_disconnect=policy), leaves_after=1, habits=habits
    )

    assert handler.outcome == outcome
    assert handler.has_finished is (outcome[1] == 10)
    assert peer.sent == []


async def test_finish_leaves_alone_what_is_tied_to_the_token_and_ignore_does_not() -> None:
    """
    That is the difference between the two.
    """
    ended: dict[str, str] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"]
        try:
            async with Cancelable.with_token(scope[TOKEN_KEY]):
                await anyio.sleep(10)
            ended[name] = "finished"
        except DisconnectCancelation:
            ended[name] = "stopped"
            raise

    await serve(RequestCancelationMiddleware(app, on_disconnect="finish"), leaves_after=1, path="/finish")
    await serve(RequestCancelationMiddleware(app, on_disconnect="ignore"), leaves_after=1, path="/ignore")

    assert ended == {"/finish": "finished", "/ignore": "stopped"}


@pytest.mark.parametrize("policy", ["ignore", "finish", Grace(8)], ids=str)
async def test_the_timeout_bounds_every_policy(policy: Any) -> None:
    """
    Nobody else would end the handler.
    """
    handler = Handler()

    await serve(RequestCancelationMiddleware(handler, 5, on_disconnect=policy), leaves_after=1)

    assert handler.ended_at == 5


async def test_a_websocket_handler_has_its_grace() -> None:
    """
    It may go on sending, to nobody, until then.
    """
    sent_until = -1.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent_until
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            sent_until = anyio.current_time()
            await anyio.sleep(0.5)

    await serve(
        RequestCancelationMiddleware(app, on_disconnect=Grace(2.2)), leaves_after=1.1, kind="websocket"
    )

    assert sent_until == 3


# --- Who decides


@pytest.mark.parametrize(
    ("inner", "outer", "route", "ended_at"),
    [
        (None, None, None, 1),
        (None, "finish", None, 10),
        ("finish", None, None, 10),
        ("finish", "cancel", None, 10),
        ("cancel", "finish", None, 1),
        ("cancel", "finish", "finish", 10),
        (None, "finish", "cancel", 1),
        ("finish", "finish", Grace(4), 5),
    ],
)
async def test_the_innermost_statement_wins(inner: Any, outer: Any, route: Any, ended_at: float) -> None:
    """
    The route's, then the inner middleware's, then the outer one's; who says nothing is not asked.
    """
    handler = Handler()
    RequestPolicy(on_disconnect=route)(handler)
    app = RequestCancelationMiddleware(routed(handler), on_disconnect=inner)

    await serve(RequestCancelationMiddleware(app, on_disconnect=outer), leaves_after=1)

    assert handler.ended_at == ended_at


async def test_each_field_is_decided_by_itself() -> None:
    """
    A route that states a timeout does not state what a disconnect means.
    """
    handler = Handler()
    RequestPolicy(timeout=3)(handler)
    middleware = RequestCancelationMiddleware(routed(handler), 2, on_disconnect="finish")

    await serve(middleware, leaves_after=1)

    assert handler.outcome == (3, 3)


# --- The timeout


@pytest.mark.parametrize(
    ("default", "route", "status", "ended_at"),
    [
        (2, 5, 504, 5),
        (5, 2, 504, 2),
        (None, 2, 504, 2),
        (2, None, 200, 10),
        (2, inf, 200, 10),
        (2, timedelta(seconds=4), 504, 4),
        (2, "inherit", 504, 2),
        (None, "inherit", 200, 10),
    ],
)
@pytest.mark.parametrize("routed_after", [0, 1.5])
async def test_a_route_has_a_timeout_of_its_own(
    default: Any, route: Any, status: int, ended_at: float, routed_after: float
) -> None:
    """
    Longer, shorter or none at all; it counts from the request's start, whenever it was routed.
    """
    handler = Handler()
    RequestPolicy(timeout=route)(handler)
    app = routed(handler, after=routed_after)

    peer = await serve(RequestCancelationMiddleware(app, default))

    assert peer.status == status
    assert anyio.current_time() == (ended_at if status == 504 else 10 + routed_after)


async def test_a_route_that_is_found_too_late_has_timed_out() -> None:
    """
    What ran before it counts; the look at the clock may be late by as much as that took.
    """
    handler = Handler()
    RequestPolicy(timeout=2)(handler)

    peer = await serve(RequestCancelationMiddleware(routed(handler, after=3)))

    assert peer.status == 504
    assert 3 < anyio.current_time() <= 6


async def test_a_handler_can_extend_its_timeout() -> None:
    """
    Or shorten it, or end it; from the request's start.
    """
    statuses: list[int | None] = []
    for limit in (5, 1, None):
        handler = Handler()

        async def app(scope: Scope, receive: Receive, send: Send, limit: Any = limit) -> None:
            await anyio.sleep(0.5)
            apply_policy(RequestPolicy(timeout=limit))
            await handler(scope, receive, send)  # noqa: B023

        start = anyio.current_time()
        peer = await serve(RequestCancelationMiddleware(RequestCancelationMiddleware(app, 2), 3))
        statuses.append(peer.status)
        assert anyio.current_time() - start == (10.5 if limit is None else limit)

    assert statuses == [504, 504, 200]


async def test_a_policy_that_is_applied_before_the_first_wait_holds() -> None:
    """
    No matter how early.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        apply_policy(RequestPolicy(timeout=1))
        await anyio.sleep(10)

    peer = await serve(RequestCancelationMiddleware(app))

    assert (peer.status, anyio.current_time()) == (504, 1)


async def test_outside_of_a_request_nothing_is_applied_and_nothing_committed() -> None:
    """
    Code that is shared with a command line need not know where it runs.
    """
    apply_policy(RequestPolicy(timeout=1))
    commit()

    assert not clean_up_with(anyio.lowlevel.checkpoint)


# --- Commitments


def committing(then: Callable[[], Awaitable[object]], *, timeout: float = 30, after: float = 1) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(after)
        commit(timeout=timeout)
        await then()
        await send(START)
        await send(LAST)

    return app


@every_server
async def test_a_committed_handler_runs_to_its_end_without_its_client(habits: Habits) -> None:
    """
    Its token is not cancelled either, so that what is tied to it goes on.
    """
    cancelled: list[bool] = []

    async def work() -> None:
        await anyio.sleep(10)
        token = current_request_token()
        assert token is not None
        cancelled.append(token.is_cancelled)

    await serve(RequestCancelationMiddleware(committing(work)), leaves_after=2, habits=habits)

    assert cancelled == [False]
    assert anyio.current_time() == 11


async def test_a_committed_handler_may_be_late() -> None:
    """
    Its answer is better than a 504, which would not be true.
    """
    peer = await serve(RequestCancelationMiddleware(committing(partial(anyio.sleep, 10)), 5))

    assert (peer.status, peer.body) == (200, b"last")


async def test_what_happened_meanwhile_takes_effect_when_a_commitment_is_over() -> None:
    """
    Nothing runs for ever.
    """
    app = committing(anyio.sleep_forever, timeout=3)

    late = await serve(RequestCancelationMiddleware(app, 2))
    assert (late.status, anyio.current_time()) == (504, 4)

    await serve(RequestCancelationMiddleware(app), leaves_after=2)
    assert anyio.current_time() == 4 + 4


async def test_whoever_cancels_by_hand_stops_a_committed_handler() -> None:
    """
    An operator knows what they do.
    """
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(committing(anyio.sleep_forever)))
        await anyio.sleep(2)
        peer.scope[TOKEN_KEY].cancel()

    assert (peer.status, anyio.current_time()) == (503, 2)


async def test_it_is_too_late_to_commit_once_the_handler_was_stopped() -> None:
    """
    Then nothing has happened that would have to be undone.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(10)
        finally:
            with pytest.raises(DisconnectCancelation):
                commit()
            steps.append("refused")

    await serve(RequestCancelationMiddleware(RequestCancelationMiddleware(app)), leaves_after=1)

    assert steps == ["refused"]


@pytest.mark.parametrize("policy", ["ignore", Grace(5)], ids=str)
async def test_a_handler_that_only_its_token_was_cancelled_of_may_commit(policy: Any) -> None:
    """
    Its policy lets it go on, and the commitment for longer.
    """
    app = committing(partial(anyio.sleep, 8), after=2)

    await serve(RequestCancelationMiddleware(app, on_disconnect=policy), leaves_after=1)

    assert anyio.current_time() == 10


async def test_a_commitment_reaches_the_middlewares_around() -> None:
    """
    All of them would stop the handler.
    """
    app = committing(partial(anyio.sleep, 10))

    peer = await serve(RequestCancelationMiddleware(RequestCancelationMiddleware(app, 3), 2))

    assert peer.status == 200


async def test_a_websocket_handler_that_is_told_of_the_end_may_commit() -> None:
    """
    The time it has to end by itself is no less than what it commits to.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        commit()
        await anyio.sleep(20)
        steps.append("saved")

    await serve(RequestCancelationMiddleware(app), leaves_after=1, kind="websocket")

    assert steps == ["saved"]


async def test_a_committed_websocket_handler_may_send_to_nobody() -> None:
    """
    Sending does not end it.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        commit()
        await anyio.sleep(2)
        await send({"type": "websocket.send", "text": "saving"})
        await anyio.sleep(2)
        steps.append("saved")

    await serve(RequestCancelationMiddleware(app), leaves_after=1, kind="websocket")

    assert steps == ["saved"]


@pytest.mark.real_time
async def test_a_thread_can_commit() -> None:
    """
    As a ``def`` endpoint would.
    """

    async def threaded(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(commit)
        await anyio.sleep(0.2)
        await send(START)
        await send(LAST)

    peer = await serve(RequestCancelationMiddleware(threaded, 0.1))

    assert peer.status == 200


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (nan, ValueError), (inf, ValueError), ("1", TypeError)]
)
def test_the_limit_of_a_commitment_is_checked(timeout: Any, error: type[Exception]) -> None:
    """
    Outside of a request, too.
    """
    with pytest.raises(error):
        commit(timeout=timeout)


# --- Clean-up


async def clean_up_and_work(steps: list[str]) -> None:
    """Work for ten seconds, with three things to clean up."""

    async def first() -> None:
        await anyio.sleep(1)
        steps.append("first")
        raise ZeroDivisionError

    async def second() -> None:
        await anyio.sleep(1)
        steps.append("second")

    for task in (first, anyio.sleep_forever, second):
        assert clean_up_with(task)
    await anyio.sleep(10)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """
    The errors that nobody could handle.
    """
    errors: list[type[BaseException]] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: errors.append(args[0]))
    return errors


@pytest.mark.parametrize(
    ("leaves_after", "timeout", "server_waits"),
    [(inf, None, inf), (2, None, inf), (inf, 5, inf), (inf, None, 3)],
)
async def test_clean_up_runs_however_the_request_ends(
    leaves_after: float, timeout: float | None, server_waits: float, reported: list[type[BaseException]]
) -> None:
    """
    In order, with time to wait but not for ever; an error does not keep the next from running.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await clean_up_and_work(steps)
        await send(START)
        await send(LAST)

    with anyio.move_on_after(server_waits):
        await serve(RequestCancelationMiddleware(app, timeout), leaves_after=leaves_after)

    assert steps == ["first", "second"]
    assert reported == [ZeroDivisionError]


async def test_clean_up_does_not_hide_the_error_of_the_application(
    reported: list[type[BaseException]],
) -> None:
    """
    It leaves the middleware as it is.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(0):
            await clean_up_and_work(steps)
        raise KeyError

    with pytest.raises(KeyError):
        await Peer().run(RequestCancelationMiddleware(app))

    assert steps == ["first", "second"]
    assert reported == [ZeroDivisionError]


# --- The mark


def endpoint() -> None: ...


class View:
    """An endpoint that is a class, as Starlette has them."""

    async def get(self) -> None: ...

    @RequestPolicy(timeout=2)
    async def post(self) -> None: ...


def test_a_mark_leaves_the_endpoint_what_it_is() -> None:
    """
    Its signature, its name and its identity.
    """

    async def function(a: int) -> str:
        return str(a)

    assert RequestPolicy(timeout=1)(function) is function
    assert policy_of({"endpoint": function, "method": "GET"}) == RequestPolicy(timeout=1)


def test_one_policy_may_serve_many_and_several_one() -> None:
    """
    What two of them state, the inner one decides.
    """
    slow = RequestPolicy(timeout=100, on_disconnect="finish")

    @slow
    @RequestPolicy(timeout=None)
    def first() -> None: ...

    @slow
    def second() -> None: ...

    assert policy_of({"endpoint": first}) == RequestPolicy(timeout=None, on_disconnect="finish")
    assert policy_of({"endpoint": second}) == slow


def test_marks_are_found_on_classes_their_methods_and_in_partials() -> None:
    """
    Wherever a framework's endpoint comes from.
    """
    RequestPolicy(timeout=1, on_shutdown="ignore")(View)

    assert policy_of({"endpoint": View, "method": "GET"}) == RequestPolicy(timeout=1, on_shutdown="ignore")
    assert policy_of({"endpoint": View, "method": "POST"}) == RequestPolicy(timeout=2, on_shutdown="ignore")
    assert policy_of({"endpoint": partial(partial(View)), "method": "GET"}) is not None
    assert policy_of({"endpoint": endpoint, "method": "GET"}) is None
    assert policy_of({}) is None


@pytest.mark.parametrize("thing", [None, "endpoint", 5])
def test_only_what_can_be_called_can_be_marked(thing: Any) -> None:
    """
    A policy is no endpoint's wrapper, but it decorates.
    """
    with pytest.raises(TypeError, match="decorates endpoints"):
        RequestPolicy()(thing)


def test_what_has_no_room_for_a_mark_is_refused() -> None:
    """
    The error tells what to mark instead.
    """
    with pytest.raises(TypeError, match="mark the function that it calls"):
        RequestPolicy()(View().get)
    assert not hasattr(View.get, MARK)


@pytest.mark.parametrize("options", [{"on_disconnect": "stop"}, {"on_shutdown": 1.0}, {"timeout": -1}])
def test_a_policy_is_checked(options: Any) -> None:
    """
    When it is made.
    """
    with pytest.raises(ValueError, match=next(iter(options))):
        RequestPolicy(**options)


@pytest.mark.parametrize("value", [-1, nan, inf])
def test_a_grace_is_a_finite_time(value: float) -> None:
    """
    For ever has a name of its own.
    """
    with pytest.raises(ValueError, match="seconds"):
        Grace(value)
    with pytest.raises(ValueError, match="delay"):
        Grace(1, delay=value)


def test_only_policies_are_applied() -> None:
    """
    A number is none.
    """
    with pytest.raises(TypeError, match="RequestPolicy"):
        apply_policy(5)  # type: ignore[arg-type]
