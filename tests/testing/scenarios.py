"""One scenario for every async function of the package, for the sweep over all of them.

To add one: write a coroutine function that uses the new function the way that it is meant, from
beginning to end, and name what it covers in ``@scenario(...)``. It is run again and again, and
interrupted wherever it waits. What it uses up it makes anew; `World` is what all runs share.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import create_task_group, sleep
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from hother.cancelable import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationToken,
    ConditionSource,
    OperationRegistry,
    ResourceConditionSource,
    SignalSource,
    Source,
    TimeoutSource,
    TokenSource,
    asgi,
    cancelable,
    cancelable_combine,
    cancelable_stream,
    cancelable_with_token,
    chunked_cancelable_stream,
    with_cancelable,
    with_timeout,
)
from hother.cancelable.integrations import fastapi, starlette
from hother.cancelable.testing import (
    HYPERCORN,
    LeakCheck,
    Message,
    Peer,
    Receive,
    Scope,
    Send,
    StreamSimulator,
    sweep,
)


class World:
    """What outlives the runs, as a server's own things do. Nothing may stay behind on it."""

    def __init__(self) -> None:
        self.token = CancelationToken()
        self.operation = Cancelable(name="long-lived")
        self.requests: list[Peer] = []  # the latest one's token must not keep anything, either

    def check(self) -> None:
        """Check that nothing listens any more."""
        if self._callbacks():
            gc.collect()  # children may be in the circle of an error and its traceback
        assert self._callbacks() == 0

    def _callbacks(self) -> int:
        tokens = [self.token, self.operation.token]
        tokens += [peer.scope[asgi.TOKEN_KEY] for peer in self.requests if asgi.TOKEN_KEY in peer.scope]
        return sum(token.statistics().callbacks for token in tokens)

    def request(self, *body: bytes, **options: Any) -> Peer:
        """Make a request."""
        peer = Peer(*body, habits=HYPERCORN, **options)
        self.requests[:] = [peer]
        return peer


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    covers: tuple[str, ...]
    run: Callable[[World], Awaitable[None]]
    options: dict[str, Any]


SCENARIOS: list[Scenario] = []

Run = Callable[[World], Awaitable[None]]


def scenario(*covers: str, **options: Any) -> Callable[[Run], Run]:
    """Make a scenario of a function.

    Args:
        covers: What it covers, each as ``module.name`` or ``module.Class.method``, where it is public.
        options: For `sweep`.
    """

    def add(run: Run) -> Run:
        SCENARIOS.append(Scenario(getattr(run, "__name__", ""), covers, run, options))
        return run

    return add


CORE = "hother.cancelable"
ASGI = "hother.cancelable.asgi"
WEBSOCKET = "hother.cancelable.integrations.fastapi.CancelableWebSocket"
TESTING = "hother.cancelable.testing"


# --- Tokens, operations


@scenario(f"{CORE}.CancelationToken.wait")
async def wait_for_a_token(world: World) -> None:
    token = world.token.child()
    async with create_task_group() as tasks:
        tasks.start_soon(token.wait)
        await sleep(1)
        token.cancel()


@scenario(
    f"{CORE}.Cancelable.__aenter__", f"{CORE}.Cancelable.__aexit__", f"{CORE}.Cancelable.report_progress"
)
async def an_operation(world: World) -> None:
    operation = Cancelable(timeout=60, tokens=[world.token], parent=world.operation)
    for register in (operation.on_start, operation.on_progress, operation.on_complete, operation.on_cancel):
        register(pause)
    async with operation:
        await operation.report_progress("half")
        async with Cancelable(timeout=30, parent=operation), create_task_group() as tasks:
            tasks.start_soon(operation.wrap(sleep), 1)
            await sleep(2)


@scenario(f"{CORE}.Cancelable.__aenter__", f"{CORE}.Cancelable.__aexit__")
async def an_operation_with_sources(world: World) -> None:
    sources: list[Source] = [TimeoutSource(60), TokenSource(world.token)]
    async with Cancelable(sources=sources, tokens=[world.token]):
        await sleep(1)


@scenario(f"{CORE}.Cancelable.__aexit__")
async def an_operation_that_times_out(world: World) -> None:
    async with Cancelable(timeout=1, tokens=[world.token], raise_on_cancel=False).on_cancel(pause):
        await sleep(60)


async def pause(*_: object) -> None:
    await sleep(0.1)


@scenario(f"{CORE}.Shield.__aenter__", f"{CORE}.Shield.__aexit__")
async def a_shielded_section(world: World) -> None:
    async with Cancelable.with_token(world.token) as operation, operation.shield(timeout=5):
        await sleep(1)


@scenario(f"{CORE}.Cancelable.critical")
async def a_critical_section(world: World) -> None:
    async with Cancelable.with_token(world.token) as operation, create_task_group() as tasks:
        tasks.start_soon(operation.critical, sleep, 2)
        await operation.critical(sleep, 1, timeout=5)


@scenario(f"{CORE}.CancelationToken.run_until_cancelled")
async def a_call_until_a_token_is_cancelled(world: World) -> None:
    token = world.token.child()
    await token.run_until_cancelled(sleep, 1)
    token.cancel_after(1)
    await token.run_until_cancelled(sleep, 60)


@scenario(
    f"{CORE}.OperationEvents.__aenter__",
    f"{CORE}.OperationEvents.__aexit__",
    f"{CORE}.OperationEvents.__anext__",
    f"{CORE}.OperationEvents.aclose",
)
async def events_of_a_registry(world: World) -> None:
    registry = OperationRegistry(history=0)
    async with registry.events() as events, create_task_group() as tasks:
        tasks.start_soon(an_observed_operation, world, registry)
        async for event in events:
            if event.context.status.is_final:
                break


async def an_observed_operation(world: World, registry: OperationRegistry) -> None:
    async with Cancelable.with_token(world.token, observers=[registry]):
        await sleep(1)


@scenario(f"{CORE}.Cancelable.run_in_thread")
async def a_thread(world: World) -> None:
    await Cancelable.with_token(world.token).run_in_thread(sum, [1, 2])


@scenario(f"{CORE}.with_timeout")
async def a_call_with_a_timeout(world: World) -> None:
    await with_timeout(60, sleep(1))


@scenario()
async def decorated_functions(world: World) -> None:
    @cancelable(timeout=60)
    @cancelable_with_token(world.token)
    @cancelable_combine(Cancelable.with_token(world.token))
    @with_cancelable(Cancelable.with_token(world.token))
    async def work() -> None:
        await sleep(1)

    await work()


# --- Streams


@scenario(
    f"{CORE}.CancelableAsyncIterator.__aenter__",
    f"{CORE}.CancelableAsyncIterator.__aexit__",
    f"{CORE}.CancelableAsyncIterator.__anext__",
    f"{CORE}.CancelableAsyncIterator.aclose",
)
async def a_stream(world: World) -> None:
    source = StreamSimulator(range(3), closing=1)
    async with cancelable_stream(
        source, timeout=60, token=world.token, report_interval=1, on_progress=pause
    ) as items:
        async for _ in items:
            pass


@scenario(f"{CORE}.CancelableAsyncIterator.__anext__")
async def a_stream_in_a_block(world: World) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await sleep(1)
            yield 2
        finally:
            await sleep(1)

    async with Cancelable.with_token(world.token) as operation, operation.stream(numbers()) as items:
        async for _ in items:
            await sleep(1)


@scenario(
    f"{CORE}.ChunkedCancelableStream.__aenter__",
    f"{CORE}.ChunkedCancelableStream.__aexit__",
    f"{CORE}.ChunkedCancelableStream.__anext__",
    f"{CORE}.ChunkedCancelableStream.aclose",
)
async def a_chunked_stream(world: World) -> None:
    async with chunked_cancelable_stream(
        StreamSimulator(range(3), closing=1), 2, timeout=60, token=world.token
    ) as chunks:
        async for _ in chunks:
            pass


# --- Sources


@scenario(
    f"{CORE}.AllOfSource.wait",
    f"{CORE}.AnyOfSource.wait",
    f"{CORE}.ConditionSource.wait",
    f"{CORE}.TimeoutSource.wait",
    f"{CORE}.TokenSource.wait",
)
async def sources_of_sources(world: World) -> None:
    async def in_time() -> bool:
        await sleep(0.1)
        return anyio.current_time() >= 1

    condition, token = ConditionSource(in_time, 1), TokenSource(world.token)
    await AllOfSource([TimeoutSource(1), AnyOfSource([condition, token, TimeoutSource(2)])]).wait()


@scenario(f"{CORE}.SignalSource.wait")
async def a_signal(world: World) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(SignalSource(signal.SIGTERM).wait)
            await sleep(1)
            signal.raise_signal(signal.SIGTERM)
    finally:
        assert signal.getsignal(signal.SIGTERM) is before


@scenario(f"{CORE}.ResourceConditionSource.wait")
async def a_resource(world: World) -> None:
    await AnyOfSource([ResourceConditionSource(memory_threshold=100), TimeoutSource(10)]).wait()


# --- Requests


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    async with Cancelable.with_token(scope[asgi.TOKEN_KEY]), create_task_group() as tasks:
        tasks.start_soon(sleep, 1)
        while (await receive())["more_body"]:  # noqa: ASYNC110 (it waits for the client)
            await sleep(0.1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@scenario(f"{ASGI}.RequestCancelationMiddleware.__call__")
async def a_request(world: World) -> None:
    peer = world.request(b"one", b"two")
    await asgi.RequestCancelationMiddleware(serve, default_timeout=60)(peer.scope, peer.receive, peer.send)


@scenario(f"{ASGI}.RequestCancelationMiddleware.__call__")
async def a_request_that_times_out(world: World) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable.with_token(scope[asgi.TOKEN_KEY], world.token):
            await sleep(60)

    peer = world.request()
    peer.scope[asgi.TOKEN_KEY] = world.token  # of a middleware around this one
    await asgi.RequestCancelationMiddleware(app, default_timeout=1)(peer.scope, peer.receive, peer.send)


@scenario("hother.cancelable.integrations.starlette.RequestCancelationMiddleware.__call__")
async def a_request_to_starlette(world: World) -> None:
    @starlette.with_cancelation(timeout=60)
    async def endpoint(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse("done")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    peer = world.request(b"one", b"two")
    middleware = starlette.RequestCancelationMiddleware(app, default_timeout=60)
    await middleware(peer.scope, peer.receive, peer.send)


@scenario("hother.cancelable.integrations.fastapi.cancelable_streaming_response")
async def a_streaming_response(world: World) -> None:
    peer = Peer(habits=HYPERCORN)
    response = await fastapi.cancelable_streaming_response(
        StreamSimulator(["one", "two"], closing=1), Cancelable.with_token(world.token)
    )
    await response(peer.scope, peer.receive, peer.send)


@scenario(
    "hother.cancelable.integrations.fastapi.CleanupTask.__call__",
    "hother.cancelable.integrations.starlette.CleanupTask.__call__",
)
async def a_response_that_cleans_up(world: World) -> None:
    made: list[object] = []
    begun: list[object] = []

    async def clean_up() -> None:
        begun.append(clean_up)
        await sleep(1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = fastapi.CleanupTask(clean_up)
        made.append(clean_up)
        await sleep(1)
        await PlainTextResponse("done", background=task)(scope, receive, send)

    peer = world.request()
    try:
        await starlette.RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
    finally:
        assert begun == made


@scenario(
    "hother.cancelable.integrations.starlette.ResumableEvents.__aenter__",
    "hother.cancelable.integrations.starlette.ResumableEvents.__aexit__",
)
async def events_that_can_be_resumed(world: World) -> None:
    async def ticks(_: object) -> AsyncIterator[str]:
        for tick in range(3):
            yield str(tick)
            await sleep(1)

    async with starlette.ResumableEvents(window=5) as feeds:
        peer = Peer(habits=HYPERCORN)
        response = feeds.respond(Request(peer.scope), ticks)
        await response(peer.scope, peer.receive, peer.send)


@scenario("hother.cancelable.integrations.fastapi.cancelable_dependency")
async def a_dependency(world: World) -> None:
    async with await fastapi.cancelable_dependency(Request(Peer().scope)):
        await sleep(1)


@scenario(
    *(
        f"{WEBSOCKET}.{name}"
        for name in ("accept", "send_text", "send_json", "receive_text", "receive_json", "close")
    )
)
async def a_websocket(world: World) -> None:
    peer = Peer("text", '{"a": 1}', kind="websocket", habits=HYPERCORN)
    websocket = fastapi.CancelableWebSocket(
        WebSocket(peer.scope, peer.receive, peer.send), Cancelable.with_token(world.token)
    )
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.send_json(await websocket.receive_json())
    await websocket.close()


@scenario(
    *(f"{WEBSOCKET}.{name}" for name in ("__aenter__", "__aexit__", "receive", "receive_bytes", "send")),
)
async def a_websocket_block(world: World) -> None:
    peer = Peer("text", b"bytes", kind="websocket", habits=HYPERCORN)
    operation = Cancelable.with_token(world.token)
    async with fastapi.CancelableWebSocket(
        WebSocket(peer.scope, peer.receive, peer.send), operation, idle_timeout=60, keepalive=30
    ) as socket:
        await socket.accept()
        await socket.send({"type": "websocket.send", "text": (await socket.receive())["text"]})
        await socket.send_bytes(await socket.receive_bytes())
        await sleep(1)


# --- What tests are made of


@scenario(*(f"{TESTING}.Peer.{name}" for name in ("run", "receive", "send", "until")))
async def a_peer(world: World) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", **message})

    peer = Peer(more=True, habits=HYPERCORN)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await peer.until(lambda: peer.receiving)
        peer.feed(b"body")


@scenario(f"{TESTING}.StreamSimulator.__anext__", f"{TESTING}.StreamSimulator.aclose")
async def a_simulated_stream(world: World) -> None:
    source = StreamSimulator(range(2), closing=1)
    async for _ in source:
        pass
    await source.aclose()


@scenario(f"{TESTING}.LeakCheck.__aenter__", f"{TESTING}.LeakCheck.__aexit__")
async def a_leak_check(world: World) -> None:
    async with LeakCheck():
        await sleep(1)


@scenario(f"{TESTING}.sweep")
async def a_sweep(world: World) -> None:
    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(sleep, 1)

    await sweep(work)
