"""A chat room that knows who is there.

    python examples/chat.py

and open http://127.0.0.1:8000/ in two windows (needs the extra ``demo``). What to look at:

* Who closes a window, or loses the connection, disappears from the others' list at once. There is no
  line of code for that, other than the ``finally`` of the membership.
* A member that does not read fast enough does not hold up the others: each has a queue of its own,
  with a bound, and is shown out when it is full.
* A member that says nothing for ten minutes is shown out too; and each is told why, in the close code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import FileResponse

from hother.cancelable import Cancelable, CancelationReason
from hother.cancelable.integrations.fastapi import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    cancelable_dependency,
)

PATIENCE = 100
"""How many messages may wait for a member."""

CLOSE_CODES = {
    CancelationReason.CONDITION: 4008,  # too slow
    CancelationReason.TIMEOUT: 4000,  # nothing said for too long
}

Event = dict[str, Any]


@dataclass(eq=False)
class Member:
    """Somebody who is here."""

    name: str
    operation: Cancelable  #: ends the connection
    outbox: MemoryObjectSendStream[Event]  #: what is yet to be sent


class Room:
    """Who is here."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @contextmanager
    def membership(self, name: str, operation: Cancelable) -> Iterator[MemoryObjectReceiveStream[Event]]:
        """Be a member for the length of a block, which gets what there is to hear."""
        outbox, inbox = anyio.create_memory_object_stream[Event](PATIENCE)
        member = self._members[name] = Member(name, operation, outbox)
        with outbox, inbox:
            try:
                self.tell({"joined": name, "members": sorted(self._members)})
                yield inbox
            finally:
                self.leave(member)

    def leave(self, member: Member) -> None:
        """Have a member gone, for all to see. A second call does nothing."""
        if self._members.get(member.name) is member:
            del self._members[member.name]
            self.tell({"left": member.name, "members": sorted(self._members)})

    def tell(self, event: Event) -> None:
        """Tell all members, and wait for none."""
        for member in list(self._members.values()):
            try:
                member.outbox.send_nowait(event)
            except anyio.WouldBlock:
                member.operation.cancel(CancelationReason.CONDITION, "you do not keep up")
                self.leave(member)


app = FastAPI()
app.add_middleware(RequestCancelationMiddleware)
room = Room()


@app.get("/")
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_suffix(".html"))


@app.websocket("/chat/{name}")
async def chat(websocket: WebSocket, name: str, cancel: Cancelable = Depends(cancelable_dependency)) -> None:
    """Talk to the others, until one side has enough."""
    async with CancelableWebSocket(
        websocket, cancel, idle_timeout=600, send_timeout=10, close_codes=CLOSE_CODES
    ) as socket:
        await socket.accept()
        if name in room:
            await socket.close(4009, f"{name} is here already")
            return
        with room.membership(name, cancel) as inbox:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(deliver, inbox, socket)
                async for text in socket.iter_text():
                    room.tell({"from": name, "text": text})


async def deliver(inbox: MemoryObjectReceiveStream[Event], socket: CancelableWebSocket) -> None:
    """Send a member what there is to hear, as fast as it reads."""
    async for event in inbox:
        await socket.send_json(event)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
