"""When a request is monitored: at once while few are open, and in a crowd once it has lasted."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope, create_task_group, wait_all_tasks_blocked

from hother.cancelable import Cancelable, CancelationToken
from hother.cancelable.asgi import (
    TOKEN_KEY,
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    _crowd,
    _late_scope,
    _policy,
)
from hother.cancelable.asgi._crowd import FEW, LONGEST, PATIENCE, TURNS
from hother.cancelable.asgi._late_scope import note_place
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, UVICORN, Habits, Peer
from tests.sweep import cancelling_at, every_checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


@pytest.fixture(autouse=True)
def _nobody_has_stated_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Other tests have, in the process that they share.
    """
    monkeypatch.setattr(_policy, "_shortest", [inf])


@pytest.fixture(params=["crowd", "eager crowd"])
def crowded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So many requests are open that each has to last before it is monitored.
    """
    monkeypatch.setattr(_crowd, "FEW", 0)
    if request.param == "eager crowd":
        monkeypatch.setattr(_late_scope, "_works", False)
        monkeypatch.setattr(_late_scope, "_works_in_trio", False)


crowds = pytest.mark.usefixtures("crowded")


async def a_moment() -> None:
    """Give others some turns, in which no time passes."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


class Handler:
    """An application that waits, and notes when that ended."""

    def __init__(self, seconds: float = HOUR) -> None:
        self.seconds = seconds
        self.ended_at = -1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(self.seconds)
            await send(START)
            await send(LAST)
        finally:
            self.ended_at = anyio.current_time()


# --- Few


@pytest.mark.only_on("asyncio")
async def test_a_request_that_does_not_wait_is_not_monitored() -> None:
    """
    No task is started for it, and nothing is read.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)

    tasks_before = len(anyio.get_running_tasks())
    peer = Peer()
    steps = RequestCancelationMiddleware(app, 30.0)(peer.scope, peer.receive, peer.send)
    with pytest.raises(StopIteration):
        steps.send(None)

    assert peer.complete
    assert peer.received == peer.receiving == 0
    assert len(anyio.get_running_tasks()) == tasks_before


async def test_while_few_requests_are_open_each_is_monitored_at_once() -> None:
    """
    And the others once they have lasted, though the few are monitored by then.
    """
    peers = [Peer() for _ in range(FEW + 3)]
    async with create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(Handler()))
        await anyio.sleep(PATIENCE / 2)
        assert [peer.receiving for peer in peers].count(1) in {0, FEW}
        await anyio.sleep(PATIENCE)
        assert [peer.receiving for peer in peers] == [1] * len(peers)
        tasks.cancel_scope.cancel()


async def test_a_request_that_but_takes_turns_is_not_monitored() -> None:
    """
    As those of Hypercorn's on Trio, where all that sends takes a turn. It is not for ever, though.
    """
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            seen.append(peer.receiving)
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()
        seen.append(peer.receiving)
        await send(START)
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert seen[-1] == 1
    assert not any(seen[:3]) or note_place() is not None


@pytest.mark.only_on("trio")
@pytest.mark.parametrize("turns", range(4))
async def test_a_request_that_waits_after_some_turns_is_monitored_at_once(turns: int) -> None:
    """
    Its client's leaving ends it, and so does its deadline, which counts from its beginning.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        await handler(scope, receive, send)

    handler = Handler()
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await wait_all_tasks_blocked()
        assert peer.receiving == 1
        peer.disconnect()

    assert handler.ended_at == 0


async def test_a_thread_may_cancel_while_the_application_takes_turns() -> None:
    """
    It is told of the loop with the first of them.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.lowlevel.checkpoint()
        thread = threading.Thread(target=scope[TOKEN_KEY].cancel)
        thread.start()
        thread.join()
        await work(ended, "handler")

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert ended == ["handler"]
    assert peer.status == 503


async def test_a_last_message_is_handed_over_before_the_request_is_monitored() -> None:
    """
    If it gets stuck, it is abandoned once the client has left, and been given the time for answers.
    """
    steps: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        steps.append(anyio.current_time())

    async def stuck(message: Message) -> None:
        if message == LAST:
            await anyio.sleep(HOUR)

    peer = Peer()
    async with create_task_group() as tasks:
        middleware = RequestCancelationMiddleware(app, answer_timeout=5)
        tasks.start_soon(middleware, peer.scope, peer.receive, stuck)
        await a_moment()
        assert peer.receiving == 0
        peer.disconnect()

    assert steps == [pytest.approx(PATIENCE + 5)]


# --- In a crowd


@crowds
@every_server
async def test_a_client_that_leaves_early_is_noticed_when_its_request_has_lasted(habits: Habits) -> None:
    """
    Not before: nobody listens.
    """
    handler = Handler()
    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler))
        await anyio.sleep(PATIENCE / 2)
        assert peer.receiving == peer.received == 0
        peer.disconnect()

    assert handler.ended_at == pytest.approx(PATIENCE)
    assert peer.sent == []
    assert peer.scope[TOKEN_KEY].is_cancelled


@crowds
async def test_a_request_that_is_over_soon_is_never_monitored() -> None:
    """
    Nor does anything of it keep the loop awake: the clock would go on.
    """
    peers = [Peer() for _ in range(20)]
    async with create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(Handler(PATIENCE * 0.9), 30.0))

    assert anyio.current_time() == pytest.approx(PATIENCE * 0.9)
    assert [peer.received for peer in peers] == [0] * 20
    assert [peer.status for peer in peers] == [200] * 20


@crowds
async def test_each_request_has_to_last_by_itself() -> None:
    """
    One timer serves them all, in the order in which they came.
    """
    peers = [Peer() for _ in range(5)]
    async with create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(Handler()))
            await anyio.sleep(PATIENCE / 4)
        await anyio.sleep(PATIENCE / 8)
        seen = []
        for _ in range(5):
            seen.append(sum(peer.receiving for peer in peers))
            await anyio.sleep(PATIENCE / 4)
        tasks.cancel_scope.cancel()

    assert seen == [2, 3, 4, 5, 5]


class Application(Handler):
    """The same, with a lifespan that ends whenever it likes."""

    def __init__(self, seconds: float = HOUR) -> None:
        super().__init__(seconds)
        self.is_up = anyio.Event()
        self.may_end = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        async with create_task_group() as tasks:
            tasks.start_soon(self._listen, receive)
            await a_moment()
            self.is_up.set()
            await self.may_end.wait()
            tasks.cancel_scope.cancel()

    async def _listen(self, receive: Receive) -> None:
        await receive()

    async def run(self, middleware: Any) -> None:
        """Run its lifespan."""
        await middleware({"type": "lifespan", "state": {}}, anyio.sleep_forever, anyio.sleep)


@crowds
@pytest.mark.parametrize("ends_at", [None, 0.0, PATIENCE / 3])
@pytest.mark.parametrize("applications", [1, 2])
async def test_an_application_keeps_the_time_for_its_requests(
    ends_at: float | None, applications: int
) -> None:
    """
    On Trio, where there are no timers. When it ends before its requests, they help themselves.
    """
    apps = [Application() for _ in range(applications)]
    middlewares = [RequestCancelationMiddleware(app) for app in apps]
    peer = Peer()
    async with create_task_group() as tasks:
        for app, middleware in zip(apps, middlewares, strict=True):
            tasks.start_soon(app.run, middleware)
            await app.is_up.wait()
        for _ in range(3):  # the alarm may ring for one that is over
            short = Peer()
            await short.run(RequestCancelationMiddleware(Handler(PATIENCE * 0.4)))
            assert short.left_behind == []
        assert anyio.current_time() == pytest.approx(PATIENCE * 1.2)
        began = anyio.current_time()
        tasks.start_soon(peer.run, middlewares[-1])
        await a_moment()
        peer.disconnect()
        if ends_at is not None:
            await anyio.sleep(ends_at)
            apps[0].may_end.set()
        await peer.until(lambda: peer.returned)
        assert apps[-1].ended_at == pytest.approx(began + PATIENCE)
        for app in apps:
            app.may_end.set()

    assert peer.left_behind == []


@crowds
@pytest.mark.real_time
async def test_while_the_loop_is_late_requests_have_to_last_longer() -> None:
    """
    They wait for each other then, and more work would make that worse.
    """
    peer = Peer()
    with anyio.fail_after(30):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(Handler()))
            await anyio.lowlevel.checkpoint()
            time.sleep(0.1)  # noqa: ASYNC251 (somebody blocks the loop)
            await anyio.sleep(0.01)
            assert peer.receiving == 0
            await peer.until(lambda: peer.receiving)
            tasks.cancel_scope.cancel()


@crowds
@pytest.mark.parametrize("timeout", [0.0, PATIENCE / 3, PATIENCE, PATIENCE * 2, LONGEST, LONGEST * 2])
async def test_a_short_deadline_does_not_wait_for_its_turn(timeout: float) -> None:
    """
    Each is kept to the moment.
    """
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(Handler(), timeout))

    assert peer.status == 504
    assert anyio.current_time() == pytest.approx(timeout)


@crowds
@pytest.mark.parametrize("when", [0.0, PATIENCE / 2, PATIENCE, PATIENCE * 2])
@pytest.mark.parametrize("by", ["a task", "the loop"])
async def test_an_operator_is_heard_at_any_time(when: float, by: str) -> None:
    """
    Before the request is monitored, when it is about to be, and later.
    """
    handler = Handler()
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler))
        await wait_all_tasks_blocked()
        await anyio.sleep(when)
        cancelled_at = anyio.current_time()
        token: CancelationToken = peer.scope[TOKEN_KEY]
        if by == "a task":
            token.cancel(message="enough")
        else:
            token_of_loop = anyio.lowlevel.current_token()
            from hother.cancelable._core._wakeup import call_soon

            call_soon(token_of_loop, token.cancel)

    assert handler.ended_at == cancelled_at
    assert peer.status == 503


@crowds
async def test_an_application_that_waits_for_a_message_is_not_made_to_wait() -> None:
    """
    Its call starts the reader.
    """
    received: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.lowlevel.checkpoint()
        while (await receive())["more_body"]:
            received.append(anyio.current_time())
        await send(START)
        await send(LAST)

    peer = Peer(more=True)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await peer.until(lambda: peer.receiving)
        assert anyio.current_time() == 0
        peer.feed(b"one", more=True)
        await wait_all_tasks_blocked()
        peer.feed(b"two")

    assert received == [0]
    assert peer.status == 200


@crowds
async def test_a_probe_starts_the_reader() -> None:
    """
    Who polls is_disconnected() hears of it the next time it asks.
    """
    answers: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            message = None
            with CancelScope() as scope_of_probe:
                scope_of_probe.cancel()
                message = await receive()
            answers.append(message is not None)
            with CancelScope(shield=True):
                await anyio.sleep(PATIENCE / 4)

    peer = Peer(b"body")
    peer.disconnect()
    await peer.run(RequestCancelationMiddleware(app, on_disconnect=Grace(1e6)))

    assert answers == [False, True]
    assert anyio.current_time() < PATIENCE


async def work(ended: list[str], name: str) -> None:
    try:
        await anyio.sleep(HOUR)
    finally:
        ended.append(name)


async def in_group(ended: list[str]) -> None:
    async with create_task_group() as tasks:
        tasks.start_soon(work, ended, "child")
        await work(ended, "handler")


async def in_shield(ended: list[str]) -> None:
    with CancelScope(shield=True):
        await anyio.sleep(5)
        ended.append("child")
    await work(ended, "handler")


async def in_operation(ended: list[str]) -> None:
    try:
        async with Cancelable(timeout=2 * HOUR):
            await work(ended, "child")
    finally:
        ended.append("handler")


@crowds
@pytest.mark.parametrize("cause", ["operator", "disconnect", "deadline", "server"])
@pytest.mark.parametrize("waits", [in_group, in_shield, in_operation])
async def test_what_the_first_step_opened_ends_with_the_request(cause: str, waits: Any) -> None:
    """
    Task groups, shields and operations are inside of what stops the application.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await waits(ended)

    peer = Peer()
    with CancelScope() as server:
        async with create_task_group() as tasks:
            limit = 2.0 if cause == "deadline" else None
            tasks.start_soon(peer.run, RequestCancelationMiddleware(app, limit))
            await wait_all_tasks_blocked()
            acts = {"operator": peer.scope[TOKEN_KEY].cancel, "disconnect": peer.disconnect}
            acts.get(cause, server.cancel if cause == "server" else bool)()

    assert sorted(ended)[0] == "child"
    assert anyio.current_time() <= 5
    assert peer.status == {"operator": 503, "deadline": 504}.get(cause)


async def test_a_thread_may_cancel_in_the_first_step() -> None:
    """
    It does not know the loop by then; the request asks when it begins to wait.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        thread = threading.Thread(target=scope[TOKEN_KEY].cancel)
        thread.start()
        thread.join()
        await work(ended, "handler")

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert ended == ["handler"]
    assert peer.status == 503
    assert anyio.current_time() == 0


@crowds
@pytest.mark.parametrize("timeout", [PATIENCE / 2, None, "inherit", HOUR])
async def test_a_short_deadline_of_a_route_does_not_wait_for_its_turn(timeout: Any) -> None:
    """
    And does not hurry the requests of other routes.
    """
    endpoint = RequestPolicy(timeout=timeout)(lambda: None)
    RequestPolicy(timeout=PATIENCE / 2)(lambda: None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = endpoint
        await anyio.sleep(PATIENCE * 0.9)
        await send(START)
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    is_short = timeout == PATIENCE / 2
    assert peer.status == (504 if is_short else 200)
    assert anyio.current_time() == pytest.approx(PATIENCE / 2 if is_short else PATIENCE * 0.9)
    if note_place() is not None:  # else it was decided before there was a route
        assert bool(peer.received) == is_short


async def test_a_request_without_any_limit_has_no_timer() -> None:
    """
    Nobody has stated one in this process.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(1)
        assert scope["cancelation_exchange"]._course is None
        await send(START)
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 200


async def test_what_is_with_the_cancelation_in_a_group_leaves_the_request() -> None:
    """
    The scope takes out what is its own.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(HOUR)
        except BaseException as error:
            raise BaseExceptionGroup("both", [error, ValueError("broken")]) from None

    caught: list[BaseException] = []

    async def serve() -> None:
        try:
            await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
        except BaseException as error:
            caught.append(error)

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await wait_all_tasks_blocked()
        peer.scope[TOKEN_KEY].cancel()

    assert isinstance(caught[0], BaseExceptionGroup)
    assert [str(error) for error in caught[0].exceptions] == ["broken"]


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_while_an_answer_is_waited_for_is_not_lost() -> None:
    """
    Nothing outlives the request; then the server hears that its task was cancelled.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        peer.stall()
        with CancelScope(shield=True):
            await anyio.sleep(1.5)  # so that the answer is not its own task's business

    peer = Peer()
    middleware = RequestCancelationMiddleware(app, 1.0, answer_timeout=10)
    server = asyncio.create_task(peer.run(middleware))
    await anyio.sleep(2)
    server.cancel()
    await asyncio.wait([server])

    assert server.cancelled()
    assert anyio.current_time() == 11


@pytest.mark.only_on("asyncio")
async def test_an_application_may_be_any_awaitable() -> None:
    """
    Not all are coroutines.
    """
    peer = Peer()

    def app(scope: Scope, receive: Receive, send: Send) -> Any:
        return asyncio.ensure_future(send(START))

    await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)

    assert peer.status == 200


async def test_a_message_that_breaks_when_the_request_is_over_is_its_senders_affair() -> None:
    """
    The request has no use for the news.
    """
    caught: list[OSError] = []
    over = anyio.Event()

    async def broken(message: Message) -> None:
        await over.wait()
        raise OSError("the client has left")

    async def send_late(send: Send) -> None:
        try:
            await send(START)
        except OSError as error:
            caught.append(error)

    async with create_task_group() as tasks:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.start_soon(send_late, send)
            await wait_all_tasks_blocked()

        peer = Peer()
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, broken)
        over.set()

    assert len(caught) == 1


@crowds
@pytest.mark.parametrize("act", ["operator", "disconnect"])
async def test_at_every_checkpoint_it_ends_well(act: str) -> None:
    """
    Whatever the application is waiting for, and whether it is monitored by then.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, PATIENCE)
            await anyio.lowlevel.checkpoint()
        await receive()
        async with Cancelable.with_token(scope[TOKEN_KEY]):
            await anyio.sleep(PATIENCE)
        await send(START)
        await anyio.sleep(0.001)
        await send(LAST)
        await anyio.lowlevel.checkpoint()

    async def attempt(number: int) -> int:
        peer = Peer(b"body", habits=UVICORN)
        interrupt: Callable[[], Any] = (
            peer.disconnect if act == "disconnect" else lambda: peer.scope[TOKEN_KEY].cancel()
        )
        run = peer.run(RequestCancelationMiddleware(app))
        _, waits = await cancelling_at(number, interrupt, run)
        token: CancelationToken = peer.scope[TOKEN_KEY]
        assert token.statistics().callbacks == 0
        assert peer.complete or peer.status is None or token.is_cancelled
        return waits

    async for _ in every_checkpoint(attempt):
        pass


# --- Servers whose receive() may change tasks


class Stepping(Peer):
    """A peer whose ``receive()`` looks like uvicorn's, which may be ended by another task."""

    async def receive(self) -> Message:
        return await super().receive()

    receive.__module__ = "uvicorn.protocols.http.httptools_impl"


@pytest.mark.only_on("asyncio")
async def test_a_body_that_is_there_is_read_without_a_reader() -> None:
    """
    In the application's own step.
    """
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            bodies.append(message["body"])
            more = message["more_body"]
        assert peer.receiving == 0
        await send(START)
        await send(LAST)

    peer = Stepping(b"one", b"two")
    steps = RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
    with pytest.raises(StopIteration):
        steps.send(None)

    assert bodies == [b"one", b"two"]


@pytest.mark.only_on("asyncio")
async def test_a_call_that_the_application_began_is_ended_by_the_reader() -> None:
    """
    Nothing is cancelled and asked again, though the application loses its patience.
    """
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with anyio.move_on_after(1):
                await receive()
            assert peer.receiving == 1
        peer.feed(b"late", more=True)
        bodies.append((await receive())["body"])
        await anyio.sleep(1)
        peer.feed(b"later")
        bodies.append((await receive())["body"])
        await send(START)
        await send(LAST)

    peer = Stepping(more=True)
    await peer.run(RequestCancelationMiddleware(app))

    assert bodies == [b"late", b"later"]


@pytest.mark.only_on("asyncio")
async def test_a_probe_sees_at_once_what_the_server_knows() -> None:
    """
    In the first step, too; and the body before it is kept.
    """
    answers: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with CancelScope() as probe:
            probe.cancel()
            answers.append((await receive())["type"])
        answers.append((await receive())["type"])
        answers.append((await receive())["type"])

    peer = Stepping(b"body", habits=ALL_HABITS[1])
    peer.scope["http_version"] = "1.1"
    peer.habits = ALL_HABITS[3]
    peer.disconnect()
    await peer.run(RequestCancelationMiddleware(app, on_disconnect=Grace(1e6)))

    assert answers == ["http.disconnect", "http.request", "http.disconnect"]


@pytest.mark.only_on("asyncio")
async def test_an_error_of_the_server_is_raised_where_the_application_asks() -> None:
    """
    Each time.
    """

    class Broken:
        async def receive(self) -> Message:
            raise ConnectionResetError("no route")

        receive.__module__ = "uvicorn.protocols.http.h11_impl"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await receive()
        await send(START)
        await send(LAST)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, Broken().receive, peer.send)

    assert peer.status == 200


@pytest.mark.only_on("asyncio")
async def test_a_call_that_nobody_ends_is_closed() -> None:
    """
    The request is over before the reader has begun.
    """
    peer = Stepping(more=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        call: Any = receive()
        call.send(None)
        call.close()
        await send(START)
        await send(LAST)

    await peer.run(RequestCancelationMiddleware(app))

    assert peer.receiving == 0
    assert peer.status == 200


@pytest.mark.only_on("asyncio")
async def test_onlookers_do_not_fill_the_buffer() -> None:
    """
    Each of their questions would read another part.
    """
    peer = Stepping(b"one", b"two", b"three", more=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with CancelScope() as probe:
                probe.cancel()
                await receive()
            assert peer.received == 1
        await send(START)
        await send(LAST)

    await peer.run(RequestCancelationMiddleware(app, read_ahead=0))

    assert peer.status == 200
