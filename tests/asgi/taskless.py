"""Has the scripted peer wait as uvicorn does: for nothing but futures of asyncio.

So it needs no task to be read from, and no scope around what is sent before somebody wants to interrupt that.
"""

from __future__ import annotations

import asyncio
from types import MethodType
from typing import Any

import anyio
import pytest

from hother.cancelable.asgi._types import Message
from hother.cancelable.testing import _peer

_receive = _peer.Peer.receive
_send = _peer.Peer.send


class _Asyncio:
    """What the peer needs of AnyIO, made of asyncio: that works outside of tasks, too."""

    @staticmethod
    def Event() -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # which AnyIO's waits for
            return anyio.Event()
        return asyncio.Event()

    @staticmethod
    def get_cancelled_exc_class() -> type[BaseException]:
        return asyncio.CancelledError

    @staticmethod
    def current_time() -> float:
        return asyncio.get_running_loop().time()

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)


async def _turn() -> None:
    await asyncio.sleep(0)


async def receive_like_uvicorn(peer: _peer.Peer) -> Message:
    """ASGI's ``receive()``, from a module that is known to need no task."""
    return await _receive(peer)


async def send_like_uvicorn(peer: _peer.Peer, message: Message) -> None:
    """ASGI's ``send()``, from a module that is known to open no scopes."""
    await _send(peer, message)


receive_like_uvicorn.__module__ = send_like_uvicorn.__module__ = "uvicorn.protocols.http.httptools_impl"


def _send_of(peer: _peer.Peer) -> MethodType:
    is_http = peer.scope["type"] == "http"  # of uvicorn's WebSockets, nothing is known
    return MethodType(send_like_uvicorn if is_http else _send, peer)


def let_peers_need_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test. On asyncio only."""
    monkeypatch.setattr(_peer, "anyio", _Asyncio())
    monkeypatch.setattr(_peer, "checkpoint", _turn)
    monkeypatch.setattr(_peer.Peer, "receive", receive_like_uvicorn)
    monkeypatch.setattr(_peer.Peer, "send", property(_send_of))
