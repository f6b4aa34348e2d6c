"""What leaves the middleware: the application's own error, the server's own cancelation, nothing else."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from hother.cancelable import (
    Cancelation,
    CancelationError,
    CancelationReason,
    ManualCancelation,
    ShutdownCancelation,
    TimeoutCancelation,
)
from hother.cancelable.asgi import TOKEN_KEY, RequestCancelationMiddleware
from hother.cancelable.asgi._types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, Habits, Peer

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}


def failing(error: BaseException, *messages: Message) -> ASGIApp:
    """Make an application that sends *messages*, and raises *error*."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        await anyio.sleep(1)
        raise error

    return app


def late() -> TimeoutCancelation:
    return TimeoutCancelation(Cancelation(CancelationReason.TIMEOUT, "too slow"))


def stopped() -> ManualCancelation:
    return ManualCancelation(Cancelation(CancelationReason.MANUAL, "stopped"))


# --- The application's errors


@pytest.mark.parametrize("messages", [[], [START], [START, LAST]], ids=["before", "within", "after"])
@pytest.mark.parametrize(
    "error", [ValueError("broken"), OSError("disk full"), KeyboardInterrupt(), SystemExit(1)]
)
async def test_an_error_leaves_as_itself(error: BaseException, messages: list[Message]) -> None:
    """
    Not in a group, and with nothing about the middleware in its history.
    """
    peer = Peer()
    with pytest.raises(type(error)) as raised:
        await peer.run(RequestCancelationMiddleware(failing(error, *messages), default_timeout=30))

    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert peer.sent == messages


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_applications_group_leaves_as_itself(kind: Any) -> None:
    """
    It may contain anything, a cancelation error among others too.
    """
    error = ExceptionGroup("two", [ValueError("broken"), late()])

    peer = Peer(kind=kind)
    with pytest.raises(ExceptionGroup) as raised:
        await peer.run(RequestCancelationMiddleware(failing(error)))

    assert raised.value is error
    assert peer.sent == []


async def test_an_error_of_two_middlewares_is_still_a_single_one() -> None:
    """
    Neither adds a group.
    """
    error = ValueError("broken")
    twice = RequestCancelationMiddleware(RequestCancelationMiddleware(failing(error)))

    with pytest.raises(ValueError, match="broken") as raised:
        await Peer().run(twice)

    assert raised.value is error


async def test_an_error_in_the_cleanup_of_a_cancelled_handler_is_not_lost() -> None:
    """
    The client is answered, and the server sees the error.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    peer = Peer()
    with pytest.raises(ValueError, match="cleanup failed"):
        await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert peer.status == 504


async def test_an_error_after_the_disconnect_is_not_lost() -> None:
    """
    Although no client will hear of it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    peer = Peer()

    async def serve() -> None:
        with pytest.raises(ValueError, match="cleanup failed"):
            await peer.run(RequestCancelationMiddleware(app))

    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.sleep(1)
        peer.disconnect()

    assert peer.sent == []


# --- Cancelation errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (late(), 504),
        (stopped(), 503),
        (ShutdownCancelation(Cancelation(CancelationReason.SHUTDOWN)), 503),
        (CancelationError(Cancelation(CancelationReason.ERROR)), 503),
    ],
    ids=lambda value: str(getattr(value, "reason", value)),
)
async def test_a_cancelation_error_that_nobody_handles_is_an_outcome(
    error: CancelationError, status: int
) -> None:
    """
    Not a failure of the server.
    """
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(failing(error)))

    assert (peer.status, peer.json["reason"]) == (status, error.reason.value)


async def test_a_group_of_cancelation_errors_is_an_outcome_too() -> None:
    """
    Of the first of them.
    """
    error = ExceptionGroup("all", [ExceptionGroup("inner", [late()]), stopped()])

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(failing(error)))

    assert (peer.status, peer.json["detail"]) == (504, "too slow")


async def test_a_cancelation_error_within_a_response_cuts_it_short() -> None:
    """
    Quietly: nothing more is sent, and nothing is raised.
    """
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(failing(late(), START, PART)))

    assert peer.sent == [START, PART]


@pytest.mark.parametrize("messages", [[], [START]], ids=["before", "within"])
async def test_an_error_that_a_cancelation_led_to_leaves_as_itself(messages: list[Message]) -> None:
    """
    Who catches a cancelation error and raises another one says that something failed.
    """
    error = RuntimeError("the backend did not answer")
    error.__cause__ = late()
    with pytest.raises(RuntimeError, match="the backend") as raised:
        await Peer().run(RequestCancelationMiddleware(failing(error, *messages)))

    assert raised.value is error


async def test_a_cancelation_error_of_a_background_task_is_a_failure() -> None:
    """
    Nobody waits for its outcome: the server must see it, or nobody would.
    """
    error = late()
    with pytest.raises(TimeoutCancelation) as raised:
        await Peer().run(RequestCancelationMiddleware(failing(error, START, LAST)))

    assert raised.value is error


async def test_a_cancelation_error_closes_a_websocket() -> None:
    """
    With the code of its reason.
    """
    peer = Peer(kind="websocket")
    await peer.run(RequestCancelationMiddleware(failing(stopped(), {"type": "websocket.accept"})))

    assert peer.closed == (1013, "stopped")


async def test_a_tied_operation_that_is_cancelled_is_an_outcome() -> None:
    """
    Without a word about it in the handler.
    """
    from hother.cancelable import Cancelable

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable(timeout=5, tokens=[scope[TOKEN_KEY]], name="secret operation"):
            await anyio.sleep_forever()

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert (peer.status, peer.json["detail"]) == (504, "timed out after 5 seconds")


async def test_a_handler_that_ends_quietly_when_cancelled_is_answered_for() -> None:
    """
    An answer is missing either way.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].cancel(message="stopped")

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert (peer.status, peer.json["detail"]) == (503, "stopped")


async def test_a_handler_that_forgets_to_answer_is_not_answered_for() -> None:
    """
    That is a mistake of the application, which the server reports.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    await peer.run(RequestCancelationMiddleware(app))

    assert peer.sent == []


# --- The server's cancelation


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize(
    "state",
    [
        "working",
        "answering",
        pytest.param(
            "cancelled",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="asyncio cannot tell two cancels of one tick apart"
            ),
        ),
    ],
)
async def test_a_task_that_the_server_cancels_ends_cancelled(state: str) -> None:
    """
    Also if the request was being cancelled by itself.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        peer.stall()
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    peer = Peer()
    server_task = asyncio.create_task(peer.run(RequestCancelationMiddleware(app, default_timeout=30)))
    if state == "answering":
        await anyio.sleep(31)
    else:
        await wait_all_tasks_blocked()
    if state == "cancelled":
        peer.scope[TOKEN_KEY].cancel()
    server_task.cancel("worker timeout")

    with pytest.raises(asyncio.CancelledError):
        await server_task
    assert server_task.cancelled()
    assert ended == ["CancelledError"]
    assert peer.sent == []


@pytest.mark.only_on("asyncio")
async def test_a_handler_hears_what_the_server_cancelled_its_task_with() -> None:
    """
    The message of ``Task.cancel()`` arrives.
    """
    messages: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError as error:
            messages.append(error.args)
            raise

    server_task = asyncio.create_task(Peer().run(RequestCancelationMiddleware(app)))
    await wait_all_tasks_blocked()
    server_task.cancel("worker timeout")

    with pytest.raises(asyncio.CancelledError):
        await server_task
    assert messages == [("worker timeout",)]


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_in_the_tick_of_our_own_is_not_swallowed() -> None:
    """
    AnyIO before 4.16 lost it (anyio #1214).
    """
    went_on: list[str] = []

    async def server(app: ASGIApp) -> None:
        await peer.run(app)
        await asyncio.sleep(HOUR)
        went_on.append("work")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    peer = Peer()
    server_task = asyncio.create_task(server(RequestCancelationMiddleware(app)))
    await wait_all_tasks_blocked()
    peer.disconnect()
    server_task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await server_task
    assert went_on == []


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_scope_that_the_server_cancels_ends_the_request(habits: Habits, kind: Any) -> None:
    """
    As the backend's own cancelation, which the scope catches; the token is left alone.
    """
    ended: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            ended.append(type(error))
            raise

    peer = Peer(kind=kind, habits=habits)
    with anyio.move_on_after(5) as server_scope:
        try:
            await peer.run(RequestCancelationMiddleware(app))
        except BaseException as error:
            ended.append(type(error))
            raise

    assert server_scope.cancelled_caught
    assert ended == [anyio.get_cancelled_exc_class()] * 2
    assert peer.sent == []
    assert not peer.scope[TOKEN_KEY].is_cancelled


async def test_the_servers_scope_bounds_a_handler_that_cleans_up_after_its_client() -> None:
    """
    A server that loses patience (gunicorn: after 3 seconds) can end what the disconnect did not.
    """
    cleaned: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
                cleaned.append("first")
            await anyio.sleep_forever()

    peer = Peer()
    with anyio.move_on_after(4):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
            await anyio.sleep(1)
            peer.disconnect()

    assert cleaned == ["first"]
    assert anyio.current_time() <= 4


async def test_errors_beside_a_server_cancelation_are_not_lost() -> None:
    """
    The handler's cleanup fails while the server cancels it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    caught: list[BaseException] = []
    with anyio.move_on_after(5):
        try:
            await Peer().run(RequestCancelationMiddleware(app))
        except BaseException as error:
            caught.append(error)

    assert [type(error) for error in caught] == [ValueError]


async def test_a_cancelled_sibling_of_a_failing_task_changes_nothing() -> None:
    """
    A task group of the application leaves with its error alone.
    """

    async def fail() -> None:
        raise ValueError("broken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            tasks.start_soon(fail)

    with pytest.raises(BaseExceptionGroup) as raised:
        await Peer().run(RequestCancelationMiddleware(app))

    assert [str(error) for error in raised.value.exceptions] == ["broken"]
