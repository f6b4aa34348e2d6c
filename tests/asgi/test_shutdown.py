"""The server begins to stop: what requests hear of it, from whom, and who waits for them."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType, SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from hother.cancelable import Cancelation, CancelationReason, CancelationToken
from hother.cancelable.asgi import (
    TOKEN_KEY,
    ASGIApp,
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    begin_shutdown,
    commit,
    current_shutdown_token,
)
from hother.cancelable.asgi._lifespan import SIGNALS
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}


class Server:
    """The server's side of a lifespan."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.sent_at: list[float] = []
        self.has_ended = False
        self.up = anyio.Event()
        self._stopping = anyio.Event()
        self._messages: list[Message] = [{"type": "lifespan.startup"}]

    def stop(self) -> None:
        self._stopping.set()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        self.up.set()
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])
        self.sent_at.append(anyio.current_time())

    async def run(self, app: ASGIApp) -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self.receive, self.send)
        self.has_ended = True


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncGenerator[Server, None]:
    """Start an application, and stop it at the end of the block if that has not happened before."""
    server = Server()
    async with create_task_group() as tasks:
        tasks.start_soon(server.run, app)
        await server.up.wait()
        yield server
        server.stop()


async def lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


class Application:
    """An application whose handler takes ten seconds."""

    def __init__(self) -> None:
        self.told_at: float | None = None
        self.ended_at = -1.0
        self.reason: CancelationReason | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        scope["endpoint"] = self
        scope[TOKEN_KEY].add_callback(self.hear)
        try:
            await anyio.sleep(10)
            await send(START)
            await send(LAST)
        finally:
            self.ended_at = anyio.current_time()

    def hear(self, cancelation: Cancelation) -> None:
        self.told_at = anyio.current_time()
        self.reason = cancelation.reason


async def serve_until_shutdown(middleware: ASGIApp, *, begins_at: float = 1, **options: Any) -> Peer:
    peer = Peer(**options)
    async with started(middleware), create_task_group() as tasks:
        tasks.start_soon(peer.run, middleware)
        await anyio.sleep(begins_at)
        begin_shutdown("the machine moves")
    return peer


# --- Requests in flight


@pytest.mark.parametrize(
    ("policy", "told_at", "ended_at", "status"),
    [
        (None, 1, 3, 503),
        ("cancel", 1, 1, 503),
        ("ignore", 1, 10, 200),
        ("finish", None, 10, 200),
        (Grace(4), 1, 5, 503),
        (Grace(1, delay=2), 3, 4, 503),
        (Grace(20), 1, 10, 200),
    ],
)
@pytest.mark.parametrize("twice", [False, True])
async def test_a_policy_says_what_becomes_of_requests_in_flight(
    policy: Any, told_at: float | None, ended_at: float, status: int, twice: bool
) -> None:
    """
    By default a request has two seconds, and its token says so at once.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app, on_shutdown=policy)
    if twice:
        middleware = RequestCancelationMiddleware(middleware, on_shutdown="cancel" if policy else None)

    peer = await serve_until_shutdown(middleware)

    assert (app.told_at, app.ended_at, peer.status) == (told_at, ended_at, status)
    assert app.reason is (None if told_at is None else CancelationReason.SHUTDOWN)
    if status == 503:
        assert (peer.json["detail"], peer.headers["retry-after"]) == ("the machine moves", "1")


async def test_a_route_has_a_policy_of_its_own() -> None:
    """
    Rather than the application's.
    """
    app = Application()
    RequestPolicy(on_shutdown="finish")(app)

    peer = await serve_until_shutdown(RequestCancelationMiddleware(app, on_shutdown="cancel"))

    assert peer.status == 200


async def test_a_committed_request_is_not_stopped() -> None:
    """
    The commitment's time is the limit.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        commit(timeout=5)
        await anyio.sleep(4)
        await send(START)
        await send(LAST)
        return None

    assert (await serve_until_shutdown(RequestCancelationMiddleware(app, on_shutdown="cancel"))).status == 200


async def test_a_stream_that_is_stopped_is_cut() -> None:
    """
    Its client sees that there should have been more.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await send(START)
        while True:
            await send(PART)
            await anyio.sleep(0.5)

    peer = await serve_until_shutdown(RequestCancelationMiddleware(app), begins_at=1.2)

    assert (peer.status, peer.complete) == (200, False)
    assert peer.sent_at[-1] == 3


async def test_a_websocket_is_closed_for_a_restart() -> None:
    """
    With its code, 1012.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return None

    peer = await serve_until_shutdown(RequestCancelationMiddleware(app), kind="websocket")

    assert peer.closed == (1012, "the machine moves")


async def test_background_tasks_run_on() -> None:
    """
    Their response is complete: there is nothing to cancel.
    """
    ended: list[tuple[float, bool]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await send(START)
        await send(LAST)
        await anyio.sleep(8)
        ended.append((anyio.current_time(), scope[TOKEN_KEY].is_cancelled))
        return None

    await serve_until_shutdown(RequestCancelationMiddleware(app, on_shutdown="cancel"))

    assert ended == [(8, False)]


@pytest.mark.parametrize("policy", ["ignore", Grace(5), Grace(1, delay=5), "finish"], ids=str)
async def test_what_was_put_off_does_not_hurt_a_request_that_is_over(policy: Any) -> None:
    """
    Nor what still runs after its response.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await anyio.sleep(3)
        await send(START)
        await send(LAST)
        await anyio.sleep(6)
        steps.append("background")
        return None

    steps: list[str] = []
    peer = await serve_until_shutdown(RequestCancelationMiddleware(app, on_shutdown=policy))

    assert (peer.status, steps) == (200, ["background"])


async def test_of_two_middlewares_the_outer_one_hears_for_the_lifespan_too() -> None:
    """
    Some servers tell only one, and a request of the same application would know more than its tasks.
    """
    tokens: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tokens.append(current_shutdown_token())
        await lifespan(receive, send)

    inner = RequestCancelationMiddleware(app)
    outer = RequestCancelationMiddleware(inner)
    async with started(outer):
        outer.begin_shutdown()
        assert tokens == [outer.shutdown_token]
    async with started(inner):
        assert tokens[1:] == [inner.shutdown_token]


# --- Requests that come late


@pytest.mark.parametrize(
    ("policy", "ended_at", "status"),
    [(None, 4, 503), ("cancel", 0, 503), ("ignore", 10, 200), ("finish", 10, 200)],
)
async def test_a_request_that_comes_late_has_the_time_that_others_had(
    policy: Any, ended_at: float, status: int
) -> None:
    """
    A short one is answered as ever.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app, on_shutdown=policy)
    peer = Peer()
    async with started(middleware):
        begin_shutdown()
        await peer.run(middleware)

    assert (app.ended_at, peer.status) == (ended_at, status)


@pytest.mark.parametrize(
    ("stated", "on_route", "told_at", "ended_at"),
    [
        ("cancel", "finish", None, 10),
        ("finish", "cancel", 0, 0),
        ("ignore", Grace(3), 3, 6),
        ("finish", "ignore", 2, 10),
        ("cancel", "ignore", 2, 10),
        (None, "finish", None, 10),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
async def test_the_route_of_a_late_request_decides(
    stated: Any, on_route: Any, told_at: float | None, ended_at: float, times: int
) -> None:
    """
    Its client may have come back for a stream that would keep the server from ending.
    """
    app = RequestPolicy(on_shutdown=on_route)(Application())
    middleware = RequestCancelationMiddleware(app, on_shutdown=stated)
    if times == 2:
        middleware = RequestCancelationMiddleware(middleware)
    async with started(middleware):
        middleware.begin_shutdown()
        await Peer().run(middleware)

    assert (app.told_at, app.ended_at) == (told_at, ended_at)


async def test_late_requests_can_be_refused() -> None:
    """
    With a 503, before anything runs; a WebSocket with its code, or the response that the server can send.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app, reject_during_shutdown=True)
    plain, closed = Peer(), Peer(kind="websocket")
    denied = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    async with started(middleware):
        begin_shutdown()
        for peer in (plain, closed, denied):
            await peer.run(middleware)

    assert app.ended_at == -1
    assert (plain.status, plain.headers["retry-after"]) == (503, "1")
    assert closed.closed == (1012, "the server is shutting down")
    assert denied.status == 503


async def test_before_a_shutdown_nothing_is_refused() -> None:
    """
    The option is about the end.
    """
    middleware = RequestCancelationMiddleware(Application(), reject_during_shutdown=True)
    peer = Peer()
    async with started(middleware):
        await peer.run(middleware)

    assert peer.status == 200


# --- The lifespan


async def test_the_lifespan_passes_through() -> None:
    """
    The application sees its messages, and the server its answers.
    """
    async with started(RequestCancelationMiddleware(Application())) as server:
        assert server.sent == ["lifespan.startup.complete"]

    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert server.has_ended


@pytest.mark.parametrize("error", [AssertionError("http only"), KeyError("lifespan"), BaseException("stop")])
async def test_an_application_without_a_lifespan_still_says_so(error: BaseException) -> None:
    """
    Its error reaches the server as it is, and signals are as they were.
    """
    before = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await Server().run(RequestCancelationMiddleware(app))

    assert raised.value is error
    assert before == {name: signal.getsignal(getattr(signal, name)) for name in before}


async def test_nothing_takes_time_once_the_application_has_ended() -> None:
    """
    Hypercorn cancels a lifespan that has not ended when its last message has been sent.
    """
    middleware = RequestCancelationMiddleware(Application())
    stream = Stream(Peer())
    with anyio.CancelScope() as lifetime:
        server = Server()

        async def send(message: Message) -> None:
            await server.send(message)
            if message["type"] == "lifespan.shutdown.complete":
                lifetime.cancel()

        async with create_task_group() as requests:
            requests.start_soon(stream.serve, middleware)
            requests.start_soon(anyio.sleep, 1)
            server.stop()
            await middleware({"type": "lifespan"}, server.receive, send)
            server.has_ended = True

    assert server.has_ended


async def test_an_error_of_the_server_reaches_the_application() -> None:
    """
    As it is, not in a group.
    """

    async def receive() -> Message:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await RequestCancelationMiddleware(Application())({"type": "lifespan"}, receive, Server().send)


async def test_the_end_of_the_lifespan_is_the_last_news_of_a_shutdown() -> None:
    """
    Where nothing else has told: requests get their grace, and the application hears of the end after them.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app)
    peer = Peer()
    async with started(middleware) as server, create_task_group() as tasks:
        tasks.start_soon(peer.run, middleware)
        await anyio.sleep(1)
        server.stop()

    assert (app.told_at, app.ended_at) == (1, 3)
    assert server.sent_at == [0, 3]


async def test_requests_are_not_waited_for_for_ever() -> None:
    """
    The limit is an option.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app, on_shutdown="ignore", shutdown_timeout=4)
    async with started(middleware) as server, create_task_group() as tasks:
        tasks.start_soon(Peer().run, middleware)
        await anyio.sleep(1)
        server.stop()

    assert server.sent_at == [0, 5]
    assert app.ended_at == 10


async def test_a_server_that_cancels_its_requests_at_the_end_waits_for_their_clean_up() -> None:
    """
    As uvicorn does when its limit is over: it cancels, and ends the lifespan at once.
    """
    cleaned_up: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        try:
            await anyio.sleep(HOUR)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.7)
            cleaned_up.append(anyio.current_time())

    middleware = RequestCancelationMiddleware(app, on_shutdown="ignore")
    async with started(middleware) as server, create_task_group() as tasks:
        tasks.start_soon(Peer().run, middleware)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
        server.stop()

    assert cleaned_up == [1.7]
    assert server.sent_at[-1] == 1.7


# --- The token


async def test_each_start_has_a_token_of_its_own() -> None:
    """
    It is known in the lifespan, in the tasks that are started there, and in requests; nowhere else.
    """
    tokens: list[CancelationToken | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tokens.append(current_shutdown_token())
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await send(START)
            await send(LAST)

    inner = RequestCancelationMiddleware(app)
    middleware = RequestCancelationMiddleware(inner)
    for _ in range(2):
        async with started(middleware):
            await Peer().run(middleware)
            tokens.append(middleware.shutdown_token)
        assert middleware.shutdown_token.is_cancelled

    assert current_shutdown_token() is None
    assert tokens[1] is tokens[2] is not tokens[4]
    assert tokens[4] is tokens[5]
    assert None not in tokens


async def test_an_application_without_a_lifespan_can_be_told_in_the_event_loop() -> None:
    """
    By its middleware, if there are others that should go on.
    """
    app = Application()
    middleware, other = RequestCancelationMiddleware(app), RequestCancelationMiddleware(app)
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, middleware)
        await anyio.sleep(1)
        middleware.begin_shutdown()
        middleware.begin_shutdown("again")

    assert (peer.status, app.ended_at) == (503, 3)
    assert not other.shutdown_token.is_cancelled


async def test_a_failing_callback_does_not_keep_a_server_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Its error is reported, for there is nobody to raise it to.
    """
    reported: list[type[BaseException]] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: reported.append(args[0]))
    middleware = RequestCancelationMiddleware(Application())
    middleware.shutdown_token.add_callback(lambda _: 1 / 0)

    middleware.begin_shutdown()

    assert reported == [ZeroDivisionError]


async def test_a_token_does_not_keep_its_application_alive() -> None:
    """
    Whoever has kept one may cancel it, for nothing.
    """
    token = RequestCancelationMiddleware(Application()).shutdown_token
    gc.collect()

    assert token.cancel()


@pytest.mark.real_time
async def test_a_thread_may_begin_the_shutdown() -> None:
    """
    The loop is woken for it.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(app, on_shutdown=Grace(0.1))
    peer = Peer()
    with anyio.fail_after(5):
        async with started(middleware), create_task_group() as tasks:
            tasks.start_soon(peer.run, middleware)
            await anyio.sleep(0.1)
            threading.Thread(target=begin_shutdown).start()

    assert peer.status == 503


# --- Signals


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    What reaches the handler that a server has installed for SIGTERM.
    """
    calls: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        calls.append(number)

    previous = signal.signal(signal.SIGTERM, handle)
    yield SimpleNamespace(calls=calls, handler=handle)
    assert signal.getsignal(signal.SIGTERM) is handle
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.real_time
async def test_a_signal_of_the_server_begins_the_shutdown(handled: Any) -> None:
    """
    At once, and the server's own handler hears of it too; however many middlewares there are.
    """
    app = Application()
    middleware = RequestCancelationMiddleware(
        RequestCancelationMiddleware(app, on_shutdown=Grace(0.05)), on_shutdown="cancel"
    )
    peer = Peer()
    with anyio.fail_after(5):
        async with started(middleware), create_task_group() as tasks:
            tasks.start_soon(peer.run, middleware)
            await anyio.sleep(0.05)
            signal.raise_signal(signal.SIGTERM)

    assert peer.status == 503
    assert handled.calls == [signal.SIGTERM]
    assert middleware.shutdown_token.cancelation is not None
    assert middleware.shutdown_token.cancelation.by == "SIGTERM"


async def test_nothing_listens_before_the_start_and_after_the_end(handled: Any) -> None:
    """
    Not even a hook is left.
    """
    middleware = RequestCancelationMiddleware(Application())
    assert signal.getsignal(signal.SIGTERM) is handled.handler

    async with started(middleware):
        assert signal.getsignal(signal.SIGTERM) is not handled.handler

    assert signal.getsignal(signal.SIGTERM) is handled.handler


async def test_a_signal_that_nobody_handles_is_left_alone() -> None:
    """
    It would end the process, and it shall.
    """
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        async with started(RequestCancelationMiddleware(Application())):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.mark.real_time
def test_in_another_thread_one_line_says_that_signals_are_not_heard(
    caplog: pytest.LogCaptureFixture, handled: Any
) -> None:
    """
    Everything else works.
    """

    async def run() -> None:
        async with started(RequestCancelationMiddleware(Application())):
            assert signal.getsignal(signal.SIGTERM) is handled.handler

    with caplog.at_level(logging.INFO, "hother.cancelable"):
        thread = threading.Thread(target=anyio.run, args=[run])
        thread.start()
        thread.join()

    assert [record.message for record in caplog.records if "begin_shutdown()" in record.message] != []
    assert len(caplog.records) == 1


# --- Hypercorn's own event


class Stream:
    """What Hypercorn's ``send`` is a method of."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.event = anyio.Event()
        self.context = SimpleNamespace(terminated=self)
        self.asked = 0

    async def wait(self) -> None:
        self.asked += 1
        await self.event.wait()

    async def serve(self, app: ASGIApp) -> None:
        await app(self.peer.scope, self.peer.receive, self.app_send)

    async def app_send(self, message: Message) -> None:
        await self.peer.send(message)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_event_of_hypercorns_workers_begins_the_shutdown(wrapped: bool) -> None:
    """
    Also through a middleware that wraps ``send``; it is asked for once.
    """
    app = Application()
    middleware: ASGIApp = RequestCancelationMiddleware(app)
    served = middleware

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapping_send(message: Message) -> None:
            await send(message)

        await middleware(scope, receive, wrapping_send)

    if wrapped:
        served = outer
    peers = [Peer(), Peer()]
    streams = [Stream(peer) for peer in peers]
    async with started(middleware), create_task_group() as tasks:
        for stream in streams:
            tasks.start_soon(stream.serve, served)
            await anyio.sleep(1)
        streams[0].event.set()

    assert [peer.status for peer in peers] == [503, 503]
    assert app.ended_at == 4
    assert [stream.asked for stream in streams] == [1, 0]


async def test_hypercorn_is_asked_by_a_request_that_waits_for_nothing() -> None:
    """
    What runs beside the requests may wait for the shutdown, too.
    """
    lifespan = Application()
    stream = Stream(Peer())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)

    middleware = RequestCancelationMiddleware(app)
    async with started(middleware):
        await stream.serve(middleware)
        stream.event.set()
        await anyio.wait_all_tasks_blocked()

        assert middleware.shutdown_token.is_cancelled
