"""Clients who lose their connection, and come back for the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hother.cancelable import CancelationReason, LifecycleError, current_operation
from hother.cancelable.asgi import current_request_token
from hother.cancelable.integrations.starlette import (
    RequestCancelationMiddleware,
    ResumableEvents,
    ServerSentEvent,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer
from tests.event_stream import Received, parse

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


class Progress:
    """A job that reports every second, and takes notes."""

    def __init__(self, count: int = 10, *, own_ids: bool = False, pace: float = 1) -> None:
        self.count = count
        self.own_ids = own_ids
        self.pace = pace
        self.calls: list[str | None] = []
        self.made: list[int] = []
        self.ended_at: list[float] = []
        self.cause: Any = None

    async def run(self, last_event_id: str | None) -> AsyncIterator[ServerSentEvent | str]:
        self.calls.append(last_event_id)
        operation = current_operation()
        try:
            for number in range(self.count):
                self.made.append(number)
                yield ServerSentEvent(str(number), id=f"own-{number}" if self.own_ids else None)
                await anyio.sleep(self.pace)
        finally:
            self.ended_at.append(anyio.current_time())
            self.cause = None if operation is None else operation.cancelation


class Site:
    """An application with one feed per request, and its visitors."""

    def __init__(self, produce: Any, *, habits: Habits = ALL_HABITS[0], **options: Any) -> None:
        self.feeds = ResumableEvents(**options)
        self.habits = habits
        self.options: dict[str, Any] = {}

        async def endpoint(request: Request) -> Response:
            return self.feeds.respond(request, produce, **self.options)

        self.app = Starlette(routes=[Route("/", endpoint)])
        self.app.add_middleware(RequestCancelationMiddleware)

    async def visit(self, seconds: float, last_event_id: str | None = None) -> Peer:
        """Come, and leave after so many seconds."""
        headers = [] if last_event_id is None else [("last-event-id", last_event_id)]
        peer = Peer(headers=headers, habits=self.habits)
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, self.app)
            with anyio.move_on_after(seconds):
                await peer.until(lambda: peer.returned)
            peer.disconnect()
        return peer


def events_of(peer: Peer) -> list[Received]:
    return parse(peer.body).events


def data_of(peer: Peer) -> list[str]:
    return [event.data for event in events_of(peer)]


@every_server
async def test_a_client_that_comes_back_gets_what_it_has_missed(habits: Habits) -> None:
    """
    And then what comes, as if nothing had happened; the generator has gone on meanwhile.
    """
    progress = Progress()
    site = Site(progress.run, habits=habits)
    async with site.feeds:
        first = await site.visit(2.5)
        await anyio.sleep(3)
        second = await site.visit(100, events_of(first)[-1].last_event_id)

    assert data_of(first) == ["0", "1", "2"]
    assert data_of(second) == [str(number) for number in range(3, 10)]
    assert second.sent_at[1:5] == [5.5, 5.5, 5.5, 6]
    assert second.complete
    assert progress.calls == [None]
    assert progress.ended_at == [10]


async def test_what_was_lost_on_the_way_comes_again() -> None:
    """
    What was sent may not have arrived: the client says what has.
    """
    progress = Progress()
    site = Site(progress.run)
    async with site.feeds:
        first = await site.visit(4.5)
        second = await site.visit(100, events_of(first)[1].last_event_id)

    assert data_of(second) == [str(number) for number in range(2, 10)]


@given(
    visits=st.lists(st.tuples(st.floats(0.1, 5), st.floats(0, 20), st.integers(0, 3)), max_size=6),
    buffer=st.integers(4, 20),
)
async def test_there_are_no_gaps_and_no_duplicates(
    visits: list[tuple[float, float, int]], buffer: int
) -> None:
    """
    However often a client leaves, how long it stays away and how much was lost on the way.
    """
    progress = Progress(40)
    site = Site(progress.run, buffer=buffer, window=30)
    got: list[Received] = []
    async with site.feeds:
        for stays, away, lost in [*visits, (1000, 0, 0)]:
            peer = await site.visit(stays, got[-1].last_event_id if got else None)
            events = events_of(peer)
            if peer.status == 204:
                break
            if not got and not events:
                return  # nothing arrived, so nothing could be resumed
            got += events[: max(len(events) - lost, 0 if got else 1)]
            await anyio.sleep(away)

    assert [event.data for event in got] == [str(number) for number in range(40)]
    assert progress.calls == [None]


@every_server
async def test_a_generator_whose_client_does_not_come_back_is_cancelled(habits: Habits) -> None:
    """
    When the window is over.
    """
    progress = Progress(1000)
    site = Site(progress.run, habits=habits, window=10)
    async with site.feeds:
        first = await site.visit(2.5)
        await anyio.sleep(100)
        second = await site.visit(1.5, events_of(first)[-1].last_event_id)

    assert progress.ended_at[0] == 12.5
    assert data_of(second) == ["0", "1"]  # from the beginning: it came too late
    assert progress.calls == [None, None]


async def test_the_cause_is_a_client_who_has_left() -> None:
    """
    The generator's operation tells.
    """
    progress = Progress(1000)
    site = Site(progress.run, window=10)
    async with site.feeds:
        await site.visit(2.5)
        await anyio.sleep(11)

    assert progress.cause.reason is CancelationReason.DISCONNECT
    assert progress.cause.text == "no client came back within 10 seconds"


async def test_a_client_that_never_begins_to_listen_is_waited_for_as_long() -> None:
    """
    It may have left before the response was sent.
    """
    progress = Progress(1000)
    site = Site(progress.run, window=10)
    async with site.feeds:
        site.feeds.respond(Request({"type": "http", "path": "/", "headers": []}), progress.run)
        await anyio.sleep(100)

    assert progress.ended_at == [10]


async def test_the_generator_waits_when_there_is_no_room() -> None:
    """
    So the client has no gap, however long it is away.
    """
    progress = Progress(100)
    site = Site(progress.run, window=1000, buffer=5)
    async with site.feeds:
        first = await site.visit(2.5)
        await anyio.sleep(500)
        assert len(progress.made) == 9  # of which 5 wait, and one is in hand
        second = await site.visit(1000, events_of(first)[-1].last_event_id)

    assert data_of(second) == [str(number) for number in range(3, 100)]


async def test_a_client_that_has_less_than_what_is_kept_starts_again() -> None:
    """
    It is not given events with a gap between them, and the old generator is cancelled.
    """
    progress = Progress(100, own_ids=True)
    site = Site(progress.run, window=1000, buffer=5)
    async with site.feeds:
        first = await site.visit(20.5)
        second = await site.visit(1.5, events_of(first)[1].last_event_id)
        assert progress.ended_at == [20.5]

    assert data_of(second) == ["0", "1"]
    assert progress.calls == [None, "own-1"]


@pytest.mark.parametrize(
    ("last_event_id", "own"),
    [("unknown.7", None), ("unknown.7.mine", "mine"), ("mine", "mine"), ("a.b.c", "a.b.c"), ("", None)],
)
async def test_a_client_of_another_process_starts_where_the_generator_likes(
    last_event_id: str, own: str | None
) -> None:
    """
    It is told the id that it gave the event itself.
    """
    progress = Progress(1)
    site = Site(progress.run)
    async with site.feeds:
        peer = await site.visit(100, last_event_id)

    assert data_of(peer) == ["0"]
    assert progress.calls == [own]


@pytest.mark.parametrize("number", ["99", "-1", "1e3", "²", "9" * 400])
async def test_a_number_that_was_never_given_starts_again(number: str) -> None:
    """
    Clients may send what they like.
    """
    progress = Progress(10)
    site = Site(progress.run)
    async with site.feeds:
        first = await site.visit(2.5)
        feed = events_of(first)[-1].last_event_id.partition(".")[0]
        second = await site.visit(1.5, f"{feed}.{number}".encode().decode("latin-1"))

    assert data_of(second) == ["0", "1"]


async def test_a_client_that_has_everything_is_told_not_to_come_again() -> None:
    """
    With the status that an ``EventSource`` understands so.
    """
    site = Site(Progress(3).run)
    async with site.feeds:
        first = await site.visit(100)
        second = await site.visit(100, events_of(first)[-1].last_event_id)

    assert first.complete
    assert second.status == 204
    assert second.body == b""


async def test_the_rest_of_a_generator_that_has_ended_is_kept() -> None:
    """
    For as long as the client is waited for.
    """
    site = Site(Progress(5).run)
    async with site.feeds:
        first = await site.visit(2.5)
        await anyio.sleep(20)
        second = await site.visit(100, events_of(first)[-1].last_event_id)

    assert data_of(second) == ["3", "4"]
    assert second.complete


async def test_the_latest_client_has_the_feed() -> None:
    """
    The connection of the one before may be dead, and nobody has noticed yet.
    """
    site = Site(Progress(10).run)
    peers: list[Peer] = []

    async def visit(seconds: float, last_event_id: str | None = None) -> None:
        peers.append(await site.visit(seconds, last_event_id))

    async with site.feeds, create_task_group() as tasks:
        first = await site.visit(2.5)
        tasks.start_soon(visit, 1000, events_of(first)[-1].last_event_id)
        await anyio.sleep(2)
        tasks.start_soon(visit, 1000, events_of(first)[-1].last_event_id)

    older, newer = peers
    assert older.returned
    assert data_of(older) == ["3", "4"]
    assert data_of(newer) == [str(number) for number in range(3, 10)]


async def test_the_client_before_uses_up_nothing_that_is_kept_for_the_next_one() -> None:
    """
    From the moment that the next one has asked, though its response may begin later.
    """
    progress = Progress(20)
    site = Site(progress.run, buffer=1)
    old = Peer()
    async with site.feeds, create_task_group() as tasks:
        tasks.start_soon(old.run, site.app)
        await anyio.sleep(4.5)
        new = Peer(headers=[("last-event-id", events_of(old)[-1].last_event_id)])
        new.stall()
        tasks.start_soon(new.run, site.app)
        await anyio.sleep(5)
        new.release()
        await new.until(lambda: new.complete)
        old.disconnect()

    assert data_of(old) + data_of(new) == [str(number) for number in range(20)]
    assert progress.calls == [None]


async def test_asking_begins_the_wait_anew() -> None:
    """
    A client that comes at the last moment finds its feed alive when its response begins.
    """
    progress = Progress()
    site = Site(progress.run, window=3)
    async with site.feeds, create_task_group() as tasks:
        first = await site.visit(2.5)
        new = Peer(headers=[("last-event-id", events_of(first)[-1].last_event_id)])
        new.stall()
        await anyio.sleep(2)
        tasks.start_soon(new.run, site.app)
        await anyio.sleep(2)
        new.release()

    assert data_of(first) + data_of(new) == [str(number) for number in range(10)]
    assert len(progress.ended_at) == 1


async def test_too_many_who_wait_are_not_kept() -> None:
    """
    Who has waited for longest goes first.
    """
    progress = Progress(1000)
    site = Site(progress.run, window=1000, max_waiting=2)
    async with site.feeds:
        for _ in range(3):
            await site.visit(1)

        assert progress.ended_at == [2]
        assert progress.cause.text == "too many others wait for their clients"


async def test_the_end_of_the_application_ends_all() -> None:
    """
    With the cause, those with and those without a client.
    """
    progress = Progress(1000)
    site = Site(progress.run)
    peers: list[Peer] = []

    async def visit() -> None:
        peers.append(await site.visit(1000))

    async with create_task_group() as tasks:
        async with site.feeds:
            await site.visit(1.5)
            tasks.start_soon(visit)
            await anyio.sleep(2)

    assert progress.ended_at == [3.5, 3.5]
    assert progress.cause.reason is CancelationReason.SHUTDOWN
    assert events_of(peers[0])[-1].type == "cancelled"
    assert events_of(peers[0])[-1].json["reason"] == "shutdown"


async def test_an_error_in_the_lifespan_leaves_as_itself() -> None:
    """
    It is none of the feeds.
    """
    site = Site(Progress(1000).run)
    with pytest.raises(ValueError, match="of the application"):
        async with site.feeds:
            await site.visit(1.5)
            raise ValueError("of the application")


async def test_a_feed_may_have_a_time_limit() -> None:
    """
    It counts from its first client's coming, through all that come and go; the client is told.
    """
    progress = Progress(1000)
    site = Site(progress.run)
    site.options = {"timeout": 5}
    async with site.feeds:
        first = await site.visit(2.5)
        second = await site.visit(1000, events_of(first)[-1].last_event_id)

    assert progress.ended_at == [5]
    assert [event.type for event in events_of(second)] == ["message", "message", "cancelled"]
    assert events_of(second)[-1].json["reason"] == "timeout"


async def test_a_feed_does_not_belong_to_the_request_that_began_it() -> None:
    """
    Neither its operation nor its token are around the generator.
    """
    seen: list[Any] = []

    async def produce(_: str | None) -> AsyncIterator[str]:
        operation = current_operation()
        assert operation is not None
        yield "x"
        await anyio.sleep(5)
        operation.check()
        seen.append((operation.name, operation.parent, current_request_token()))
        yield "y"

    site = Site(produce)
    async with site.feeds:
        await site.visit(1)
        await anyio.sleep(10)

    assert seen == [("/", None, None)]


# --- Failures


async def failing(_: str | None) -> AsyncIterator[str]:
    yield "x"
    await anyio.sleep(5)
    raise ValueError("broken")


async def test_a_generator_that_fails_fails_its_client() -> None:
    """
    After what it has made before; a client that comes again starts again.
    """
    site = Site(failing)
    async with site.feeds:
        with pytest.raises(BaseException) as raised:  # noqa: PT011 (in the groups of the test)
            await site.visit(100)
        assert "broken" in repr(raised.value)

        peer = await site.visit(1)
        assert data_of(peer) == ["x"]


async def test_a_failure_that_no_client_hears_of_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where uncaught exceptions go.
    """
    reported: list[type[BaseException]] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, *_: reported.append(kind))
    site = Site(failing, window=20)
    async with site.feeds:
        await site.visit(1)
        await anyio.sleep(100)

    assert reported == [ValueError]


@pytest.mark.parametrize(
    "produce",
    [lambda _: 3, lambda: None, lambda _: Progress(1).run],
    ids=["number", "no argument", "function"],
)
async def test_what_makes_no_events_fails_its_client(produce: Callable[..., Any]) -> None:
    """
    And nobody else.
    """
    site = Site(produce)
    async with site.feeds:
        with pytest.raises(BaseException) as raised:  # noqa: PT011 (in the groups of the test)
            await site.visit(100)

    assert "TypeError" in repr(raised.value)


async def test_it_has_to_be_entered_once() -> None:
    """
    The feeds' tasks need a home.
    """
    feeds = ResumableEvents()
    request = Request({"type": "http", "path": "/", "headers": []})

    with pytest.raises(LifecycleError, match="lifespan"):
        feeds.respond(request, Progress(1).run)
    async with feeds:
        with pytest.raises(LifecycleError, match="once at a time"):
            await feeds.__aenter__()
    async with feeds:  # again, after it was left
        pass


@pytest.mark.parametrize(
    "options", [{"window": -1}, {"window": float("inf")}, {"buffer": 0}, {"max_waiting": 1.5}], ids=str
)
def test_numbers_are_checked(options: dict[str, Any]) -> None:
    """
    Early.
    """
    with pytest.raises(ValueError, match="must"):
        ResumableEvents(**options)
