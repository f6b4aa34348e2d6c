"""Sockets by hand, for clients that leave in every way that there is."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import final

import anyio

_PIECE = 262_144


@final
class Wire:
    """A connection to a port of this machine. Whoever waits for it too long is cut short by a scope."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    async def open(cls, port: int, *, buffer: int | None = None) -> Wire:
        """Connect.

        Args:
            port: Where to.
            buffer: How much may wait here to be received, in bytes; the system's choice by default.

        Raises:
            OSError: If nobody listens.
        """
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            sock.connect(("127.0.0.1", port))  # takes no time on this machine, up or not
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return cls(sock)

    async def send(self, data: bytes) -> None:
        """Send all of *data*.

        Raises:
            OSError: If the server has closed the connection.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view[:_PIECE]) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def receive(self) -> bytes:
        """Receive something; nothing when the server has closed the connection.

        Raises:
            OSError: If it was reset.
        """
        while True:
            try:
                return self._socket.recv(_PIECE)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    def close(self) -> None:
        """Close, as programs do."""
        self._socket.close()

    def reset(self) -> None:
        """Close with a reset, as a crash or a load balancer does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Say that there is nothing more to send, and go on receiving."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
