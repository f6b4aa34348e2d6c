"""Tasks that work for an application as long as it is up."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio._backends import _asyncio
from anyio.lowlevel import checkpoint

from hother.cancelable.asgi import RequestCancelationMiddleware
from hother.cancelable.asgi._helpers import Helpers
from hother.cancelable.asgi._loops import this_loop
from hother.cancelable.asgi._types import Message, Receive, Scope, Send


class Helper:
    """A task that takes a while to end."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.may_end = anyio.Event()

    async def run(self) -> None:
        self.events.append("begins")
        try:
            await anyio.sleep_forever()
        finally:
            self.events.append("is cancelled")
            with anyio.CancelScope(shield=True):
                await self.may_end.wait()
            self.events.append("ends")


async def test_they_have_ended_when_they_are_left() -> None:
    helper = Helper()
    helper.may_end.set()

    async with Helpers(this_loop()) as helpers:
        helpers.start(helper.run)
        await wait_all_tasks_blocked()
        assert helper.events == ["begins"]

    assert helper.events == ["begins", "is cancelled", "ends"]


async def test_an_error_goes_on_once_they_have_ended() -> None:
    helper = Helper()
    helper.may_end.set()

    with pytest.raises(KeyError):
        async with Helpers(this_loop()) as helpers:
            helpers.start(helper.run)
            await wait_all_tasks_blocked()
            raise KeyError

    assert helper.events == ["begins", "is cancelled", "ends"]


@pytest.mark.only_on("asyncio")  # Trio has no cancels that go through shields
async def test_a_native_cancel_is_raised_once_they_have_ended() -> None:
    helper = Helper()

    async def serve() -> None:
        async with Helpers(this_loop()) as helpers:
            helpers.start(helper.run)
            await checkpoint()

    server = asyncio.create_task(serve())
    await wait_all_tasks_blocked()
    assert helper.events == ["begins", "is cancelled"]
    server.cancel()
    await wait_all_tasks_blocked()
    assert not server.done()
    helper.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await server

    assert helper.events == ["begins", "is cancelled", "ends"]


async def test_who_is_closed_does_not_wait_for_them() -> None:
    helper = Helper()
    helper.may_end.set()

    async def serve() -> None:
        async with Helpers(this_loop()) as helpers:
            helpers.start(helper.run)
            await anyio.sleep_forever()

    server = serve()
    server.send(None)
    await wait_all_tasks_blocked()
    server.close()
    await wait_all_tasks_blocked()

    assert helper.events == ["begins", "is cancelled", "ends"]


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


def test_no_scope_is_open_on_asyncio_while_an_application_is_up() -> None:
    """Else each request would look for the one that is around it."""

    async def serve() -> int:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        is_up = asyncio.Event()

        async def send(message: Message) -> None:
            is_up.set()

        app = RequestCancelationMiddleware(lifespan)
        messages.put_nowait({"type": "lifespan.startup"})
        server = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
        await is_up.wait()
        opened = sum(task in _asyncio._task_states for task in asyncio.all_tasks())
        messages.put_nowait({"type": "lifespan.shutdown"})
        await server
        return opened

    assert asyncio.run(serve()) == 0
