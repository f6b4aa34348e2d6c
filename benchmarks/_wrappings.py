"""What is put around an application: ours, what it is compared with, and the least that is possible."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from asyncio import current_task
from collections.abc import Callable, Generator, Iterable
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import coroutine
from typing import Any

from anyio import CancelScope
from anyio._backends._asyncio import _task_states
from anyio.lowlevel import current_token
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from . import _apps, _leaving
from ._apps import App, Scope

OLD = "BENCHMARKS_OLD"
"""The environment variable with the directory that release 0.11 is installed in."""


class PassThrough:
    """A middleware that does nothing."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Token:
    """What must be in the scope, at the very least."""

    __slots__ = ("__weakref__", "callbacks", "cause")

    def __init__(self) -> None:
        self.callbacks: dict[object, Any] = {}
        self.cause: Any = None


_current: ContextVar[Any] = ContextVar("current", default=None)


class Floor:
    """What the contract demands of each request, and nothing of what makes it come true.

    A token in the scope and in a context variable; and a ``send`` and a ``receive`` of our own, since
    nobody can tell afterwards how far a response has got, or what was read.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = scope["cancelation_token"] = Token()
        outer = _current.get()
        _current.set(weakref.ref(token))
        try:
            await self.app(scope, _Receive(receive).receive, _Send(send).send)
        finally:
            _current.set(outer)


class WorkingFloor:
    """The least with which it can come true: what the `Floor` has, and whoever cancels the token is heard.

    On asyncio, the application's first step is taken by hand, since most need no other. Where it begins is
    noted, since AnyIO's cancelation takes a scope, and to enter one costs too much; once it waits, its task
    can be interrupted. On Trio, a scope is there from the start. What was stopped sends no more.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.open: set[Token] = set()  # for whom the server's end is news
        self._is_asyncio: bool | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._is_asyncio is None:
            self._is_asyncio = hasattr(current_token().native_token, "call_at")
        token = scope["cancelation_token"] = Token()
        self.open.add(token)
        outer = _current.get()
        _current.set(weakref.ref(token))
        sending = _StoppableSend(send)
        application = self.app(scope, _Receive(receive).receive, sending.send)
        try:
            if self._is_asyncio:
                place = _place()
                for trap in application.__await__():
                    token.callbacks["stop"] = sending.stop
                    token.callbacks["interrupt"] = place[0].cancel
                    self.listen(receive, token)
                    await _rest(application, trap)
                    break
            else:
                with CancelScope() as work:
                    token.callbacks["stop"] = sending.stop
                    token.callbacks["interrupt"] = work.cancel
                    self.listen(receive, token)
                    await application
        finally:
            self.end(token)
            _current.set(outer)
            self.open.discard(token)

    def end(self, token: Token) -> None:
        """Have nobody be called any more."""
        token.callbacks.clear()

    def listen(self, receive: Any, token: Token) -> None:
        """Hear the client leave. Nothing, here."""


class WorkingListener(WorkingFloor):
    """The least with which a client that leaves ends its request: a `WorkingFloor` that listens."""

    def listen(self, receive: Any, token: Token) -> None:
        """Start the task."""
        token.callbacks["listener"] = _listen(receive, token)

    def end(self, token: Token) -> None:
        """End the task."""
        if "listener" in token.callbacks:
            token.callbacks["listener"].cancel()
        super().end(token)


def _place() -> tuple[Any, Any, int]:
    """Note what it takes to put a scope in here later: the task, the scope around, and its native cancels."""
    task: Any = current_task()
    state = _states.get(weakref.ref(task)) if _states else None
    around = None if state is None else state.cancel_scope
    return task, around, 0 if sys.version_info < (3, 11) else task.cancelling()


_states: Any = _task_states.data


@coroutine
def _rest(steps: Any, trap: Any) -> Generator[Any, Any, None]:
    """Await the rest of what has been taken one step by hand."""
    with suppress(StopIteration):
        while True:
            try:
                answer = yield trap
            except BaseException as error:
                trap = steps.throw(error)
            else:
                trap = steps.send(answer)


class _Receive:
    __slots__ = ("_receive",)

    def __init__(self, receive: Any) -> None:
        self._receive = receive

    async def receive(self) -> Any:
        return await self._receive()


class _Send:
    __slots__ = ("_is_complete", "_send")

    def __init__(self, send: Any) -> None:
        self._send = send
        self._is_complete = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self._is_complete = not message.get("more_body")
        await self._send(message)


class _StoppableSend(_Send):
    __slots__ = ("_is_stopped",)

    def __init__(self, send: Any) -> None:
        self._send = send
        self._is_complete = False
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True

    async def send(self, message: Any) -> None:
        if not self._is_stopped:
            if message["type"] == "http.response.body":
                self._is_complete = not message.get("more_body")
            await self._send(message)


class Listener:
    """The least that can hear a client leave: a token, and a task that waits in the server's ``receive()``.

    It keeps what the application should have read to itself, and stops nothing.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = scope["cancelation_token"] = Token()
        listening = _listen(receive, token)
        try:
            await self.app(scope, receive, send)
        finally:
            listening.cancel()


def _listen(receive: Any, token: Token) -> Any:
    """Start the task, in the backend's own way: AnyIO's takes more. Returns what can be cancelled."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(_hear, receive, token, scope)
        return scope
    return loop.create_task(_hear(receive, token, nullcontext()))


async def _hear(receive: Any, token: Token, scope: Any) -> None:
    with scope:
        unread: list[Any] = []
        while not unread or unread[-1]["type"] != "http.disconnect":
            unread.append(await receive())
        token.cause = "the client has left"
        for reaction in [token.callbacks[name] for name in ("stop", "interrupt") if name in token.callbacks]:
            reaction()


async def _dispatch(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def _peer(module: str, name: str) -> Callable[[App], App]:
    def wrap(app: App) -> App:
        # Imported when it is used: in the process of 0.11, the name means another library.
        wrapped: App = getattr(import_module(module), name)(app)
        return wrapped

    return wrap


def _ours(app: App, *timeout: float) -> App:
    """Wrap *app* in our middleware: the one that is made for such an application."""
    module = "hother.cancelable.asgi" if app is _apps.raw else "hother.cancelable.integrations.fastapi"
    wrapped: App = import_module(module).RequestCancelationMiddleware(app, *timeout)
    return wrapped


WRAPPINGS: dict[str, Callable[[App], App]] = {
    "bare": lambda app: app,
    "pass-through": PassThrough,
    "floor": Floor,
    "working floor": WorkingFloor,
    "listener": Listener,
    "working listener": WorkingListener,
    "ours": _ours,
    "ours, 30 s limit": lambda app: _ours(app, 30.0),
    "BaseHTTPMiddleware": lambda app: BaseHTTPMiddleware(app, _dispatch),
    "polling": lambda app: app,  # its handlers poll
    "aiofence": _peer("aiofence.contrib.starlette", "DisconnectMiddleware"),
    "fastapi-disconnect": _peer("fastapi_disconnect", "CancelOnDisconnectMiddleware"),
    "hother-cancelable 0.11": _peer("hother.cancelable.integrations.fastapi", "RequestCancelationMiddleware"),
}

ASYNCIO_ONLY = {"aiofence", "fastapi-disconnect"}
OLD_RELEASE = "hother-cancelable 0.11"

APPLICATIONS: dict[str, Callable[[], App]] = {
    "raw": lambda: _apps.raw,
    "starlette": _apps.starlette,
    "fastapi": _apps.fastapi,
    "block": _apps.block,
    "block-by-hand": _apps.block_by_hand,
    "leaving": _leaving.application,
}


def block_paths(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return for each wrapping the application with the block, or what is compared with it, and its path.

    The bare application has a dependency of no use; with the floor goes the least that fulfils the contract.
    """
    others = {"bare": ("fastapi", "/depends"), "floor": ("block-by-hand", "/block")}
    return {name: others.get(name, ("block", "/block")) for name in names}


def available(names: Iterable[str], where: str) -> list[str]:
    """Return those wrappings that are installed, and that run on an event loop or server."""
    return [name for name in names if _is_installed(name) and not ("trio" in where and name in ASYNCIO_ONLY)]


def _is_installed(name: str) -> bool:
    if name == OLD_RELEASE:
        return bool(os.environ.get(OLD)) and sys.version_info >= (3, 13)
    return name not in ASYNCIO_ONLY or find_spec(name.replace("-", "_")) is not None


def build(application: str, wrapping: str) -> App:
    """Make one of the applications in one of the wrappings.

    Raises:
        RuntimeError: If release 0.11 is meant, and what was imported is not that.
    """
    if wrapping == OLD_RELEASE:
        _use_old_release()
    return WRAPPINGS[wrapping](APPLICATIONS[application]())


def _use_old_release() -> None:
    """Have the present release's name mean the old one, in this process."""
    directory = os.environ[OLD]
    sys.path.insert(0, directory)
    found = import_module("hother.cancelable").__file__
    if not Path(found or "").is_relative_to(Path(directory).resolve()):
        raise RuntimeError(f"release 0.11 should come from {directory}, not from {found}")


def __getattr__(path: str) -> App:
    """Let servers load ``benchmarks._wrappings:fastapi|ours``."""
    application, separator, wrapping = path.partition("|")
    if not separator:
        raise AttributeError(path)
    return build(application, wrapping)
