"""The script of a peer: it hangs up, closes its side or stops reading at the chosen moment."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after, sleep

from hother.cancelable import Cancelable
from hother.cancelable.asgi import RequestCancelationMiddleware
from hother.cancelable.testing import HYPERCORN, UVICORN, After, Message, Peer, Receive, Scope, Send

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class App:
    """Reads its body, then streams ten parts of ten bytes, one per second, whether or not anybody reads."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        self.events.append(message["type"])
        await send(START)
        for number in range(10):
            await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
            self.events.append(f"part {number}")
            await sleep(1)
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("after", "size"),
    [
        (After(bytes=0), 0),
        (After(bytes=25), 25),
        (After(bytes=30), 30),
        (After(messages=1), 0),
        (After(messages=3), 20),
        (After(seconds=4.5), 50),
        (After(bytes=25, messages=2, seconds=60), 10),
    ],
    ids=str,
)
async def test_a_client_hangs_up_at_the_chosen_moment(after: After, size: int) -> None:
    """
    Of several limits the first counts; 0 is before the application is called.
    """
    peer = Peer(hang_up=after)

    await peer.run(RequestCancelationMiddleware(App()))

    assert peer.gone
    assert not peer.complete
    assert peer.read == bytes(size)
    assert peer.stopped_after == 0
    assert peer.left_behind == []


async def test_a_client_hangs_up_while_the_application_waits_for_it() -> None:
    """
    The first time that ``receive()`` has nothing to hand over, or a later one.
    """
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not messages or messages[-1]["type"] != "http.disconnect":
            messages.append(await receive())

    await Peer(b"one", b"two", more=True, hang_up=After(receives=1)).run(app)

    assert [message.get("body") for message in messages] == [b"one", b"two", None]


async def test_an_application_that_runs_on_is_found_out() -> None:
    """
    The message shows where it stood; the application was cancelled.
    """
    app = App()
    peer = Peer(hang_up=After(bytes=25), patience=2.5)

    with pytest.raises(AssertionError, match=r"still ran 2\.5 seconds after its client had left") as failure:
        await peer.run(app)

    assert "await sleep(1)" in str(failure.value)
    assert peer.returned
    assert peer.stopped_after == 2.5
    assert app.events[-1] == "part 4"


async def test_an_application_that_stops_in_time_is_fine() -> None:
    """
    Patience counts from the moment at which the client left, be it the very first.
    """
    for hang_up in (After(bytes=25), After(messages=0)):
        peer = Peer(hang_up=hang_up, patience=3)
        await peer.run(RequestCancelationMiddleware(App()))
        assert peer.stopped_after == 0

    stayed = Peer(patience=3)
    await stayed.run(App())
    assert stayed.complete
    assert stayed.read == stayed.body == bytes(100)
    assert stayed.stopped_after is None


async def test_errors_of_the_application_come_out_as_they_are() -> None:
    """
    In no exception group, with a clock running or not.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sleep(1)
        raise KeyError("broken")

    scripts: list[dict[str, Any]] = [
        {},
        {"hang_up": After(seconds=60)},
        {"patience": 1, "hang_up": After(seconds=0.5)},
    ]
    for script in scripts:
        with pytest.raises(KeyError, match="broken"):
            await Peer(**script).run(app)


@pytest.mark.parametrize("habits", [UVICORN, HYPERCORN], ids=str)
async def test_a_client_that_closes_its_side_still_reads(habits: Any) -> None:
    """
    The server reports a disconnect, and what the application sends arrives.
    """
    app = App()
    peer = Peer(b"the first part", more=True, half_close=After(seconds=1), habits=habits, strict=True)

    await peer.run(app)

    assert app.events[0] == "http.disconnect"
    assert peer.body == bytes(100)
    assert peer.complete
    assert not peer.gone
    with pytest.raises(RuntimeError, match="sends nothing"):
        peer.feed(b"more")


async def test_a_client_that_stops_reading_blocks_the_application() -> None:
    """
    Its send() waits, until the client reads again or leaves.
    """
    peer = Peer(stall=After(bytes=20))
    with fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(App(), default_timeout=30))
            await sleep(10)
            assert peer.body == bytes(20)
            peer.release()
            await sleep(2)
            assert len(peer.body) > 20
            peer.disconnect()

    assert peer.stopped_after == 0


async def test_a_websocket_counts_its_messages() -> None:
    """
    Bytes are those of the messages, text in UTF-8.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "é"})
            await send({"type": "websocket.send", "bytes": b"12"})
            if (await receive())["type"] == "websocket.disconnect":
                break

    peer = Peer("go", kind="websocket", hang_up=After(bytes=7))
    await peer.run(app)

    assert peer.messages == ["é", b"12", "é", b"12"]
    assert peer.accepted
    assert peer.gone


async def test_what_the_application_leaves_running_is_told() -> None:
    """
    Its tasks, by their names; others are none of its business.
    """
    async with create_task_group() as elsewhere:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            elsewhere.start_soon(sleep, 60, name="straggler")
            async with create_task_group() as tasks:
                tasks.start_soon(sleep, 1, name="worker")

        elsewhere.start_soon(sleep, 60, name="neighbour")
        peer = Peer()
        await peer.run(app)
        elsewhere.cancel_scope.cancel()

    assert peer.left_behind == ["straggler"]


async def test_what_can_no_longer_happen_is_not_waited_for() -> None:
    """
    A test would hang for ever.
    """
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, App())
        with pytest.raises(AssertionError, match="returned before that: <Peer uvicorn status=200 sent=12>"):
            await peer.until(lambda: peer.status == 404)
        await peer.until(lambda: peer.complete)


async def test_its_repr_tells_how_far_it_is() -> None:
    """
    What a failed assertion shows.
    """
    peer = Peer(hang_up=After(messages=1))
    assert repr(peer) == "<Peer uvicorn status=None sent=0>"

    await peer.run(RequestCancelationMiddleware(App()))

    assert repr(peer).startswith("<Peer uvicorn gone status=200")


async def test_any_awaitable_application_will_do() -> None:
    """
    ASGI asks for an awaitable, not for a coroutine.
    """

    class Later:
        def __await__(self) -> Any:
            return sleep(1).__await__()

    peer = Peer(hang_up=After(awaits=1))
    await peer.run(lambda scope, receive, send: Later())

    assert peer.gone
    assert peer.stopped_after == 1


async def test_a_peer_and_its_script_can_be_cancelled() -> None:
    """
    Whatever it waits for.
    """
    peer = Peer(hang_up=After(seconds=60), patience=5)
    with anyio.move_on_after(1) as scope:
        await peer.run(App())

    assert scope.cancelled_caught
    assert peer.returned
    assert peer.stopped_after is None


async def test_operations_of_the_application_are_stopped_at_any_await() -> None:
    """
    The loop that a user would write.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable.with_token(scope["cancelation_token"]), create_task_group() as tasks:
            tasks.start_soon(sleep, 1)
            await sleep(2)
        await App()(scope, receive, send)

    number = 0
    while True:
        number += 1
        peer = Peer(habits=HYPERCORN, hang_up=After(awaits=number), patience=1)
        await peer.run(RequestCancelationMiddleware(app))
        assert peer.left_behind == []
        if not peer.gone:
            break
    assert number > 10


@pytest.mark.parametrize("limits", [{}, {"bytes": -1}, {"seconds": float("nan")}], ids=str)
def test_impossible_moments_are_refused(limits: dict[str, Any]) -> None:
    """
    One without a limit would never come.
    """
    with pytest.raises(ValueError, match="at least one limit"):
        After(**limits)
