"""How streams end: what is finished first, what is said, what is closed, and by whom."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, get_current_task
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hother.cancelable import Cancelable, CancelationReason, TimeoutCancelation
from hother.cancelable.asgi import _crowd
from hother.cancelable.integrations.starlette import (
    Drain,
    RequestCancelationMiddleware,
    cancelable_streaming_response,
    get_request_token,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer
from tests.event_stream import parse
from tests.sweep import cancelling_at, every_checkpoint

HOUR = 3600.0
EVENTS = "text/event-stream"

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


async def stream(
    content: Any,
    operation: Cancelable | None = None,
    *,
    habits: Habits = ALL_HABITS[0],
    act: Callable[[Peer], object] | None = None,
    after: float = 2.5,
    middleware: dict[str, Any] | None = None,
    peer: Peer | None = None,
    **options: Any,
) -> Peer:
    """Serve one stream behind the middleware, and *act* after so many seconds."""
    peer = peer or Peer(habits=habits)

    async def endpoint(request: Request) -> Response:
        cancelable = operation or Cancelable.with_token(get_request_token(request))
        body: Any = content(request) if callable(content) else content
        return await cancelable_streaming_response(body, cancelable, **options)

    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    app.add_middleware(RequestCancelationMiddleware, **(middleware or {}))
    if act is None:
        await peer.run(app)
        return peer
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(after)
        act(peer)
    return peer


def leave(peer: Peer) -> None:
    peer.disconnect()


def cancel(peer: Peer) -> None:
    peer.scope["cancelation_token"].cancel()


async def ticks(steps: list[Any], text: str = "{}\n\n") -> AsyncIterator[str]:
    """Tick once a second, and say when that is over."""
    try:
        for number in range(1_000_000):
            yield text.format(number)
            await anyio.sleep(1)
    finally:
        steps.append(anyio.current_time())


# --- In a crowd


@every_server
async def test_a_stream_does_not_wait_until_the_crowd_is_looked_after(
    habits: Habits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    However many requests are open: it lasts, and its client's leaving is seen from the beginning.
    """
    monkeypatch.setattr(_crowd, "FEW", 0)
    monkeypatch.setattr(_crowd, "PATIENCE", 0.5)
    steps: list[float] = []
    await stream(ticks(steps), habits=habits, act=leave, after=0.01)

    assert steps == [0.01]


# --- The last word


@pytest.mark.parametrize("ending", ["truncate", "complete"])
@every_server
async def test_an_event_stream_ends_with_an_event(habits: Habits, ending: Any) -> None:
    """
    It tells the cause; the response is cut, or completed, by choice.
    """
    steps: list[float] = []
    peer = await stream(
        ticks(steps, "data: {}\n\n"), habits=habits, act=cancel, media_type=EVENTS, ending=ending
    )

    *before, last = parse(peer.body).events
    assert [event.data for event in before] == ["0", "1", "2"]
    assert (last.type, last.json["reason"]) == ("cancelled", "manual")
    assert peer.complete is (ending == "complete")
    assert steps == [2.5]


@pytest.mark.parametrize("ending", ["truncate", "complete"])
async def test_other_streams_end_truncated(ending: Any) -> None:
    """
    There is no word that everyone would understand.
    """
    peer = await stream(ticks([], "{} "), act=cancel, ending=ending)

    assert peer.body == b"0 1 2 "
    assert not peer.complete


@pytest.mark.parametrize("ended", ["\n\n", "\r\r", "\r\n\r\n", "\n\r\n", "\n\r"])
async def test_the_last_event_comes_after_whole_events(ended: str) -> None:
    """
    However their lines end.
    """
    peer = await stream(ticks([], "data: {}" + ended), act=cancel, media_type=EVENTS)

    assert [event.data for event in parse(peer.body).events][:-1] == ["0", "1", "2"]
    assert parse(peer.body).events[-1].type == "cancelled"


@pytest.mark.parametrize("text", ["data: {}\n", "data: {}\r\n", "data: {}", "\ndata: {}\r\n"])
async def test_nothing_is_added_to_half_an_event(text: str) -> None:
    """
    A browser drops an event that is not ended. It must not take it for a whole one.
    """
    peer = await stream(ticks([], text), act=cancel, media_type=EVENTS)

    assert b"cancelled" not in peer.body
    assert not peer.complete


async def test_a_stream_that_has_sent_nothing_says_a_last_word_too() -> None:
    """
    Nothing is no half of an event.
    """

    async def generate() -> AsyncIterator[str]:
        await anyio.sleep(HOUR)
        yield ""

    peer = await stream(generate(), act=cancel, media_type=EVENTS)

    assert parse(peer.body).events[0].type == "cancelled"


@pytest.mark.parametrize("media_type", ["text/event-stream; charset=utf-8", "Text/Event-Stream"])
async def test_an_event_stream_is_one_whatever_its_parameters(media_type: str) -> None:
    """
    Content types come with parameters, in capitals or not.
    """
    peer = await stream(ticks([]), act=cancel, media_type=media_type)

    assert parse(peer.body).events[0].type == "cancelled"


@every_server
@pytest.mark.parametrize("twice", [False, True])
async def test_the_middleware_lets_the_last_word_through(habits: Habits, twice: bool) -> None:
    """
    At its own deadline, when it drops what others still send; two of them, too.
    """
    peer = Peer(habits=habits)

    async def endpoint(request: Request) -> Response:
        return await cancelable_streaming_response(ticks([]), Cancelable(), media_type=EVENTS)

    app: Any = Starlette(routes=[Route("/", endpoint)])
    app = RequestCancelationMiddleware(app, default_timeout=None if twice else 2.5)
    if twice:
        app = RequestCancelationMiddleware(app, default_timeout=2.5)
    await peer.run(app)

    assert parse(peer.body).events[-1].json["reason"] == "timeout"
    assert not peer.complete


async def test_a_stream_that_is_compressed_says_its_last_word() -> None:
    """
    It goes the way that the rest went, through all that is in between.
    """
    peer = Peer(headers=[("accept-encoding", "gzip")])

    async def endpoint(request: Request) -> Response:
        return await cancelable_streaming_response(ticks([]), Cancelable(), media_type="application/x-events")

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(GZipMiddleware, minimum_size=0)
    await peer.run(RequestCancelationMiddleware(app, default_timeout=2.5))

    assert peer.headers["content-encoding"] == "gzip"
    assert not peer.complete


async def test_a_client_that_stalls_gets_a_second_for_the_last_word() -> None:
    """
    And no longer; the generator is closed then.
    """
    steps: list[float] = []
    operation = Cancelable()
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, ticks(steps), operation, peer=peer, media_type=EVENTS))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)  # a piece is being sent
        operation.cancel()

    assert steps == [3.5]
    assert b"cancelled" not in peer.body
    assert peer.returned


async def test_a_message_that_is_being_sent_is_not_torn() -> None:
    """
    What follows would be read as a part of it.
    """
    operation = Cancelable()
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, ticks([]), operation, peer=peer, media_type=EVENTS))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        operation.cancel()
        await anyio.sleep(0.5)
        peer.release()

    assert peer.body.startswith(b"0\n\n1\n\n2\n\nevent: cancelled\n")
    assert peer.sent_at[-1] == 3


@every_server
async def test_a_client_that_stalls_and_leaves_is_not_waited_for(habits: Habits) -> None:
    """
    Even by servers that do not let go of a message that is being sent.
    """
    steps: list[float] = []
    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, ticks(steps), peer=peer, media_type=EVENTS))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        peer.disconnect()

    assert steps == [2.5]


async def test_a_client_that_stalls_holds_up_a_cancelation_from_outside_for_a_second() -> None:
    """
    And no longer: a message is not torn, for all that the stream knows.
    """
    steps: list[float] = []
    peer = Peer()
    with anyio.move_on_after(2.5):
        async with create_task_group() as tasks:
            tasks.start_soon(partial(stream, ticks(steps), Cancelable(), peer=peer, media_type=EVENTS))
            await anyio.sleep(1.5)
            peer.stall()

    assert steps == [3.5]


async def test_an_operation_inside_of_the_generator_that_is_cancelled_says_why() -> None:
    """
    Its error leaves the generator, and the stream ends for the same reason.
    """

    async def generate() -> AsyncIterator[str]:
        yield "data: x\n\n"
        async with Cancelable(timeout=2):
            await anyio.sleep(HOUR)

    peer = await stream(generate(), media_type=EVENTS)

    assert parse(peer.body).events[-1].json["reason"] == "timeout"


async def test_an_error_is_not_told() -> None:
    """
    It is a failure, which leaves as itself; the client sees that something is missing.
    """

    async def generate() -> AsyncIterator[str]:
        yield "data: x\n\n"
        raise ValueError("secret")

    peer = Peer()
    with pytest.raises(ValueError, match="secret"):
        await stream(generate(), media_type=EVENTS, peer=peer)

    assert peer.body == b"data: x\n\n"
    assert not peer.complete


async def test_a_generator_that_asks_for_itself_ends_the_same_way() -> None:
    """
    ``check()`` raises in it, as soon as the operation is cancelled.
    """
    operation = Cancelable()

    async def generate() -> AsyncIterator[str]:
        yield "data: x\n\n"
        operation.cancel()
        operation.check()

    peer = await stream(generate(), operation, media_type=EVENTS)

    assert parse(peer.body).events[-1].type == "cancelled"
    assert operation.status.value == "cancelled"


async def test_a_cancelation_from_outside_ends_without_a_word() -> None:
    """
    The server's own, for a reason that it does not tell.
    """
    steps: list[float] = []
    peer = Peer()
    for shield in (None, "item"):
        with anyio.move_on_after(2.5) as scope:
            await stream(ticks(steps), Cancelable(), media_type=EVENTS, peer=(peer := Peer()), shield=shield)

        assert scope.cancelled_caught
        assert b"cancelled" not in peer.body
    assert steps[0] == 2.5


# --- Chunks


async def test_a_lone_small_piece_is_not_held_back() -> None:
    """
    A tenth of a second, or as long as is asked for.
    """

    async def generate() -> AsyncIterator[str]:
        yield "abc"
        await anyio.sleep(10)
        yield "de"
        await anyio.sleep(10)

    peer = await stream(generate(), chunk_size=2)
    lazy = await stream(generate(), chunk_size=2, flush_after=3)

    assert peer.chunks == [b"ab", b"c", b"de", b""]
    assert peer.sent_at[1:] == [0, pytest.approx(0.1), 10, 20]
    assert [at - 20 for at in lazy.sent_at[1:]] == [0, 3, 10, 20]


async def test_pieces_that_never_stop_coming_are_not_held_back_for_ever() -> None:
    """
    Each comes before the wait for it is over, and after a second all are sent.
    """

    async def generate() -> AsyncIterator[str]:
        for _ in range(100):
            yield "x"
            await anyio.sleep(0.07)

    peer = await stream(generate(), chunk_size=1000)

    assert peer.body == b"x" * 100
    gaps = [later - earlier for earlier, later in itertools.pairwise(peer.sent_at)][1:-2]
    assert len(gaps) == 6 - 1
    assert all(1 <= gap <= 1.08 for gap in gaps)


async def test_a_steady_stream_has_chunks_of_one_size() -> None:
    """
    However long it lasts: what is left of a chunk has not waited for as long as what was sent.
    """

    async def generate() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(7)
            await anyio.sleep(0.05)

    peer = await stream(generate(), chunk_size=50)

    assert {len(chunk) for chunk in peer.chunks} == {50, 0}
    assert len(peer.body) == 7000


async def test_nothing_is_lost_when_a_stream_is_cancelled_during_the_wait() -> None:
    """
    What waits to make a chunk is sent before the stream is cut.
    """

    async def generate() -> AsyncIterator[str]:
        yield "abc"
        await anyio.sleep(HOUR)

    peer = await stream(generate(), chunk_size=2, flush_after=100, act=cancel)

    assert peer.body == b"abc"
    assert peer.sent_at[-1] == 2.5
    assert not peer.complete


async def test_what_waits_is_sent_before_the_last_word() -> None:
    """
    A stream of events may be regrouped, too.
    """

    async def generate() -> AsyncIterator[str]:
        yield "data: x\n\n"
        await anyio.sleep(HOUR)

    peer = await stream(generate(), chunk_size=1000, flush_after=100, act=cancel, media_type=EVENTS)

    assert [event.type for event in parse(peer.body).events] == ["message", "cancelled"]


# --- An item in hand is finished


class Writer:
    """A generator that writes into a database for two seconds, for each item."""

    def __init__(self) -> None:
        self.begun = 0
        self.written: list[float] = []
        self.error: type[BaseException] | None = None
        self.ended_at: list[float] = []

    async def run(self, duration: float = 2) -> AsyncIterator[str]:
        try:
            while True:
                self.begun += 1
                await anyio.sleep(duration)
                self.written.append(anyio.current_time())
                yield f"data: {self.begun}\n\n"
        except BaseException as error:
            self.error = type(error)
            raise
        finally:
            self.ended_at.append(anyio.current_time())


async def test_an_item_that_is_finished_is_sent_by_whoever_can() -> None:
    """
    The task that sends has been interrupted by then.
    """
    operation = Cancelable()
    peer = await stream(
        Writer().run(),
        operation,
        act=lambda _: operation.cancel(),
        after=3,
        shield="item",
        media_type=EVENTS,
        send_timeout=30,
    )

    assert [event.data for event in parse(peer.body).events][:2] == ["1", "2"]
    assert parse(peer.body).events[-1].type == "cancelled"


@every_server
@pytest.mark.parametrize("act", [leave, cancel], ids=lambda act: act.__name__)
async def test_an_item_in_hand_is_finished(habits: Habits, act: Callable[[Peer], object]) -> None:
    """
    Then the generator is closed, before it begins another one.
    """
    writer = Writer()
    peer = await stream(writer.run(), habits=habits, act=act, after=3, shield="item")

    assert writer.written == [2, 4]
    assert writer.begun == 2
    assert writer.error is GeneratorExit
    assert writer.ended_at == [4]
    assert peer.body.endswith(b"data: 1\n\n" if act is leave else b"data: 2\n\n") or act is cancel
    assert not peer.complete


@pytest.mark.parametrize("media_type", ["text/plain", EVENTS])
async def test_an_item_that_is_finished_is_sent(media_type: str) -> None:
    """
    If somebody is there; before the last word.
    """
    operation = Cancelable()
    peer = await stream(
        Writer().run(),
        operation,
        act=lambda _: operation.cancel(),
        after=3,
        shield="item",
        media_type=media_type,
    )

    assert peer.body.startswith(b"data: 1\n\ndata: 2\n\n")
    assert (b"cancelled" in peer.body) is (media_type == EVENTS)


@pytest.mark.parametrize("outside", [False, True])
async def test_finishing_an_item_is_bounded_in_time(outside: bool) -> None:
    """
    It is interrupted when its time is over.
    """
    writer = Writer()
    with CancelScope() as scope:
        await stream(
            writer.run(HOUR),
            act=lambda peer: scope.cancel() if outside else cancel(peer),
            shield="item",
            shield_timeout=5,
        )

    assert writer.error is anyio.get_cancelled_exc_class()
    assert writer.ended_at == [7.5]
    assert writer.begun == 1


async def test_a_generator_that_ends_while_it_is_protected_has_sent_everything() -> None:
    """
    Nothing was cut short, so nobody is told so.
    """

    async def generate() -> AsyncIterator[str]:
        yield "data: x\n\n"
        await anyio.sleep(5)

    peer = await stream(generate(), Cancelable.with_timeout(2.5), shield="item", media_type=EVENTS)

    assert peer.body == b"data: x\n\n"
    assert peer.complete


async def test_a_generator_without_awaits_is_stopped_between_items() -> None:
    """
    Protected as it is.
    """
    operation = Cancelable()
    count = 0

    async def generate() -> AsyncIterator[str]:
        nonlocal count
        while count < 1000:
            count += 1
            if count == 10:
                operation.cancel()
            yield "x"

    await stream(generate(), operation, shield="item")

    assert 10 <= count < 30


# --- Draining


class Model:
    """An LLM: tokens, and a last frame that says what they have cost."""

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = tokens
        self.usage: list[float] = []
        self.error: type[BaseException] | None = None
        self.ended_at: list[float] = []

    async def run(self) -> AsyncIterator[str]:
        try:
            for number in range(self.tokens):
                yield f"data: {number}\n\n"
                await anyio.sleep(1)
            self.usage.append(anyio.current_time())
            yield "data: usage\n\n"
            await anyio.sleep(HOUR)
        except BaseException as error:
            self.error = type(error)
            raise
        finally:
            self.ended_at.append(anyio.current_time())


@every_server
async def test_a_stream_may_be_read_on_for_a_client_who_has_left(habits: Habits) -> None:
    """
    Until what is needed has come; nothing of it is sent.
    """
    model = Model()
    peer = await stream(
        model.run(), habits=habits, act=leave, drain=Drain(60, until=lambda item: "usage" in item)
    )

    assert model.usage == [10]
    assert model.ended_at == [10]
    assert model.error is GeneratorExit
    assert peer.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


@every_server
async def test_a_stream_is_read_on_for_a_client_who_stalled_before_it_left(habits: Habits) -> None:
    """
    What was being sent is forgotten.
    """
    model = Model()
    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(
            partial(stream, model.run(), peer=peer, drain=Drain(60, lambda x: "usage" in x), send_timeout=30)
        )
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        peer.disconnect()

    assert model.usage == [10.5]
    assert model.ended_at == [10.5]


async def test_draining_is_bounded_in_time() -> None:
    """
    Then the generator is interrupted where it waits.
    """
    model = Model()
    await stream(model.run(), act=leave, drain=Drain(5))

    assert model.ended_at == [7.5]
    assert model.error is anyio.get_cancelled_exc_class()


async def test_draining_ends_with_the_generator() -> None:
    """
    It need not wait for its limit.
    """

    async def generate() -> AsyncIterator[str]:
        for _ in range(5):
            yield "x"
            await anyio.sleep(1)

    await stream(generate(), act=leave, drain=Drain(60))

    assert anyio.current_time() == 5


async def test_there_is_nothing_to_wait_for_once_it_has_come() -> None:
    """
    Before the client left.
    """
    model = Model(tokens=1)
    await stream(model.run(), act=leave, drain=Drain(60, until=lambda item: "usage" in item))

    assert model.ended_at == [2.5]


@pytest.mark.parametrize("act", ["deadline", cancel], ids=["deadline", "cancel"])
async def test_only_a_client_who_has_left_is_read_on_for(act: Any) -> None:
    """
    Whatever else ends a stream means the work as well.
    """
    model = Model()
    operation = Cancelable.with_timeout(2.5) if act == "deadline" else None
    await stream(model.run(), operation, act=None if act == "deadline" else act, drain=Drain(60))

    assert model.ended_at == [2.5]


async def test_the_server_may_end_the_draining() -> None:
    """
    A cancelation of the task that is not the middleware's is obeyed at once on asyncio, and after the limit
    where shields hold.
    """
    model = Model()
    with anyio.move_on_after(5):
        await stream(model.run(), act=leave, drain=Drain(4))

    assert model.ended_at == [6.5]


def test_a_drain_is_checked_where_it_is_made() -> None:
    """
    And may be without end.
    """
    assert Drain(float("inf")).limit == float("inf")
    with pytest.raises(ValueError, match="limit"):
        Drain(-1)
    with pytest.raises(TypeError, match="until"):
        Drain(1, until=3)  # type: ignore[arg-type]


# --- Closing


async def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("ending", ["never started", "complete", "failed", "left"])
async def test_what_is_registered_for_the_end_is_called_once(ending: str) -> None:
    """
    Also when the generator was never started: its own ``finally`` does not run then.
    """
    calls: list[str] = []
    operation = Cancelable()
    goes_on: dict[str, Callable[[], Awaitable[None]]] = {
        "complete": checkpoint,
        "failed": fail,
        "left": anyio.sleep_forever,
    }

    async def generate() -> AsyncIterator[str]:
        try:
            yield "x"
            await goes_on[ending]()
        finally:
            calls.append("generator")

    async def close() -> None:
        await anyio.sleep(1)
        calls.append("closed")

    if ending == "never started":
        operation.cancel()
    with suppress(ZeroDivisionError):
        await stream(generate(), operation, act=leave if ending == "left" else None, on_close=close)

    assert calls == (["closed"] if ending == "never started" else ["generator", "closed"])


async def test_a_generator_may_hold_a_scope_across_its_yields() -> None:
    """
    It is closed inside of the scopes that it was started in, suspended or not.
    """
    ended: list[float] = []

    async def generate() -> AsyncIterator[str]:
        with anyio.fail_after(HOUR):
            try:
                while True:
                    yield "x\n\n"
                    await anyio.sleep(1)
            finally:
                await anyio.sleep(0.25)
                ended.append(anyio.current_time())

    for shield in (None, "item"):
        for media_type in ("text/plain", EVENTS):
            start = anyio.current_time()
            peer = Peer()
            operation = Cancelable()
            async with create_task_group() as tasks:
                tasks.start_soon(
                    partial(stream, generate(), operation, peer=peer, shield=shield, media_type=media_type)
                )
                await anyio.sleep(0.5)
                peer.stall()
                await anyio.sleep(1)
                operation.cancel()
            waits = 1 if shield or media_type == EVENTS else 0
            assert ended.pop() == start + 1.75 + waits


async def test_closing_takes_its_time_and_hides_no_cancelation() -> None:
    """
    What was interrupted for taking too long is a part of a request that was interrupted.
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
    assert operation.status.value == "cancelled"


class Numbers:
    """An async iterable, not an iterator, whose iterator is a generator."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await anyio.sleep(1)
        finally:
            self.closed.append("iterator")

    async def aclose(self) -> None:
        self.closed.append("iterable")
        raise ValueError("on closing")


async def test_an_iterable_and_its_iterator_are_both_closed() -> None:
    """
    Even if one of them fails in it.
    """
    numbers = Numbers()

    with pytest.raises(ValueError, match="on closing"):
        peer = Peer()
        app = Starlette(
            routes=[Route("/", partial(_respond, numbers, Cancelable.with_timeout(2.5)))],
        )
        await peer.run(app)

    assert numbers.closed == ["iterator", "iterable"]


async def _respond(content: Any, operation: Cancelable, request: Request) -> Response:
    return await cancelable_streaming_response(content, operation)


async def test_a_body_that_was_wrapped_is_closed_with_what_is_in_it() -> None:
    """
    As those do who change a response on its way.
    """
    steps: list[Any] = []

    async def endpoint(request: Request) -> Response:
        response = await cancelable_streaming_response(ticks(steps), Cancelable.with_timeout(2.5))

        async def wrap(body: Any) -> AsyncIterator[Any]:
            try:
                async for item in body:
                    yield item.upper()
            finally:
                steps.append("wrapper")

        response.body_iterator = wrap(response.body_iterator)
        return response

    await Peer().run(Starlette(routes=[Route("/", endpoint)]))

    assert sorted(map(str, steps)) == ["2.5", "wrapper"]


@pytest.mark.real_time
async def test_a_sync_generator_is_closed_when_its_step_is_over() -> None:
    """
    A thread cannot be interrupted, and a generator that runs not be closed.
    """
    steps: list[str] = []
    operation = Cancelable()

    def generate() -> Iterator[str]:
        try:
            yield "x"
            operation.cancel()
            time.sleep(0.05)
            steps.append("step")
            yield "y"
        finally:
            steps.append("closed")

    await stream(generate(), operation)

    assert steps == ["step", "closed"]


@pytest.mark.only_on("asyncio")
@pytest.mark.real_time
async def test_a_sync_generator_is_not_closed_in_the_middle_of_a_step() -> None:
    """
    Nobody waits for its thread when the task itself is cancelled; closing it does.
    """
    steps: list[str] = []
    started = anyio.Event()

    def generate() -> Iterator[str]:
        try:
            anyio.from_thread.run_sync(started.set)
            time.sleep(0.1)
            steps.append("step")
            yield "x"
        finally:
            steps.append("closed")

    task = asyncio.create_task(stream(generate(), Cancelable()))
    await started.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert steps == ["step", "closed"]


# --- What the server does


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("shield", [None, "item"])
async def test_a_server_may_cancel_the_task_itself(shield: Any) -> None:
    """
    No shield holds that up; the generator is told once, and closed.
    """
    watched = Watched()
    peer = Peer()

    async def sleep(_: Request) -> AsyncIterator[str]:
        async for item in watched.run():
            yield item
            await anyio.sleep(HOUR)

    task = asyncio.create_task(stream(sleep, peer=peer, shield=shield, media_type=EVENTS))
    await anyio.sleep(2.5)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert peer.returned
    assert anyio.current_time() == 2.5
    assert b"cancelled" not in peer.body


async def test_a_stream_ends_with_its_client_whatever_the_middleware_does() -> None:
    """
    The middleware may be told to let others go on.
    """
    steps: list[float] = []
    operation = Cancelable()
    await stream(ticks(steps), operation, act=leave, middleware={"on_disconnect": "ignore"})

    assert steps == [2.5]
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.DISCONNECT


async def test_an_error_of_the_server_leaves_as_itself() -> None:
    """
    In no exception group, with the generator closed.
    """
    steps: list[float] = []

    async def receive() -> Any:
        await anyio.sleep(2.5)
        raise ValueError("of the server")

    async def send(message: Any) -> None:
        await checkpoint()

    response = await cancelable_streaming_response(ticks(steps), Cancelable(), media_type=EVENTS)
    with pytest.raises(ValueError, match="of the server"):
        await response({"type": "http"}, receive, send)

    assert steps == [2.5]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_send_that_fails_is_a_client_who_has_left(spec_version: str) -> None:
    """
    As version 2.4 of ASGI has it. The stream ends, quietly.
    """
    steps: list[float] = []
    operation = Cancelable()

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        if anyio.current_time() >= 2:
            raise OSError("gone")

    response = await cancelable_streaming_response(ticks(steps), operation, media_type=EVENTS)
    await response({"type": "http", "asgi": {"spec_version": spec_version}}, receive, send)

    assert steps == [2]
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.DISCONNECT


async def test_a_response_whose_last_message_fails_was_not_completed() -> None:
    """
    Its background task does not run.
    """
    done: list[str] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            raise OSError("gone")

    async def generate() -> AsyncIterator[str]:
        yield "x"

    response = await cancelable_streaming_response(generate(), Cancelable())
    response.background = BackgroundTask(done.append, "background")
    await response({"type": "http"}, receive, send)

    assert done == []


async def test_a_generator_may_read_the_request_while_it_answers() -> None:
    """
    Nobody else takes the parts of the body: the middleware tells of the disconnect.
    """
    peer = Peer(b"a", more=True)

    async def echo(request: Request) -> AsyncIterator[bytes]:
        async for part in request.stream():
            yield part.upper()

    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, echo, peer=peer))
        await anyio.sleep(1)
        peer.feed(b"b", more=True)
        await anyio.sleep(1)
        peer.feed(b"c")

    assert peer.body == b"ABC"
    assert peer.complete


async def test_a_stream_may_deny_a_websocket() -> None:
    """
    Its messages are those of a denial response.
    """
    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    response = await cancelable_streaming_response(iter([b"no"]), Cancelable())
    response.status_code = 403

    await response(peer.scope, peer.receive, peer.send)

    assert (peer.status, peer.body, peer.complete) == (403, b"no", True)


async def test_a_background_task_belongs_to_a_response_that_was_completed() -> None:
    """
    By its generator: an end in other words is none.
    """
    done: list[str] = []
    for timeout in (10, 1):

        async def endpoint(request: Request, timeout: float = timeout) -> Response:
            async def generate() -> AsyncIterator[str]:
                await anyio.sleep(5)
                yield "data: x\n\n"

            response = await cancelable_streaming_response(
                generate(), Cancelable.with_timeout(timeout), media_type=EVENTS, ending="complete"
            )
            response.background = BackgroundTask(done.append, str(timeout))
            return response

        peer = Peer()
        await peer.run(Starlette(routes=[Route("/", endpoint)]))
        assert peer.complete

    assert done == ["10"]


async def test_a_quiet_operation_that_is_cancelled_before_the_start_is_an_outcome() -> None:
    """
    ``raise_on_cancel=False`` does not leave the client without an answer.
    """
    response = await cancelable_streaming_response(
        ticks([]), Cancelable.with_timeout(0, raise_on_cancel=False)
    )
    with pytest.raises(TimeoutCancelation):
        await response({"type": "http"}, Peer().receive, Peer().send)


# --- Cancelled anywhere


class Watched:
    """A generator that knows how often it was told to stop, and by whom."""

    def __init__(self) -> None:
        self.has_started = False
        self.ends: list[int] = []
        self.aborts = 0
        self.task = 0

    async def run(self) -> AsyncIterator[str]:
        self.has_started = True
        self.task = get_current_task().id
        try:
            for _ in range(3):
                await checkpoint()
                yield "data: x\n\n"
        except BaseException:
            self.aborts += 1
            raise
        finally:
            self.ends.append(get_current_task().id)


HOW: dict[str, Callable[[Peer, Cancelable, CancelScope], object]] = {
    "token": lambda peer, operation, scope: cancel(peer),
    "operation": lambda peer, operation, scope: operation.cancel(),
    "disconnect": lambda peer, operation, scope: peer.disconnect(),
    "scope": lambda peer, operation, scope: scope.cancel(),
}


@every_server
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"media_type": EVENTS, "ending": "complete"},
        {"chunk_size": 4},
        {"shield": "item"},
        {"drain": Drain(5)},
    ],
    ids=str,
)
async def test_a_stream_may_be_ended_at_any_checkpoint(
    habits: Habits, how: str, options: dict[str, Any]
) -> None:
    """
    The generator is told once at most, ends once, in the task that started it; the response ends once.
    """

    async def attempt(number: int) -> int:
        watched, operation, peer, closed = Watched(), Cancelable(), Peer(habits=habits), []
        waits = 0

        async def endpoint(request: Request) -> Response:
            return await cancelable_streaming_response(
                watched.run(), operation, on_close=lambda: closed.append(1), **options
            )

        app = RequestCancelationMiddleware(Starlette(routes=[Route("/", endpoint)]))
        with CancelScope() as scope:
            work = peer.run(app)
            _, waits = await cancelling_at(number, lambda: HOW[how](peer, operation, scope), work)

        assert len(watched.ends) == (1 if watched.has_started else 0)
        assert watched.aborts <= 1
        assert set(watched.ends) <= {watched.task}
        assert len(closed) <= 1
        assert closed or not watched.has_started
        events = [event.type for event in parse(peer.body).events] if "media_type" in options else []
        assert "cancelled" not in events[:-1]
        assert events.count("message") <= 3
        if peer.complete and peer.status == 200 and "cancelled" not in events:
            assert peer.body == b"data: x\n\n" * 3
        return waits if number > waits else 0

    async for _ in every_checkpoint(attempt):
        pass
