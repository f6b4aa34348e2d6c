"""The servers: how each is started, what it speaks, and what it cannot do.

A quirk excuses nothing. A cell becomes a limitation of its server when an application without the
middleware fails there just so, in the same run; the quirk then says where to read about it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

GRACE = 4
"""How long a server is told to wait for its requests when it stops, in seconds."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """Something that a server cannot do."""

    scenarios: str  #: a pattern of their names
    text: str  #: what it is
    reference: str  #: where it can be read, or was measured


@dataclass(frozen=True, slots=True)
class Server:
    """One way to run an application."""

    name: str
    package: str
    command: tuple[
        str, ...
    ]  #: after ``python -m``; ``{fd}``, ``{port}``, ``{app}`` and ``{grace}`` are replaced
    needs: tuple[str, ...] = ()  #: packages besides its own
    abilities: frozenset[str] = frozenset()  #: of ``http/2`` and ``websocket``
    quirks: tuple[Quirk, ...] = ()
    pace: float = 1.0  #: how long it takes to examine, compared with the others

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [name for name in (self.package, *self.needs) if find_spec(name) is None]

    @property
    def version(self) -> str:
        """The version of its package."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""

    def command_for(self, app: str, *, descriptor: int, port: int) -> list[str]:
        """Return the command that serves *app* on a socket that is open already, or on *port*."""
        places = {"app": app, "fd": descriptor, "port": port, "grace": GRACE}
        return [sys.executable, "-m", *(part.format(**places) for part in self.command)]

    def quirk_for(self, scenario: str) -> Quirk | None:
        """Return what is known about *scenario* here."""
        return next((quirk for quirk in self.quirks if fnmatchcase(scenario, quirk.scenarios)), None)


_LIFECYCLE = "measured: see the page on servers"

_UNREAD = Quirk(
    "blind/unread",
    "a client's leaving comes in line behind its body: nobody hears of it while more than the read-ahead "
    "waits unread. Read the body, or set a deadline",
    "https://github.com/django/asgiref/blob/main/specs/www.rst",
)
_PIPELINED = Quirk(
    "blind/pipelined",
    "a second request that waits behind the first one hides the client's leaving. Browsers and proxies do "
    "not pipeline; for others, set a deadline",
    "https://github.com/Kludex/uvicorn/pull/2243",
)
_HALF_CLOSED = Quirk(
    "half-close/stalled",
    "a client that half-closes and does not read is seen to leave only when it closes: what was written "
    "before is waited for",
    "https://github.com/Kludex/uvicorn/issues/1264",
)
_ASKED = Quirk(
    "body/asked-for",
    "``100 Continue`` is sent for every request that expects it, before the application asks for the body",
    _LIFECYCLE,
)

_UVICORN = (_UNREAD, _PIPELINED, _HALF_CLOSED)
_HYPERCORN = (
    _UNREAD,
    _PIPELINED,
    _HALF_CLOSED,
    _ASKED,
    Quirk(
        "h2-deadline/st*",
        "an HTTP/2 stream whose application ends in the middle of a response is neither ended nor reset: its "
        "client waits. Give streams an end of their own, or clients a timeout",
        "https://github.com/pgjones/hypercorn/issues/226",
    ),
    Quirk(
        "blind/stream-unread",
        "the reset of an HTTP/2 stream waits behind another stream's unread body",
        _LIFECYCLE,
    ),
)
_GRANIAN = (_UNREAD, _PIPELINED)
_GUNICORN = (_UNREAD, _HALF_CLOSED)
_DAPHNE = (
    _UNREAD,
    _ASKED,
    Quirk(
        "*/mid-body",
        "an application is called when all of the body has arrived, and not before",
        "https://github.com/django/daphne/issues/483",
    ),
    Quirk(
        "websocket/ticker/operator",
        "close codes from 1001 to 2999 are refused. The middleware sends a private one then: 4013 for 1013",
        "https://github.com/django/daphne/issues/374",
    ),
    Quirk(
        "sigterm/*",
        "it has no lifespan, and its loop ends at once on SIGTERM: nobody can be told or answered",
        _LIFECYCLE,
    ),
    Quirk(
        "native/*",
        "what is cancelled natively is never answered, and kept for ever",
        _LIFECYCLE,
    ),
    Quirk(
        "error/*",
        "an application that fails after its response has started leaves its client waiting, and is kept "
        "until the next look at it",
        _LIFECYCLE,
    ),
    Quirk(
        "*",
        "a response that its application leaves unfinished is never ended: its client waits, until "
        "``--http-timeout``",
        _LIFECYCLE,
    ),
)


_WEBSOCKET = frozenset({"websocket"})
_HTTP2 = frozenset({"http/2", "websocket"})


def _uvicorn(name: str, loop: str, http: str, ws: str, *needs: str) -> Server:
    options = f"--fd {{fd}} --loop {loop} --http {http} --ws {ws} --no-access-log"
    shutdown = "--timeout-graceful-shutdown {grace}"
    command = ("uvicorn", "{app}", *options.split(), *shutdown.split())
    return Server(f"uvicorn-{name}", "uvicorn", command, needs, _WEBSOCKET, _UVICORN)


def _hypercorn(worker: str, *needs: str) -> Server:
    command = f"hypercorn {{app}} -b fd://{{fd}} -k {worker} --graceful-timeout {{grace}}"
    return Server(
        f"hypercorn-{worker}",
        "hypercorn",
        tuple(command.split()),
        needs,
        _HTTP2,
        _HYPERCORN,
        2.0,
    )


def _every() -> Iterator[Server]:
    yield _uvicorn("h11", "asyncio", "h11", "websockets", "h11", "websockets")
    yield _uvicorn("httptools", "asyncio", "httptools", "wsproto", "httptools", "wsproto")
    yield _uvicorn("uvloop", "uvloop", "httptools", "websockets-sansio", "uvloop", "httptools", "websockets")
    yield _hypercorn("asyncio")
    yield _hypercorn("uvloop", "uvloop")
    yield _hypercorn("trio", "trio")
    granian = "granian --interface asgi --port {port} --workers-kill-timeout {grace} --loop asyncio {app}"
    yield Server("granian", "granian", tuple(granian.split()), (), _HTTP2, _GRANIAN)
    gunicorn = "gunicorn -k asgi -b fd://{fd} --graceful-timeout {grace} --no-control-socket {app}"
    yield Server("gunicorn", "gunicorn", tuple(gunicorn.split()), (), _WEBSOCKET, _GUNICORN)
    daphne = "daphne --fd {fd} -v 1 {app}"
    yield Server("daphne", "daphne", tuple(daphne.split()), (), _WEBSOCKET, _DAPHNE, 4.0)


SERVERS = {server.name: server for server in _every()}
