"""Streaming responses that stop, and close their generators, when their operation is cancelled."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import anyio
import pytest
from anyio import create_task_group, get_current_task, wait_all_tasks_blocked
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hother.cancelable import Cancelable, CancelationReason, CancelationToken, TimeoutCancelation
from hother.cancelable.integrations.starlette import (
    RequestCancelationMiddleware,
    cancelable_streaming_response,
    get_request_token,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer

HOUR = 3600.0

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


class Ticker:
    """An async generator that ticks once a second, and takes notes."""

    def __init__(self, ticks: int = 1_000_000, cleanup: float = 0) -> None:
        self.ticks = ticks
        self.cleanup = cleanup
        self.tasks: set[int] = set()
        self.ended_at: list[float] = []
        self.error: type[BaseException] | None = None

    async def run(self) -> AsyncIterator[str]:
        try:
            for number in range(self.ticks):
                self.tasks.add(get_current_task().id)
                yield f"{number} "
                await anyio.sleep(1)
        except BaseException as error:
            self.error = type(error)
            raise
        finally:
            self.tasks.add(get_current_task().id)
            if self.cleanup:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.cleanup)
            self.ended_at.append(anyio.current_time())


async def stream(
    content: Any,
    cancelable: Cancelable | None = None,
    *,
    habits: Habits = ALL_HABITS[0],
    middleware: bool = True,
    act: Callable[[Peer], object] | None = None,
    **options: Any,
) -> Peer:
    """Serve one stream, and *act* after 2.5 seconds."""
    peer = Peer(habits=habits)

    async def endpoint(request: Request) -> Response:
        operation = cancelable or Cancelable.with_token(get_request_token(request))
        return await cancelable_streaming_response(content, operation, **options)

    app = Starlette(routes=[Route("/", endpoint)])
    if middleware:
        app.add_middleware(RequestCancelationMiddleware)
    if act is None:
        await peer.run(app)
    else:
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, app)
            await anyio.sleep(2.5)
            act(peer)
    return peer


# --- All goes well


@every_server
@pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])
async def test_a_stream_is_sent_to_its_end(habits: Habits, middleware: bool) -> None:
    """
    Piece by piece, as they come.
    """
    ticker = Ticker(3)
    operation = Cancelable()
    peer = await stream(ticker.run(), operation, habits=habits, middleware=middleware)

    assert [chunk for chunk in peer.chunks if chunk] == [b"0 ", b"1 ", b"2 "]
    assert peer.sent_at[1:4] == [0, 1, 2]
    assert peer.complete
    assert peer.headers["content-type"] == "text/plain; charset=utf-8"
    assert ticker.ended_at == [3]
    assert operation.status.value == "completed"


@pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])
async def test_a_stream_that_was_sent_to_its_end_is_complete(middleware: bool) -> None:
    """
    Although the server reports the end as a disconnect while it still sends, and Starlette stops there.
    """
    operation = Cancelable()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def send_slowly(message: Any) -> None:
            await send(message)
            await anyio.sleep(1)

        response = await cancelable_streaming_response(Ticker(3).run(), operation)
        await response(scope, receive, send_slowly)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app) if middleware else app)

    assert peer.complete
    assert operation.status.value == "completed"


async def test_it_is_a_streaming_response_like_others() -> None:
    """
    Headers, status and a background task may be set on it.
    """
    done: list[str] = []
    peer = Peer()

    async def endpoint(request: Request) -> Response:
        response = await cancelable_streaming_response(
            iter([b"{}"]), Cancelable(), media_type="application/json"
        )
        response.headers["x-special"] = "yes"
        response.status_code = 202
        response.background = BackgroundTask(done.append, "background")
        assert isinstance(response, StreamingResponse)
        return response

    await peer.run(Starlette(routes=[Route("/", endpoint)]))

    assert (peer.status, peer.headers["x-special"], peer.headers["content-type"]) == (
        202,
        "yes",
        "application/json",
    )
    assert done == ["background"]


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ([b"by", b"tes"], b"bytes"),
        (["té", "xt"], "téxt".encode()),
        ([b"by", "tes", memoryview(b"!")], b"bytes!"),
        ([], b""),
        ([b"", "", b"x"], b"x"),
    ],
    ids=["bytes", "text", "mixed", "nothing", "empty"],
)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.real_time
async def test_any_iterable_of_text_and_bytes_can_be_sent(
    content: list[Any], body: bytes, is_async: bool
) -> None:
    """
    Asynchronous ones, and others, whose steps run in threads.
    """

    async def generate() -> AsyncIterator[Any]:
        for item in content:
            yield item

    peer = await stream(generate() if is_async else content)

    assert peer.body == body
    assert peer.complete


@pytest.mark.parametrize(
    ("content", "chunk_size", "chunks"),
    [
        ([b"abcdefg", b"h", b""], 3, [b"abc", b"def", b"gh"]),
        ([b"a", b"", "b", b"cd", b"efgh"], 3, [b"abc", b"def", b"gh"]),
        ([b"abcdef"], 3, [b"abc", b"def"]),
        ([b"", "abcd"], 3, [b"abc", b"d"]),
        ([b"abc"], 100, [b"abc"]),
        ([b"abc"], 1, [b"a", b"b", b"c"]),
        ([b"abc", b"d"], None, [b"abc", b"d"]),
        (["äöü"], 2, ["ä".encode(), "ö".encode(), "ü".encode()]),
        (["äö"], 3, ["äö".encode()[:3], "äö".encode()[3:]]),
        ([memoryview(b"abcd")], 3, [b"abc", b"d"]),
    ],
)
async def test_pieces_are_regrouped_into_chunks(
    content: list[Any], chunk_size: int | None, chunks: list[bytes]
) -> None:
    """
    Of exactly that many bytes, of text too; the last one has the rest.
    """

    async def generate() -> AsyncIterator[Any]:
        for item in content:
            yield item

    peer = await stream(generate(), chunk_size=chunk_size)

    assert [chunk for chunk in peer.chunks if chunk] == chunks


# --- It is cancelled


def cancel_token(peer: Peer) -> None:
    peer.scope["cancelation_token"].cancel()


def leave(peer: Peer) -> None:
    peer.disconnect()


@every_server
@pytest.mark.parametrize("act", [cancel_token, leave], ids=lambda act: act.__name__)
async def test_a_waiting_generator_is_interrupted_at_once(
    habits: Habits, act: Callable[[Peer], object]
) -> None:
    """
    Where it waits; it is closed in the task that ran it, and the response is left unfinished.
    """
    ticker = Ticker()
    peer = await stream(ticker.run(), habits=habits, act=act)

    assert ticker.ended_at == [2.5]
    assert ticker.error is anyio.get_cancelled_exc_class()
    assert len(ticker.tasks) == 1
    assert peer.body == b"0 1 2 "
    assert not peer.complete


@every_server
@pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])
async def test_cancelling_the_operation_ends_the_stream(habits: Habits, middleware: bool) -> None:
    """
    The application goes on: only the stream belongs to the operation.
    """
    ticker = Ticker()
    operation = Cancelable()
    peer = await stream(
        ticker.run(), operation, habits=habits, middleware=middleware, act=lambda _: operation.cancel()
    )

    assert ticker.ended_at == [2.5]
    assert len(ticker.tasks) == 1
    assert peer.body == b"0 1 2 "
    assert not peer.complete


@every_server
async def test_a_stream_ends_at_its_deadline(habits: Habits) -> None:
    """
    Counted from when it starts, if the operation was not entered before.
    """
    ticker = Ticker()
    operation = Cancelable.with_timeout(2.5)
    peer = await stream(ticker.run(), operation, habits=habits)

    assert ticker.ended_at == [2.5]
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.TIMEOUT
    assert peer.body == b"0 1 2 "
    assert not peer.complete


@every_server
async def test_a_generator_that_is_suspended_is_closed(habits: Habits) -> None:
    """
    While a piece is being sent, the generator waits at its ``yield``: it is told, and cleans up.
    """
    ticker = Ticker()
    peer = Peer(habits=habits)

    async def endpoint(request: Request) -> Response:
        token = get_request_token(request)
        return await cancelable_streaming_response(ticker.run(), Cancelable.with_token(token))

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(Starlette(routes=[Route("/", endpoint)])))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        peer.scope["cancelation_token"].cancel()

    assert ticker.error is GeneratorExit
    assert ticker.ended_at == [2.5]
    assert len(ticker.tasks) == 1


async def test_a_generator_that_never_waits_is_stopped() -> None:
    """
    A checkpoint between its pieces sees to that, and lets others run.
    """
    operation = Cancelable()
    ended: list[int] = []

    async def generate() -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                number += 1
                assert number < 1000
                yield "x"
        finally:
            ended.append(number)

    async def cancel_soon() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        operation.cancel()

    async with create_task_group() as tasks:
        tasks.start_soon(cancel_soon)
        tasks.start_soon(stream, generate(), operation)

    assert len(ended) == 1
    assert 1 < ended[0] < 100


async def test_cleanup_with_awaits_runs_before_the_response_ends() -> None:
    """
    In a shield of its own, for as long as it takes.
    """
    ticker = Ticker(cleanup=3)
    await stream(ticker.run(), act=leave)

    assert ticker.ended_at == [5.5]
    assert anyio.current_time() == 5.5


async def test_closing_a_suspended_generator_may_await() -> None:
    """
    Its cleanup is not interrupted by the cancelation that it is the answer to.
    """
    ended_at: list[float] = []
    operation = Cancelable()

    async def generate() -> AsyncIterator[str]:
        try:
            while True:
                operation.cancel()
                yield "x"
        finally:
            await anyio.sleep(3)
            ended_at.append(anyio.current_time())

    await stream(generate(), operation)

    assert ended_at == [3]


async def test_closing_a_generator_is_bounded_in_time() -> None:
    """
    One that never ends its cleanup does not keep the request.
    """
    operation = Cancelable()

    async def generate() -> AsyncIterator[str]:
        try:
            while True:
                operation.cancel()
                yield "x"
        finally:
            await anyio.sleep(HOUR)

    await stream(generate(), operation)

    assert anyio.current_time() == 10


async def test_the_server_may_cancel_a_stream() -> None:
    """
    The generator is closed all the same, and the cancelation leaves as the backend's own.
    """
    ticker = Ticker()
    with anyio.move_on_after(2.5) as scope:
        await stream(ticker.run(), middleware=False)

    assert scope.cancelled_caught
    assert ticker.ended_at == [2.5]


async def test_an_error_of_the_generator_leaves_as_itself() -> None:
    """
    And the operation has failed, rather than been cancelled.
    """
    error = ValueError("broken")
    operation = Cancelable()

    async def generate() -> AsyncIterator[str]:
        yield "x"
        raise error

    with pytest.raises(ValueError, match="broken") as raised:
        await stream(generate(), operation)

    assert raised.value is error
    assert operation.status.value == "failed"


async def test_an_iterator_that_cannot_be_closed_is_left_alone() -> None:
    """
    Not everything that can be iterated over is a generator.
    """

    class Numbers:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return "x"

    peer = await stream(Numbers())

    assert peer.body == b"xxx"


@pytest.mark.real_time
@pytest.mark.parametrize("ending", ["cancelled", "complete"])
async def test_a_sync_generator_is_closed_too(ending: str) -> None:
    """
    Its cleanup does not wait for the garbage collector.
    """
    operation = Cancelable()
    steps: list[str] = []

    def generate() -> Generator[str]:
        try:
            for number in range(3):
                if number == 2 and ending == "cancelled":
                    operation.cancel()
                yield "x"
        finally:
            steps.append("closed")

    generator = generate()
    with anyio.fail_after(5):
        await stream(generator, operation)

    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED
    assert steps == ["closed"]


# --- Before it starts


@every_server
@pytest.mark.parametrize("reason", [CancelationReason.TIMEOUT, CancelationReason.SHUTDOWN])
async def test_an_operation_that_is_cancelled_before_the_start_is_an_outcome(
    habits: Habits, reason: CancelationReason
) -> None:
    """
    There is still time for a proper answer.
    """
    ticker = Ticker()
    operation = Cancelable()
    operation.cancel(reason)
    peer = await stream(ticker.run(), operation, habits=habits)

    assert peer.status == (504 if reason is CancelationReason.TIMEOUT else 503)
    assert peer.json["reason"] == reason.value
    assert ticker.ended_at == []


@every_server
async def test_a_token_that_is_cancelled_before_the_start_is_an_outcome(habits: Habits) -> None:
    """
    A token of the operation, as well as its own.
    """
    token = CancelationToken()
    token.cancel(CancelationReason.TIMEOUT)
    peer = await stream(Ticker().run(), Cancelable.with_token(token), habits=habits)

    assert peer.status == 504


@every_server
async def test_no_time_at_all_is_an_outcome(habits: Habits) -> None:
    """
    Nothing is started that could not go on.
    """
    ticker = Ticker()
    peer = await stream(ticker.run(), Cancelable.with_timeout(0), habits=habits)

    assert peer.status == 504
    assert ticker.ended_at == []


# --- Operations in all states


async def serve_with(
    prepare: Callable[[Cancelable, Callable[[], Any]], Any], operation: Cancelable, ticker: Ticker
) -> Peer:
    async def endpoint(request: Request) -> Response:
        async def respond() -> Response:
            return await cancelable_streaming_response(ticker.run(), operation)

        response: Response = await prepare(operation, respond)
        return response

    peer = Peer()
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(RequestCancelationMiddleware)
    await peer.run(app)
    return peer


async def test_an_operation_whose_block_was_left_still_ends_the_stream() -> None:
    """
    Returning the response from within the block looks right, so it is: the deadline goes on.
    """
    ticker = Ticker()

    async def prepare(operation: Cancelable, respond: Callable[[], Any]) -> Any:
        async with operation:
            await anyio.sleep(1)
            return await respond()

    peer = await serve_with(prepare, Cancelable.with_timeout(3.5), ticker)

    assert ticker.ended_at == [3.5]
    assert peer.body == b"0 1 2 "
    assert not peer.complete


async def test_time_that_ran_out_between_block_and_response_is_an_outcome() -> None:
    """
    It is too late, and there is still time to say so.
    """
    ticker = Ticker()

    async def prepare(operation: Cancelable, respond: Callable[[], Any]) -> Any:
        responses: list[Any] = []
        async with operation:
            responses.append(await respond())
        await anyio.sleep(HOUR)
        return responses[0]

    peer = await serve_with(prepare, Cancelable.with_timeout(3.5), ticker)

    assert (peer.status, peer.json["reason"]) == (504, "timeout")
    assert ticker.ended_at == []


async def test_an_operation_that_timed_out_before_is_an_outcome() -> None:
    """
    Whoever caught its error and streams all the same is told again.
    """

    async def prepare(operation: Cancelable, respond: Callable[[], Any]) -> Any:
        with pytest.raises(TimeoutCancelation):
            async with operation:
                await anyio.sleep(HOUR)
        return await respond()

    peer = await serve_with(prepare, Cancelable.with_timeout(3.5), Ticker())

    assert (peer.status, peer.json["reason"]) == (504, "timeout")


async def test_an_operation_that_is_entered_elsewhere_ends_the_stream() -> None:
    """
    The stream follows it, in whatever task it runs.
    """
    ticker = Ticker()
    operation = Cancelable()

    async def run_operation() -> None:
        with pytest.raises(Exception, match="enough"):
            async with operation:
                await anyio.sleep(2.5)
                operation.cancel(message="enough")
                await anyio.sleep(HOUR)

    peers: list[Peer] = []
    async with create_task_group() as tasks:
        tasks.start_soon(run_operation)
        await wait_all_tasks_blocked()
        peers.append(await stream(ticker.run(), operation))

    assert ticker.ended_at == [2.5]
    assert not peers[0].complete


async def test_a_quiet_operation_ends_the_stream_quietly() -> None:
    """
    ``raise_on_cancel=False`` changes nothing for the client.
    """
    ticker = Ticker()
    peer = await stream(ticker.run(), Cancelable.with_timeout(2.5, raise_on_cancel=False))

    assert ticker.ended_at == [2.5]
    assert not peer.complete


async def test_a_parent_ends_the_stream() -> None:
    """
    And its deadline holds, too.
    """
    ticker = Ticker()
    parent = Cancelable.with_timeout(2.5)

    async def run_parent() -> None:
        with pytest.raises(TimeoutCancelation):
            async with parent:
                await anyio.sleep(HOUR)

    async with create_task_group() as tasks:
        tasks.start_soon(run_parent)
        await wait_all_tasks_blocked()
        await stream(ticker.run(), Cancelable(parent=parent))

    assert ticker.ended_at == [2.5]


# --- Arguments


@pytest.mark.parametrize("generator", [None, 3, Ticker, Ticker().run], ids=repr)
async def test_what_cannot_be_iterated_over_is_refused(generator: Any) -> None:
    """
    A generator function that somebody forgot to call, for one.
    """
    with pytest.raises(TypeError, match="must be an iterable"):
        await cancelable_streaming_response(generator, Cancelable())


@pytest.mark.parametrize("content", ["text", b"bytes", bytearray(b"bytes")], ids=repr)
async def test_a_single_text_is_an_iterable_that_nobody_means(content: Any) -> None:
    """
    Its characters would be sent one by one, or, worse, its numbers as so many zeros.
    """
    with pytest.raises(TypeError, match="must be an iterable"):
        await cancelable_streaming_response(content, Cancelable())


@pytest.mark.parametrize("item", [3, None, {"a": 1}], ids=repr)
async def test_pieces_that_are_neither_text_nor_bytes_are_an_error(item: Any) -> None:
    """
    A number is not that many zeros.
    """

    async def generate() -> AsyncIterator[Any]:
        yield item

    with pytest.raises(TypeError):
        await stream(generate(), middleware=False)


@pytest.mark.parametrize("cancelable", [None, CancelationToken(), Cancelable], ids=repr)
async def test_what_is_no_operation_is_refused(cancelable: Any) -> None:
    """
    A token is none.
    """
    with pytest.raises(TypeError, match="must be a Cancelable"):
        await cancelable_streaming_response([], cancelable)


@pytest.mark.parametrize("chunk_size", [0, -1, 1.5, "10"], ids=repr)
async def test_the_chunk_size_is_a_positive_number_of_bytes(chunk_size: Any) -> None:
    """
    Nothing can be split into nothing.
    """
    with pytest.raises((TypeError, ValueError), match="chunk_size"):
        await cancelable_streaming_response([], Cancelable(), chunk_size=chunk_size)
