"""The middleware: its options, the token that it makes, and its place among others."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import CancelationReason, CancelationToken
from hother.cancelable.asgi import (
    TOKEN_KEY,
    ASGIApp,
    RequestCancelationMiddleware,
    current_request_token,
)
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, Habits, Peer
from tests.interruption import at_line

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"done"}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest ASGI application."""
    await send(START)
    await send(LAST)


# --- Its options


def test_its_first_parameters_are_the_published_ones() -> None:
    """
    All others are by keyword only, and have a default.
    """
    app, default_timeout, *others = inspect.signature(RequestCancelationMiddleware).parameters.values()

    assert (app.name, app.default) == ("app", inspect.Parameter.empty)
    assert (default_timeout.name, default_timeout.default) == ("default_timeout", None)
    assert {other.kind for other in others} == {inspect.Parameter.KEYWORD_ONLY}
    assert inspect.Parameter.empty not in {other.default for other in others}


@pytest.mark.parametrize("app", [None, "app", object, RequestCancelationMiddleware, lambda scope: None])
def test_what_is_no_asgi_application_is_refused(app: Any) -> None:
    """
    At once, not at the first request.
    """
    with pytest.raises(TypeError, match="ASGI 3 application"):
        RequestCancelationMiddleware(app)


def test_an_application_that_tells_no_signature_is_accepted() -> None:
    """
    Some are compiled.
    """

    class Compiled:
        @property
        def __signature__(self) -> None:
            raise ValueError("no signature found")

        async def __call__(self, *args: Any) -> None: ...

    app = Compiled()

    assert RequestCancelationMiddleware(app).app is app


@pytest.mark.parametrize(
    "name", ["default_timeout", "websocket_timeout", "answer_timeout", "websocket_grace"]
)
@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("30", TypeError), (True, TypeError), ([], TypeError)],
)
def test_timeouts_are_checked(name: str, value: Any, error: type[Exception]) -> None:
    """
    The error names the option.
    """
    with pytest.raises(error, match=name):
        RequestCancelationMiddleware(answer, **{name: value})


@pytest.mark.parametrize("value", [-1, 1.5, "64k", None])
def test_read_ahead_is_checked(value: Any) -> None:
    """
    It is a number of bytes.
    """
    with pytest.raises((TypeError, ValueError), match="read_ahead"):
        RequestCancelationMiddleware(answer, read_ahead=value)


@pytest.mark.parametrize("name", ["on_disconnect", "on_shutdown"])
@pytest.mark.parametrize("value", ["", "abort", 5.0, True])
def test_what_becomes_of_handlers_is_checked(name: str, value: Any) -> None:
    """
    The error names the choices.
    """
    with pytest.raises(ValueError, match=f"{name} must be 'cancel', 'ignore', 'finish' or a Grace"):
        RequestCancelationMiddleware(answer, **{name: value})


# --- The token


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_token_is_in_the_scope_and_around_the_handler(kind: Any) -> None:
    """
    Frameworks look into the scope; code that has no scope asks for the current token.
    """
    tokens: list[CancelationToken | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tokens.extend([scope[TOKEN_KEY], current_request_token()])

    await Peer(kind=kind).run(RequestCancelationMiddleware(app))

    assert isinstance(tokens[0], CancelationToken)
    assert tokens[0] is tokens[1]
    assert TOKEN_KEY == "cancelation_token"


async def test_tasks_of_a_request_see_its_token_and_others_do_not() -> None:
    """
    Two requests at once do not mix.
    """
    tokens: dict[str, set[CancelationToken | None]] = {"a": set(), "b": set()}

    async def look(name: str) -> None:
        await anyio.sleep(1)
        tokens[name].add(current_request_token())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"]
        tokens[name].add(scope[TOKEN_KEY])
        async with create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(look, name)
        await look(name)
        await answer(scope, receive, send)

    middleware = RequestCancelationMiddleware(app)
    async with create_task_group() as tasks:
        for name in tokens:
            tasks.start_soon(Peer(path=name).run, middleware)

    assert [len(seen) for seen in tokens.values()] == [1, 1]
    assert tokens["a"] != tokens["b"]


async def test_after_a_request_there_is_no_current_token() -> None:
    """
    The task that served it may serve another, or do something else.
    """
    assert current_request_token() is None

    await Peer().run(RequestCancelationMiddleware(answer))

    assert current_request_token() is None


async def test_whoever_has_the_token_can_cancel_the_request() -> None:
    """
    The handler is cancelled, and its client is told why, but not by whom.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.scope[TOKEN_KEY].cancel(message="too expensive", by="alice")

    assert anyio.current_time() == 1
    assert (peer.status, peer.json["detail"]) == (503, "too expensive")
    assert "alice" not in str(peer.sent)


async def test_a_handler_can_cancel_its_own_request() -> None:
    """
    It is interrupted at its next checkpoint.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope[TOKEN_KEY].cancel(CancelationReason.CONDITION, "nothing to do")
        await anyio.sleep(HOUR)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert anyio.current_time() == 0
    assert (peer.status, peer.json["reason"]) == (503, "condition")


@pytest.mark.real_time
async def test_a_thread_can_cancel_a_request() -> None:
    """
    The loop is woken for it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(scope[TOKEN_KEY].cancel)
        await anyio.sleep(HOUR)

    peer = Peer()
    with anyio.fail_after(5):
        await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 503


@pytest.mark.real_time
async def test_a_thread_may_be_too_late() -> None:
    """
    The request is over when the loop hears of it: nothing happens.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)
        thread = threading.Thread(target=scope[TOKEN_KEY].cancel)
        thread.start()
        thread.join()  # the loop cannot run meanwhile

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 200


@pytest.mark.real_time
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_a_request_is_cancelled_once_if_others_cancel_it_in_the_midst_of_that(
    in_a_thread: bool,
) -> None:
    """
    A signal handler or a thread, at any line: it is answered once, for one of the two reasons.
    """
    line, reached = 0, True
    while reached:
        line += 1
        peer = Peer(strict=True)

        def cancel(peer: Peer = peer) -> None:
            peer.scope[TOKEN_KEY].cancel(CancelationReason.SIGNAL)

        def have_it_cancelled(cancel: Callable[[], None] = cancel) -> None:
            thread = threading.Thread(target=cancel)
            thread.start()
            thread.join()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal reached
            await anyio.lowlevel.checkpoint()
            with at_line(line, have_it_cancelled if in_a_thread else cancel) as where:  # noqa: B023
                scope[TOKEN_KEY].cancel()
            reached = bool(where)
            await anyio.sleep(HOUR)

        with anyio.fail_after(5):
            await peer.run(RequestCancelationMiddleware(app))
        assert (peer.status, peer.json["reason"]) in {(503, "manual"), (503, "signal")}
        assert peer.scope[TOKEN_KEY].statistics().callbacks == 0

    assert line > 30


async def test_a_failing_callback_on_the_token_is_reported_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    It is the application's, but there is no application code to raise it in.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: reported.append(args[1]))
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].add_callback(lambda _: 1 / 0)
        try:
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert ended_at == [1]


# --- Its place


async def test_other_scopes_pass_untouched() -> None:
    """
    Whatever a server may send.
    """
    calls: list[tuple[Any, ...]] = []

    async def app(*args: Any) -> None:
        calls.append(args)

    async def receive() -> Message:
        raise AssertionError("the application did not ask")

    async def send(message: Message) -> None: ...

    scope: Scope = {"type": "telephone"}
    await RequestCancelationMiddleware(app)(scope, receive, send)

    assert calls == [(scope, receive, send)]
    assert scope == {"type": "telephone"}


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_installed_twice_it_still_works(habits: Habits) -> None:
    """
    A body, a disconnect: seen by both, and the handler ends once.
    """
    ended: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"body"
        try:
            await anyio.sleep(HOUR)
        finally:
            ended.append(anyio.current_time())

    peer = Peer(b"body", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(RequestCancelationMiddleware(app)))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended == [1]


async def test_the_inner_of_two_has_a_token_of_its_own() -> None:
    """
    The outer token cancels it; and afterwards, the outer token is back in its place.
    """
    tokens: list[CancelationToken] = []

    def look(app: ASGIApp) -> ASGIApp:
        async def looking(scope: Scope, receive: Receive, send: Send) -> None:
            tokens.append(scope[TOKEN_KEY])
            await app(scope, receive, send)
            tokens.append(scope[TOKEN_KEY])

        return looking

    inner = RequestCancelationMiddleware(look(answer))
    outer = RequestCancelationMiddleware(look(inner))
    await Peer().run(outer)

    outer_before, inner_before, inner_after, outer_after = tokens
    assert outer_before is outer_after
    assert inner_before is inner_after
    assert inner_before is not outer_before

    inner_before.cancel()
    assert not outer_before.is_cancelled


async def test_the_inner_of_two_deadlines_holds() -> None:
    """
    Be it the shorter or the longer one; where it is not set, the outer one does.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)

    for outer, inner in [(0.1, 1), (10, 1), (1, 1), (None, 1), (1, None)]:
        peer = Peer()
        started = anyio.current_time()
        await peer.run(
            RequestCancelationMiddleware(RequestCancelationMiddleware(app, inner), default_timeout=outer)
        )

        assert anyio.current_time() == started + 1
        assert (peer.status, peer.json["reason"]) == (504, "timeout")
        assert len(peer.sent) == 2


async def test_with_two_a_waiting_websocket_handler_still_gets_its_message() -> None:
    """
    It hears of the end as ``websocket.disconnect``, as it does with one.
    """
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        messages.append(await receive())
        await anyio.sleep(1)
        messages.append(await receive())

    peer = Peer(kind="websocket")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(RequestCancelationMiddleware(app)))
        await wait_all_tasks_blocked()
        peer.disconnect(1001)

    assert [message["code"] for message in messages] == [1001, 1001]


async def test_a_request_whose_token_was_cancelled_before_is_answered() -> None:
    """
    An outer layer may refuse work: the application gets no further than its first checkpoint.
    """
    token = CancelationToken()
    token.cancel(CancelationReason.SHUTDOWN)
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.lowlevel.checkpoint()
        reached.append("work")

    peer = Peer()
    peer.scope[TOKEN_KEY] = token
    await peer.run(RequestCancelationMiddleware(app))

    assert reached == []
    assert (peer.status, peer.headers["retry-after"]) == (503, "1")


async def test_a_scope_with_something_else_in_the_place_of_the_token_is_refused_cleanly() -> None:
    """
    Nothing stays open around the caller.
    """
    peer = Peer()
    peer.scope[TOKEN_KEY] = "something else"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("called")

    with anyio.CancelScope():
        with pytest.raises(AttributeError):
            await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
        await checkpoint()
