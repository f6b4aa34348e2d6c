"""Starlette: the token of a request, ``is_disconnected()``, and the middleware among its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    TimeoutCancelation,
    current_operation,
)
from hother.cancelable.asgi import PROBLEM_JSON, TOKEN_KEY, ASGIApp, Grace
from hother.cancelable.integrations.starlette import (
    RequestCancelationMiddleware,
    get_request_token,
    with_cancelation,
)
from tests.asgi_peer import ALL_HABITS, HYPERCORN_H2, Habits, Peer

HOUR = 3600.0

# BaseHTTPMiddleware forgets to close one, in the Starlettes that run on Python 3.10.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator .*Request.stream:ResourceWarning")

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)

Endpoint = Callable[[Request], Awaitable[Response]]
Wrap = Callable[..., ASGIApp]


class PassThrough(BaseHTTPMiddleware):
    """The smallest ``BaseHTTPMiddleware``, which changes ``receive`` and ``send`` all the same."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class Reading(BaseHTTPMiddleware):
    """One that reads the body before the application does."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        await request.body()
        return await call_next(request)


class ReadingLate(BaseHTTPMiddleware):
    """One that reads, after the application, the body that it left unread."""

    bodies: ClassVar[list[bytes]] = []

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        self.bodies.append(await request.body())
        return response


class Awaiting(BaseHTTPMiddleware):
    """One that looks something up before it lets a request pass."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        await anyio.sleep(1)
        return await call_next(request)


def routes(endpoint: Endpoint) -> list[Route]:
    return [Route("/", endpoint, methods=["GET", "POST"])]


def added(endpoint: Endpoint, **options: Any) -> ASGIApp:
    """The middleware the usual way."""
    app = Starlette(routes=routes(endpoint))
    app.add_middleware(RequestCancelationMiddleware, **options)
    return app


def around(endpoint: Endpoint, **options: Any) -> ASGIApp:
    """The middleware around the application as a whole."""
    return RequestCancelationMiddleware(Starlette(routes=routes(endpoint)), **options)


def outside_base(endpoint: Endpoint, **options: Any) -> ASGIApp:
    app = Starlette(routes=routes(endpoint))
    app.add_middleware(PassThrough)
    app.add_middleware(RequestCancelationMiddleware, **options)
    return app


def inside_base(endpoint: Endpoint, **options: Any) -> ASGIApp:
    app = Starlette(routes=routes(endpoint))
    app.add_middleware(RequestCancelationMiddleware, **options)
    app.add_middleware(PassThrough)
    return app


def between_bases(endpoint: Endpoint, **options: Any) -> ASGIApp:
    app = Starlette(routes=routes(endpoint))
    app.add_middleware(PassThrough)
    app.add_middleware(RequestCancelationMiddleware, **options)
    app.add_middleware(Reading)
    return app


def inside_base_and_others(endpoint: Endpoint, **options: Any) -> ASGIApp:
    """With a middleware between that wraps ``send``."""
    app = Starlette(routes=routes(endpoint))
    app.add_middleware(RequestCancelationMiddleware, **options)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(PassThrough)
    return app


def mounted(endpoint: Endpoint, **options: Any) -> ASGIApp:
    """In a sub-application of its own."""
    inner = Starlette(
        routes=routes(endpoint), middleware=[Middleware(RequestCancelationMiddleware, **options)]
    )
    return Starlette(routes=[Mount("/", inner)])


def mounted_in_base(endpoint: Endpoint, **options: Any) -> ASGIApp:
    """In a sub-application, whose outer application has a ``BaseHTTPMiddleware``."""
    inner = Starlette(
        routes=routes(endpoint), middleware=[Middleware(RequestCancelationMiddleware, **options)]
    )
    return Starlette(routes=[Mount("/", inner)], middleware=[Middleware(PassThrough)])


OUTSIDE = (added, around, outside_base, mounted)
INSIDE = (inside_base, between_bases, inside_base_and_others, mounted_in_base)

# A BaseHTTPMiddleware around us sends its response, or a 500, even to a client that left. Most servers
# put up with that; one that does not is no place for a BaseHTTPMiddleware, with or without us.
PATIENT = tuple(habits for habits in ALL_HABITS if habits.late_send == "ignored")


def servers_for(wrap: Wrap) -> tuple[Habits, ...]:
    return ALL_HABITS if wrap in OUTSIDE else PATIENT


@dataclass(frozen=True)
class Place:
    """A place in the middleware stack, on a server."""

    wrap: Wrap
    habits: Habits

    def __str__(self) -> str:
        return f"{self.wrap.__name__}-{self.habits}"

    def peer(self, *body: bytes) -> Peer:
        return Peer(*body, habits=self.habits, strict=self.wrap in OUTSIDE)


PLACES = [Place(wrap, habits) for wrap in OUTSIDE + INSIDE for habits in servers_for(wrap)]

everywhere = pytest.mark.parametrize("place", PLACES, ids=str)
in_every_place = pytest.mark.parametrize("wrap", OUTSIDE + INSIDE, ids=lambda wrap: wrap.__name__)


# --- In every place of the stack


@everywhere
async def test_a_body_arrives_whole(place: Place) -> None:
    """
    Early or late, whatever else reads it on the way.
    """

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(HOUR)
        return Response(await request.body())

    peer = place.peer(b"one", b"", b"two", b"three" * 50_000)
    await peer.run(place.wrap(endpoint))

    assert peer.body == b"onetwo" + b"three" * 50_000


@every_server
@pytest.mark.parametrize("outermost", [True, False], ids=["outside", "inside"])
async def test_a_large_body_behind_a_middleware_that_awaits_arrives_whole(
    habits: Habits, outermost: bool
) -> None:
    """
    The library before this one answered 200 and had none of the 2 MB.
    """

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(1)
        return Response(str(len(await request.body())))

    middlewares = [Middleware(RequestCancelationMiddleware), Middleware(Awaiting)]
    app = Starlette(routes=routes(endpoint), middleware=middlewares if outermost else middlewares[::-1])
    peer = Peer(*[bytes(65_536)] * 32, habits=habits)
    await peer.run(app)

    assert peer.body == b"2097152"


@every_server
@pytest.mark.parametrize("outermost", [True, False], ids=["outside", "inside"])
@pytest.mark.parametrize("has_length", [True, False], ids=["length", "no length"])
async def test_a_body_that_the_application_leaves_unread_can_be_read_by_others(
    habits: Habits, outermost: bool, has_length: bool
) -> None:
    """
    A middleware around us that reads it afterwards finds it, as it does without us.
    """
    ReadingLate.bodies.clear()

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(1)
        return Response()

    middlewares = [Middleware(RequestCancelationMiddleware), Middleware(ReadingLate)]
    app = Starlette(routes=routes(endpoint), middleware=middlewares if outermost else middlewares[::-1])
    length = ("content-length", "6") if has_length else ("transfer-encoding", "chunked")
    headers = [] if habits is HYPERCORN_H2 and not has_length else [length]  # HTTP/2 needs neither
    peer = Peer(b"one", b"two", habits=habits, headers=headers)
    await peer.run(app)

    assert ReadingLate.bodies == [b"onetwo"]
    assert peer.status == 200


@everywhere
async def test_a_client_that_leaves_ends_its_endpoint(place: Place) -> None:
    """
    At that moment, and without an error that a server would log.
    """
    ended_at: list[float] = []

    async def endpoint(request: Request) -> Response:
        await request.body()
        try:
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())
        return Response()

    peer = place.peer(b"body")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, place.wrap(endpoint))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [1]


@everywhere
async def test_a_late_endpoint_is_answered_for(place: Place) -> None:
    """
    With the problem document, untouched by those around.
    """

    async def endpoint(request: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    peer = place.peer()
    await peer.run(place.wrap(endpoint, default_timeout=30))

    assert anyio.current_time() == 30
    assert (peer.status, peer.json["reason"]) == (504, "timeout")
    assert peer.headers["content-type"] == PROBLEM_JSON


@everywhere
async def test_a_background_task_is_not_disturbed(place: Place) -> None:
    """
    The client closes its connection after the response, as clients do.
    """
    done: list[bool] = []

    async def work(token: CancelationToken) -> None:
        await anyio.sleep(HOUR)
        done.append(token.is_cancelled)

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(work, get_request_token(request)))

    peer = place.peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, place.wrap(endpoint, default_timeout=30))
        await peer.until(lambda: peer.complete)
        await anyio.sleep(1)
        peer.disconnect()

    assert done == [False]


@everywhere
async def test_a_stream_ends_when_its_client_leaves(place: Place) -> None:
    """
    Also on gunicorn, where Starlette does not listen for the disconnect.
    """
    ended_at: list[float] = []

    async def generate() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick"
                await anyio.sleep(1)
        finally:
            ended_at.append(anyio.current_time())

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(generate())

    peer = place.peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, place.wrap(endpoint))
        await anyio.sleep(2.5)
        peer.disconnect()

    assert ended_at == [2.5]
    assert peer.body == b"tick" * 3


@in_every_place
async def test_an_error_is_the_applications_own_affair(wrap: Wrap) -> None:
    """
    It is answered with its 500, and reaches the server as itself.
    """
    error = ValueError("broken")

    async def endpoint(request: Request) -> Response:
        raise error

    peer = Peer()
    with pytest.raises(ValueError, match="broken") as raised:
        await peer.run(wrap(endpoint))

    assert raised.value is error
    assert peer.status == 500


@in_every_place
async def test_an_http_exception_is_answered_by_the_application(wrap: Wrap) -> None:
    """
    As without the middleware.
    """

    async def endpoint(request: Request) -> Response:
        raise HTTPException(418, "no coffee")

    peer = Peer()
    await peer.run(wrap(endpoint))

    assert (peer.status, peer.body) == (418, b"no coffee")


@everywhere
async def test_an_operation_that_is_late_is_an_outcome(place: Place) -> None:
    """
    A `CancelationError` that nobody handles is no 500.
    """

    async def endpoint(request: Request) -> Response:
        async with Cancelable(timeout=5, tokens=[get_request_token(request)]):
            await anyio.sleep_forever()
        raise AssertionError

    peer = place.peer()
    await peer.run(place.wrap(endpoint))

    assert (peer.status, peer.json["detail"]) == (504, "timed out after 5 seconds")
    assert peer.headers["content-type"] == PROBLEM_JSON


# --- The application's own handlers


@pytest.mark.parametrize("outside", [False, True], ids=["added", "around"])
async def test_the_applications_own_handler_comes_first(outside: bool) -> None:
    """
    Whoever handles cancelation errors has reasons for it.
    """

    async def endpoint(request: Request) -> Response:
        get_request_token(request)
        async with Cancelable.with_timeout(5):
            await anyio.sleep_forever()
        raise AssertionError

    async def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, TimeoutCancelation)
        return JSONResponse({"own": "answer"}, 599)

    app = Starlette(routes=routes(endpoint), exception_handlers={CancelationError: handle})
    if not outside:
        app.add_middleware(RequestCancelationMiddleware)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app) if outside else app)

    assert (peer.status, peer.json) == (599, {"own": "answer"})


async def test_a_handler_for_the_reason_comes_before_the_one_for_all() -> None:
    """
    Starlette looks along the classes of the error.
    """

    async def endpoint(request: Request) -> Response:
        async with Cancelable.with_timeout(5):
            await anyio.sleep_forever()
        raise AssertionError

    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse("too late", 599)

    app = Starlette(routes=routes(endpoint), exception_handlers={TimeoutCancelation: handle})
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 599


@pytest.mark.parametrize(
    ("reason", "code"), [(CancelationReason.TIMEOUT, 1011), (CancelationReason.MANUAL, 1013)]
)
@pytest.mark.parametrize("outside", [False, True], ids=["added", "around"])
async def test_a_cancelation_error_closes_a_websocket(
    outside: bool, reason: CancelationReason, code: int
) -> None:
    """
    With the code of its reason.
    """

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        token = CancelationToken()
        token.cancel(reason, "enough")
        token.check()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    if not outside:
        app.add_middleware(RequestCancelationMiddleware)
    peer = Peer(kind="websocket")
    await peer.run(RequestCancelationMiddleware(app) if outside else app)

    assert peer.closed == (code, "enough")


@pytest.mark.parametrize("outside", [False, True], ids=["added", "around"])
async def test_a_cancelation_error_within_a_stream_cuts_it_short(outside: bool) -> None:
    """
    And is no failure of the server.
    """

    async def generate() -> AsyncIterator[str]:
        yield "part"
        async with Cancelable.with_timeout(5):
            await anyio.sleep_forever()

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(generate())

    peer = Peer()
    await peer.run(around(endpoint) if outside else added(endpoint))

    assert (peer.status, peer.body) == (200, b"part")
    assert not peer.complete


async def test_a_handler_for_a_response_that_has_started_is_no_failure() -> None:
    """
    Starlette complains that it cannot call the handler any more; the stream is cut short all the same.
    """

    async def generate() -> AsyncIterator[str]:
        yield "part"
        async with Cancelable.with_timeout(5):
            await anyio.sleep_forever()

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(generate())

    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse("too late", 599)

    app = Starlette(routes=routes(endpoint), exception_handlers={CancelationError: handle})
    app.add_middleware(RequestCancelationMiddleware)
    peer = Peer()
    await peer.run(app)

    assert (peer.status, peer.body) == (200, b"part")
    assert not peer.complete


async def test_a_mounted_application_answers_in_the_way_of_the_middleware() -> None:
    """
    Though it has its own 500 for errors that it does not know.
    """

    async def endpoint(request: Request) -> Response:
        async with Cancelable.with_timeout(5):
            await anyio.sleep_forever()
        raise AssertionError

    for outside in (True, False):
        inner = Starlette(routes=routes(endpoint))
        outer = Starlette(routes=[Mount("/also", inner), Mount("/inner", inner)])
        if not outside:
            outer.add_middleware(RequestCancelationMiddleware)
        peer = Peer(path="/inner/")
        await peer.run(RequestCancelationMiddleware(outer) if outside else outer)

        assert (peer.status, peer.json["reason"]) == (504, "timeout")


@every_server
async def test_a_client_that_leaves_during_its_upload_is_no_error(habits: Habits) -> None:
    """
    Starlette's ``ClientDisconnect`` does not become a 500 in the server's log.
    """
    caught: list[ClientDisconnect] = []

    async def endpoint(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect as error:
            caught.append(error)
            raise
        raise AssertionError

    for wrap in (added, around):
        peer = Peer(b"some", more=True, habits=habits)
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, wrap(endpoint, on_disconnect=Grace(1e6)))
            await wait_all_tasks_blocked()
            peer.disconnect()
        assert peer.sent == []

    assert len(caught) == 2


async def test_a_client_disconnect_that_is_none_is_an_error() -> None:
    """
    If nobody has left, somebody else raised it, and the server should know.
    """

    async def endpoint(request: Request) -> Response:
        raise ClientDisconnect

    peer = Peer()
    with pytest.raises(ClientDisconnect):
        await peer.run(added(endpoint))

    assert peer.status == 500


# --- Whether the client has left


@everywhere
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
async def test_is_disconnected_tells_that_the_client_is_there(place: Place, read: bool) -> None:
    """
    And leaves the body alone.
    """
    answers: list[bool] = []

    async def endpoint(request: Request) -> Response:
        if read:
            await request.body()
        for _ in range(3):
            answers.append(await request.is_disconnected())
            await anyio.sleep(1)
        return Response(await request.body())

    peer = place.peer(b"one", b"two")
    await peer.run(place.wrap(endpoint))

    assert answers == [False] * 3
    assert peer.body == b"onetwo"


@pytest.mark.parametrize(
    "place", [place for place in PLACES if place.wrap not in {outside_base, between_bases}], ids=str
)
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
async def test_is_disconnected_tells_that_the_client_has_left(place: Place, read: bool) -> None:
    """
    On both backends, before and after the body was read.
    """
    answers: list[bool] = []

    async def endpoint(request: Request) -> Response:
        if read:
            await request.body()
        await anyio.sleep(HOUR)
        answers.append(await request.is_disconnected())
        answers.append(await Request(request.scope, request.receive).is_disconnected())
        return Response()

    peer = place.peer(b"one", b"two")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, place.wrap(endpoint, on_disconnect=Grace(1e6)))
        await anyio.sleep(1)
        peer.disconnect()

    assert answers == [True, True]


@every_server
async def test_behind_a_base_middleware_the_token_tells_that_the_client_has_left(habits: Habits) -> None:
    """
    ``BaseHTTPMiddleware`` answers ``is_disconnected()`` itself, and wrongly; the token does not care.
    """
    answers: list[bool] = []

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(HOUR)
        answers.append(get_request_token(request).is_cancelled)
        return Response()

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, outside_base(endpoint, on_disconnect=Grace(1e6)))
        await anyio.sleep(1)
        peer.disconnect()

    assert answers == [True]


# --- get_request_token


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_everyone_gets_the_same_token_for_a_request(kind: Any) -> None:
    """
    The middleware's, by whatever object of Starlette's.
    """
    tokens: list[CancelationToken] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        connection = (Request if kind == "http" else WebSocket)(scope, receive, send)
        tokens.extend([get_request_token(connection), get_request_token(HTTPConnection(scope))])
        tokens.append(scope[TOKEN_KEY])

    await Peer(kind=kind).run(RequestCancelationMiddleware(app))

    assert len(set(tokens)) == 1


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_the_middleware_a_token_is_made_and_kept(kind: Any) -> None:
    """
    Those who ask for the same request share it.
    """
    scope = Peer(kind=kind).scope

    token = get_request_token(HTTPConnection(scope))

    assert isinstance(token, CancelationToken)
    assert get_request_token(HTTPConnection(scope)) is token
    assert scope["cancelation_token"] is token
    assert get_request_token(HTTPConnection(Peer().scope)) is not token


@pytest.mark.parametrize("request_", [None, "request", {"type": "http"}], ids=repr)
def test_what_is_no_request_has_no_token(request_: Any) -> None:
    """
    The error says what is needed.
    """
    with pytest.raises(TypeError, match="must be a Request or a WebSocket"):
        get_request_token(request_)


# --- with_cancelation, in Starlette


@in_every_place
async def test_a_decorated_endpoint_is_an_operation(wrap: Wrap) -> None:
    """
    With a time of its own.
    """
    operations: list[Cancelable | None] = []

    @with_cancelation(timeout=5)
    async def endpoint(request: Request) -> Response:
        operations.append(current_operation())
        await anyio.sleep_forever()
        raise AssertionError

    peer = Peer()
    await peer.run(wrap(endpoint))

    assert operations[0] is not None
    assert operations[0].name == "endpoint"
    assert (peer.status, peer.body) == (504, b"timed out after 5 seconds")


async def test_a_decorated_endpoint_may_raise_the_cancelation_error_itself() -> None:
    """
    The middleware answers it.
    """

    @with_cancelation(timeout=5, raise_on_cancel=False)
    async def endpoint(request: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    peer = Peer()
    await peer.run(added(endpoint))

    assert (peer.status, peer.json["reason"]) == (504, "timeout")


async def test_an_operation_of_an_endpoint_can_be_cancelled_by_others() -> None:
    """
    As an operator would, who finds it in a registry; no middleware is needed for that.
    """
    running: list[Cancelable] = []

    @with_cancelation
    async def endpoint(request: Request) -> Response:
        operation = current_operation()
        assert operation is not None
        running.append(operation)
        await anyio.sleep_forever()
        raise AssertionError

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, Starlette(routes=routes(endpoint)))
        await wait_all_tasks_blocked()
        running[0].cancel(message="not now", by="alice")

    assert (peer.status, peer.body) == (503, b"not now")


# --- What a second look found


async def test_an_error_in_the_cleanup_of_a_stopped_handler_is_not_lost() -> None:
    """
    Although Starlette sends an answer for it that is dropped, before it raises the error again.
    """

    async def endpoint(request: Request) -> Response:
        try:
            await anyio.sleep(HOUR)
            return Response()
        finally:
            raise ValueError("rollback failed")

    peer = Peer()
    app = RequestCancelationMiddleware(Starlette(routes=[Route("/", endpoint)]), default_timeout=1)
    with pytest.raises(ValueError, match="rollback failed"):
        await peer.run(app)

    assert peer.status == 504


async def test_an_application_mounted_in_a_middleware_answers_as_we_do() -> None:
    """
    It would answer a cancelation error with a 500 of its own.
    """

    async def endpoint(request: Request) -> Response:
        async with Cancelable(timeout=1):
            await anyio.sleep(HOUR)
        return Response()

    sub = Starlette(routes=[Route("/", endpoint)])
    outer = Starlette(routes=[Mount("/sub", GZipMiddleware(sub))])
    outer.add_middleware(RequestCancelationMiddleware)
    peer = Peer(path="/sub/")
    await peer.run(outer)

    assert peer.status == 504
