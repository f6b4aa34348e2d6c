"""What streams do when several of their options meet, and what they do with generators that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import anyio
import pytest
from anyio import CancelScope, create_task_group, get_current_task
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import (
    Drain,
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    apply_policy,
    begin_shutdown,
    cancelable_sse_response,
    cancelable_streaming_response,
    get_request_token,
)
from tests.asgi_peer import ALL_HABITS, Habits, Message, Peer
from tests.event_stream import parse
from tests.integrations.test_stream_endings import (
    EVENTS,
    HOUR,
    HOW,
    Model,
    Watched,
    Writer,
    cancel,
    leave,
    stream,
)
from tests.sweep import cancelling_at, every_checkpoint

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


def is_usage(item: str) -> bool:
    return "usage" in item


# --- Draining and finishing


@pytest.mark.parametrize("limit", [0.0, 0.2, 1.0])
async def test_an_item_in_hand_is_finished_after_draining(limit: float) -> None:
    """
    The end of the draining is an end like others.
    """
    writer = Writer()
    await stream(writer.run(), act=leave, after=3, drain=Drain(limit), shield="item")

    assert writer.error is GeneratorExit
    assert writer.written == [2, 4]


async def test_draining_and_finishing_have_a_limit_each() -> None:
    """
    One after the other.
    """
    writer = Writer()
    await stream(writer.run(HOUR), act=leave, drain=Drain(5), shield="item", shield_timeout=3)

    assert writer.error is anyio.get_cancelled_exc_class()
    assert writer.ended_at == [2.5 + 5 + 3]


@every_server
async def test_what_is_wanted_ends_the_draining_though_items_are_protected(habits: Habits) -> None:
    """
    No other item is begun after it.
    """
    model = Model()
    await stream(model.run(), habits=habits, act=leave, drain=Drain(60, is_usage), shield="item")

    assert (model.usage, model.ended_at, model.error) == ([10], [10], GeneratorExit)


# --- What else ends the draining


async def drained(
    model: Model, *policies: RequestPolicy, timeout: float | None = None, **options: Any
) -> None:
    """Serve a stream whose client leaves after 2.5 seconds, and that is read on for up to a minute."""

    def generate(_: Request) -> Any:
        for policy in policies:
            apply_policy(policy)
        return model.run()

    operation = None if timeout is None else Cancelable.with_timeout(timeout)
    await stream(generate, operation, act=leave, drain=Drain(60, is_usage), **options)


async def test_the_deadline_of_the_operation_ends_the_draining() -> None:
    """
    Somebody has said how long the work may take.
    """
    model = Model(tokens=100)
    await drained(model, timeout=5)

    assert model.ended_at == [5]


async def test_the_time_limit_of_the_request_ends_the_draining() -> None:
    """
    It holds in every case.
    """
    model = Model(tokens=100)
    await drained(model, middleware={"default_timeout": 30}, timeout=50)

    assert model.ended_at == [30]


@pytest.mark.parametrize(
    ("policy", "ended_at"),
    [
        (RequestPolicy(), 8),
        (RequestPolicy(on_shutdown="cancel"), 8),
        (RequestPolicy(on_shutdown=Grace(5)), 8),
        (RequestPolicy(on_shutdown=Grace(5, delay=2)), 10),
        (RequestPolicy(on_shutdown="finish"), 20),
    ],
    ids=lambda value: str(value.on_shutdown) if isinstance(value, RequestPolicy) else "",
)
async def test_the_end_of_the_server_ends_the_draining(policy: RequestPolicy, ended_at: float) -> None:
    """
    When it would have ended the stream, had its client been there.
    """
    model = Model(tokens=20)
    async with create_task_group() as tasks:
        tasks.start_soon(drained, model, policy)
        await anyio.sleep(8)
        begin_shutdown()

    assert model.ended_at == [ended_at]


@pytest.mark.parametrize(
    ("on_disconnect", "ended_at"),
    [("cancel", 10), ("ignore", 10), ("finish", 10 + HOUR), (Grace(3), 10), (Grace(3, delay=1), 10)],
    ids=str,
)
async def test_a_stream_is_read_on_whatever_the_policy(on_disconnect: Any, ended_at: float) -> None:
    """
    With ``"finish"`` it is not even told, and goes on as if the client were there.
    """
    model = Model()
    await drained(model, RequestPolicy(on_disconnect=on_disconnect))

    assert model.usage == [10]
    assert model.ended_at == [ended_at]


@pytest.mark.parametrize("on_disconnect", ["cancel", "ignore", Grace(3), Grace(1, delay=1)], ids=str)
async def test_an_item_in_hand_is_finished_whatever_the_policy(on_disconnect: Any) -> None:
    """
    And no other one begun.
    """
    writer = Writer()

    def generate(_: Request) -> Any:
        apply_policy(RequestPolicy(on_disconnect=on_disconnect))
        return writer.run(3)

    await stream(generate, act=leave, after=3.5, shield="item")

    assert (writer.written, writer.error) == ([3, 6], GeneratorExit)


async def test_an_item_in_hand_is_finished_when_the_server_stops() -> None:
    """
    Sent, and followed by the last word.
    """
    writer = Writer()
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, writer.run(), peer=peer, shield="item", media_type=EVENTS))
        await anyio.sleep(3)
        begin_shutdown()

    assert [event.type for event in parse(peer.body).events] == ["message", "message", "cancelled"]
    assert writer.written == [2, 4]


class Stubborn(Peer):
    """A server that lets nobody interrupt what sends to a client that stalls, as Hypercorn's Trio worker."""

    async def send(self, message: Message) -> None:
        with CancelScope(shield=True):
            await super().send(message)


async def test_a_stream_is_read_on_while_the_server_holds_on_to_a_message() -> None:
    """
    Its generator need not wait for that.
    """
    model, peer = Model(), Stubborn(habits=ALL_HABITS[3])  # one that is not freed by the client's leaving
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, model.run(), peer=peer, drain=Drain(60, is_usage), send_timeout=30))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        peer.disconnect()
        await anyio.sleep(10)
        assert model.ended_at == [10.5]
        peer.release()


@pytest.mark.parametrize(("limit", "ended_at"), [(4, 6.5), (60, 10)])
async def test_a_stream_is_read_on_without_the_middleware_too(limit: float, ended_at: float) -> None:
    """
    For as long as it says itself.
    """
    model, peer = Model(), Peer()
    response = await cancelable_streaming_response(model.run(), Cancelable(), drain=Drain(limit, is_usage))
    async with create_task_group() as tasks:
        tasks.start_soon(response, peer.scope, peer.receive, peer.send)
        await anyio.sleep(2.5)
        peer.disconnect()

    assert model.ended_at == [ended_at]


async def test_what_failed_first_is_raised() -> None:
    """
    A generator that fails when it is interrupted for that does not hide it.
    """

    async def generate() -> AsyncIterator[str]:
        try:
            yield "x"
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def receive() -> Message:
        await anyio.sleep(1)
        raise KeyError("the server")

    peer = Peer()
    response = await cancelable_streaming_response(generate(), Cancelable())
    with pytest.raises(KeyError):
        await response(peer.scope, receive, peer.send)


# --- Generators that misbehave


class Fanning:
    """A generator with a task group across its yields."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ends = 0
        self.error = error

    async def run(self) -> AsyncIterator[str]:
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._work)
                while True:
                    yield "data: x\n\n"
                    await anyio.sleep(1)
        finally:
            self.ends += 1

    async def _work(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if self.error is not None:
                raise self.error


async def stalled(generator: AsyncIterator[str], **options: Any) -> Peer:
    """Serve a stream that is cancelled while its generator is suspended at a ``yield``."""
    peer, operation = Peer(), Cancelable()
    async with create_task_group() as tasks:
        tasks.start_soon(partial(stream, generator, operation, peer=peer, **options))
        await anyio.sleep(1.5)
        peer.stall()
        await anyio.sleep(1)
        operation.cancel()
        await anyio.sleep(0.1)
        peer.release()
    return peer


async def test_a_task_group_across_a_yield_does_not_make_closing_an_error() -> None:
    """
    It wraps what closes the generator.
    """
    fanning = Fanning()
    peer = await stalled(fanning.run(), media_type=EVENTS)

    assert fanning.ends == 1
    assert parse(peer.body).events[-1].type == "cancelled"


async def test_an_error_in_such_a_task_group_is_one() -> None:
    """
    And is all that leaves.
    """
    fanning = Fanning(ZeroDivisionError())
    peer, operation = Peer(), Cancelable()
    response = await cancelable_streaming_response(fanning.run(), operation)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        async with create_task_group() as tasks:
            tasks.start_soon(response, peer.scope, peer.receive, peer.send)
            await anyio.sleep(0.5)
            peer.stall()
            await anyio.sleep(1)
            operation.cancel()

    errors: list[BaseException] = [caught.value]
    while isinstance(getattr(errors[-1], "exceptions", None), tuple):
        errors += errors.pop().exceptions  # type: ignore[attr-defined]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert fanning.ends == 1


class Wilful:
    """A generator that has its own idea of how to end."""

    def __init__(self, reaction: Literal["returns", "yields", "raises"]) -> None:
        self.reaction = reaction
        self.ends = 0

    async def run(self) -> AsyncIterator[str]:
        while True:
            try:
                yield "data: x\n\n"
                await anyio.sleep(1)
            except BaseException:
                self.ends += 1
                if self.reaction == "raises":
                    raise ZeroDivisionError from None
                if self.reaction == "returns":
                    return
                yield "data: more\n\n"
                raise


@pytest.mark.parametrize(
    ("reaction", "where", "error"),
    [
        ("returns", "suspended", None),
        ("returns", "waiting", None),
        ("yields", "suspended", RuntimeError),  # Python's own: it ignored GeneratorExit
        ("yields", "waiting", None),
        ("raises", "suspended", ZeroDivisionError),
        ("raises", "waiting", ZeroDivisionError),
    ],
)
async def test_what_a_generator_makes_of_its_end_is_its_own_affair(
    reaction: Any, where: str, error: type[Exception] | None
) -> None:
    """
    It ends, the client is told that the stream was cut, and an error leaves as itself.
    """
    wilful, operation, peer = Wilful(reaction), Cancelable(), Peer()
    response = await cancelable_streaming_response(wilful.run(), operation, EVENTS)

    async def serve() -> None:
        with nullcontext() if error is None else pytest.raises(error):
            await response(peer.scope, peer.receive, peer.send)

    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.sleep(1.5)
        if where == "suspended":
            peer.stall()
            await anyio.sleep(1)
        operation.cancel()
        await anyio.sleep(0.1)
        peer.release()

    assert wilful.ends == 1
    assert not peer.complete
    assert parse(peer.body).events[-1].type == "cancelled"


# --- Cleaning up


class Careful:
    """A generator that takes its time to clean up."""

    def __init__(self, duration: float = 3, count: int = 100) -> None:
        self.duration = duration
        self.count = count
        self.is_running = False
        self.cleaned_at: list[float] = []

    async def run(self) -> AsyncIterator[str]:
        self.is_running = True
        try:
            for _ in range(self.count):
                with anyio.move_on_after(1):
                    await anyio.sleep_forever()
                yield "data: x\n\n"
            self.is_running = False
        except BaseException:
            await anyio.sleep(self.duration)
            self.cleaned_at.append(anyio.current_time())
            raise


@every_server
@pytest.mark.parametrize("act", [leave, cancel], ids=lambda act: act.__name__)
async def test_a_generator_that_is_interrupted_cleans_up_undisturbed(habits: Habits, act: Any) -> None:
    """
    It needs no shield of its own.
    """
    careful = Careful()
    await stream(careful.run(), habits=habits, act=act)

    assert careful.cleaned_at == [5.5]


@pytest.mark.parametrize("options", [{}, {"shield": "item"}, {"drain": Drain(2.2)}], ids=str)
async def test_the_cleanup_of_a_generator_that_is_interrupted_is_bounded(options: dict[str, Any]) -> None:
    """
    By ten seconds, from its interruption on.
    """
    careful = Careful(HOUR)
    await stream(careful.run(), act=leave, after=2.25, **options)

    assert careful.cleaned_at == []
    assert 12 < anyio.current_time() < 16


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "options", [{}, {"media_type": EVENTS, "send_timeout": 30}, {"shield": "item"}], ids=str
)
async def test_a_generator_cleans_up_whenever_it_is_interrupted(how: str, options: dict[str, Any]) -> None:
    """
    At any checkpoint.
    """

    async def attempt(number: int) -> int:
        careful, operation, peer, waits = Careful(count=3), Cancelable(), Peer(), 0

        async def endpoint(request: Request) -> Response:
            return await cancelable_streaming_response(careful.run(), operation, **options)

        app = RequestCancelationMiddleware(Starlette(routes=[Route("/", endpoint)]))
        with CancelScope() as scope:
            work = peer.run(app)
            _, waits = await cancelling_at(number, lambda: HOW[how](peer, operation, scope), work)

        assert len(careful.cleaned_at) == careful.is_running
        assert peer.left_behind == []
        return waits if number > waits else 0

    async for _ in every_checkpoint(attempt):
        pass


# --- Chunks


async def test_many_small_chunks_of_one_piece_hold_nobody_up() -> None:
    """
    Servers need not let others run while they take a message.
    """
    peer = Peer()

    async def generate() -> AsyncIterator[bytes]:
        yield bytes(5_000)

    response = await cancelable_streaming_response(generate(), Cancelable(), chunk_size=1)
    async with create_task_group() as tasks:
        tasks.start_soon(response, peer.scope, peer.receive, peer.send)
        while not peer.body:
            await checkpoint()
        for _ in range(100):
            await checkpoint()
        peer.disconnect()

    assert len(peer.body) < 1000


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("text", ["äöü€", "日本語テキスト", "🙂" * 5, "a\u0301" * 4])
async def test_characters_survive_being_cut(text: str, size: int) -> None:
    """
    A client that decodes the stream, not its chunks, gets what was sent.
    """

    async def generate() -> AsyncIterator[str]:
        for character in text:
            yield character

    peer = await stream(generate(), chunk_size=size)

    bodies = [message.get("body", b"") for message in peer.sent[1:]]
    assert b"".join(bodies).decode() == text
    assert all(len(body) == size for body in bodies[:-2])


# --- Wrong options


def test_clients_cannot_be_spread_over_all_eternity() -> None:
    """
    That is found when the response is made, not when the server stops.
    """

    async def nothing() -> AsyncIterator[str]:
        return
        yield ""  # pragma: no cover

    with pytest.raises(ValueError, match="retry_spread"):
        cancelable_sse_response(nothing(), Cancelable(), retry_spread=float("inf"))


def test_nobody_waits_for_an_async_until() -> None:
    """
    A coroutine is true: the draining would be over at once.
    """

    async def until(_: str) -> bool:
        return False  # pragma: no cover

    with pytest.raises(TypeError, match="plain function"):
        Drain(5, until)


# --- Cancelled anywhere


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "options",
    [
        {"drain": Drain(5), "shield": "item", "media_type": EVENTS},
        {"drain": Drain(5), "shield": "item", "chunk_size": 4, "send_timeout": 3},
        {"shield": "item", "media_type": EVENTS, "send_timeout": 3, "ending": "complete"},
    ],
    ids=str,
)
@pytest.mark.parametrize("on_disconnect", ["cancel", "ignore", "finish", Grace(1)], ids=str)
async def test_a_stream_with_everything_may_be_ended_at_any_checkpoint(
    on_disconnect: Any, how: str, options: dict[str, Any]
) -> None:
    """
    The generator is told once at most, ends once, in the task that started it; the response ends once.
    """

    async def attempt(number: int) -> int:
        watched, operation, peer, closed = Watched(), Cancelable(), Peer(), []
        waits = 0

        async def endpoint(request: Request) -> Response:
            apply_policy(RequestPolicy(on_disconnect=on_disconnect))
            both = operation.combine(Cancelable.with_token(get_request_token(request)))
            return await cancelable_streaming_response(
                watched.run(), both, on_close=lambda: closed.append(get_current_task().id), **options
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
        assert peer.left_behind == []
        return waits if number > waits else 0

    async for _ in every_checkpoint(attempt):
        pass
