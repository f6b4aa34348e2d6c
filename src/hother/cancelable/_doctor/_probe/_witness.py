"""The witness: it stands around an application, as the last one before the server.

It tells how the application's call ended, and takes the orders that the doctor gives with requests of
its own, for paths below ``/__control__``. It does not touch ``receive`` and ``send``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from threading import Thread
from typing import Any, TypeAlias, final
from urllib.parse import parse_qs

import anyio

from ..._core._token import CancelationToken
from ._journal import tell

Scope: TypeAlias = Any
Receive: TypeAlias = Any
Send: TypeAlias = Any
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL = "/__control__/"
HEADER = b"x-doctor-run"

OURS = "hother.cancelable."
_NOT_COUNTED = (
    "hother.cancelable._doctor",
    "hother.cancelable._core._reasons",
    "hother.cancelable._core._runtime",  # one for each backend
    "hother.cancelable.asgi._crowd",  # one for each event loop; the requests in it are counted
)
_BARE = "hother.cancelable._doctor._probe._bare"


class Deliberate(Exception):
    """The error that the doctor asked for."""


@final
class Run:
    """One request of the doctor's, while it lasts."""

    def __init__(self, name: str, query: dict[str, str]) -> None:
        self.name = name
        self.query = query
        self.token: CancelationToken | None = None
        self.ordered = anyio.Event()  #: the doctor wants an error
        self.cancel: Callable[[], object] = lambda: None  #: what the server would do

    def tell(self, event: str, **facts: Any) -> None:
        """Tell the doctor that *event* happens to this run."""
        tell(event, self.name, **facts)

    async def work(self, seconds: float = 20.0) -> None:
        """Be busy, until the doctor asks for an error."""
        with anyio.move_on_after(seconds):
            await self.ordered.wait()
            raise Deliberate(f"as the doctor asked, in {self.name}")


runs: dict[str, Run] = {}


def query_of(scope: Scope) -> dict[str, str]:
    """The parameters of a request."""
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}


def run_of(scope: Scope) -> Run:
    """The run that a request belongs to."""
    return runs[query_of(scope)["run"]]


def _name_in(scope: Scope) -> str | None:
    """The run that a request names, in its query or, where that is not ours, in a header."""
    if name := query_of(scope).get("run"):
        return name
    return dict(scope["headers"]).get(HEADER, b"").decode() or None


@final
class Witness:
    """Calls *app*, and tells what becomes of it."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, _telling(receive), send)
        elif scope["path"].startswith(CONTROL):
            await _control(scope["path"].rpartition("/")[2], query_of(scope), receive, send)
        elif (name := _name_in(scope)) is not None:
            await self._serve(name, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        query = query_of(scope)
        run = runs[name] = Run(name, query)
        run.tell("called")
        how, token = "returned", None
        try:
            if "native" not in query:
                await self._app(scope, receive, send)
            elif await self._is_cancelled_in_task(run, scope, receive, send):
                how = "Cancelled"
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            token = run.token
            del runs[run.name]
            run.token = None
            run.tell("left", how=how, callbacks=0 if token is None else token.statistics().callbacks)

    async def _is_cancelled_in_task(self, run: Run, scope: Scope, receive: Receive, send: Send) -> bool:
        """As a server that cancels its tasks: natively on asyncio, with a scope around them on Trio.

        Returns:
            Whether a scope of ours has caught that. What is native passes through.
        """
        if _is_asyncio():
            task = asyncio.current_task()
            assert task is not None
            run.cancel = task.cancel
            await self._app(scope, receive, send)
            return False
        with anyio.CancelScope() as around:
            run.cancel = around.cancel
            await self._app(scope, receive, send)
        return around.cancelled_caught


def _is_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _telling(receive: Receive) -> Receive:
    async def told() -> Any:
        message = await receive()
        tell(message["type"])
        return message

    return told


async def _control(order: str, query: dict[str, str], receive: Receive, send: Send) -> None:
    result = ORDERS[order](query)
    body = json.dumps(result).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _ping(query: dict[str, str]) -> object:
    return "pong"


def _cancel(query: dict[str, str]) -> object:
    run = runs.get(query["run"])
    if run is None or run.token is None:
        return False
    if query.get("where") == "thread":
        thread = Thread(target=run.token.cancel, kwargs={"message": "stopped by an operator"})
        thread.start()
        thread.join()
        return True
    return run.token.cancel(message="stopped by an operator")


def _fail(query: dict[str, str]) -> object:
    runs[query["run"]].ordered.set()
    return True


def _native(query: dict[str, str]) -> object:
    runs[query["run"]].cancel()
    return True


def _freeze(query: dict[str, str]) -> object:
    """Take all there is out of the garbage collector's sight: from now on, collecting is quick."""
    gc.collect()
    gc.freeze()
    return True


def _state(query: dict[str, str]) -> object:
    """What there is of ours in this process, and how long it has been working."""
    cpu = time.process_time()
    gc.collect()
    names = [task.name or "" for task in anyio.get_running_tasks()]
    modules = [(type(thing).__module__, type(thing).__name__) for thing in gc.get_objects()]
    ours = Counter(
        name for module, name in modules if module.startswith(OURS) and not module.startswith(_NOT_COUNTED)
    )
    return {
        "tasks": sorted(name for name in names if OURS in name and "_doctor" not in name),
        "objects": dict(ours),
        "bare": modules.count((_BARE, "Call")),
        "runs": sorted(runs),
        "cpu": [cpu, time.process_time()],
    }


ORDERS: dict[str, Callable[[dict[str, str]], object]] = {
    "ping": _ping,
    "cancel": _cancel,
    "fail": _fail,
    "native": _native,
    "freeze": _freeze,
    "state": _state,
}
