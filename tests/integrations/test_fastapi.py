"""FastAPI: the published interface, the dependency and the decorator."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    File,
    HTTPException,
    Request,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from hother.cancelable import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    TimeoutCancelation,
    current_operation,
)
from hother.cancelable.integrations import fastapi as integration
from hother.cancelable.integrations.fastapi import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    cancelable_dependency,
    cancelable_streaming_response,
    get_request_token,
    with_cancelation,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer

HOUR = 3600.0

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)

Operation = Annotated[Cancelable, Depends(cancelable_dependency)]


class Item(BaseModel):
    name: str


def make_app(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestCancelationMiddleware, **options)
    return app


async def get(app: FastAPI, path: str = "/", query: str = "", **options: Any) -> Peer:
    peer = Peer(path=path, query=query, **options)
    await peer.run(app)
    return peer


# --- The published interface


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return names and defaults; parameters that are by keyword only may be added."""
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]


NEEDED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (RequestCancelationMiddleware, [("app", NEEDED), ("default_timeout", None)]),
        (CancelableWebSocket, [("websocket", NEEDED), ("cancelable", NEEDED)]),
        (CancelableWebSocket.close, [("self", NEEDED), ("code", 1000), ("reason", "")]),
        (get_request_token, [("request", NEEDED)]),
        (cancelable_dependency, [("request", NEEDED), ("timeout", None)]),
        (with_cancelation, [("timeout", None), ("raise_on_cancel", True)]),
        (
            cancelable_streaming_response,
            [
                ("generator", NEEDED),
                ("cancelable", NEEDED),
                ("media_type", "text/plain"),
                ("chunk_size", None),
            ],
        ),
    ],
)
def test_the_published_names_have_their_parameters(
    function: Callable[..., Any], expected: list[tuple[str, Any]]
) -> None:
    """
    With exactly these names, in this order, with these defaults; others are by keyword, and optional.
    """
    assert parameters(function) == expected
    assert all(
        parameter.default is not NEEDED
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )


def test_what_is_async_is_async() -> None:
    """
    And what is not, is not.
    """
    methods = ["accept", "send_text", "send_json", "receive_text", "receive_json", "close"]

    assert all(inspect.iscoroutinefunction(getattr(CancelableWebSocket, name)) for name in methods)
    assert inspect.iscoroutinefunction(cancelable_dependency)
    assert inspect.iscoroutinefunction(cancelable_streaming_response)
    assert not inspect.iscoroutinefunction(get_request_token)


def test_every_public_name_exists() -> None:
    """
    ``from ... import *`` gives the published names.
    """
    assert {name for name in integration.__all__ if not hasattr(integration, name)} == set()
    assert {
        "RequestCancelationMiddleware",
        "CancelableWebSocket",
        "get_request_token",
        "cancelable_dependency",
        "with_cancelation",
        "cancelable_streaming_response",
    } <= set(integration.__all__)


async def test_the_published_programs_work_as_written() -> None:
    """
    A dependency, a decorated endpoint, a stream.
    """
    app = make_app()

    @app.get("/data")
    async def get_data(cancel: Cancelable = Depends(cancelable_dependency)) -> Any:
        async with cancel:
            await anyio.sleep(1)
            return {"data": 1}

    @app.get("/slow")
    @with_cancelation(timeout=30.0)
    async def slow_endpoint(request: Request) -> Any:
        cancelable = current_operation()
        await anyio.sleep(1)
        return cancelable is not None

    @app.get("/stream")
    async def stream_data(cancel: Cancelable = Depends(cancelable_dependency)) -> Any:
        async def generate() -> AsyncIterator[str]:
            for i in range(10):
                await anyio.sleep(0.1)
                yield f"data: {i}\n\n"

        return await cancelable_streaming_response(generate(), cancel, media_type="text/event-stream")

    assert (await get(app, "/data")).json == {"data": 1}
    assert (await get(app, "/slow")).json is True
    stream = await get(app, "/stream")
    assert stream.body.decode() == "".join(f"data: {i}\n\n" for i in range(10))
    assert stream.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("backend", anyio.get_available_backends())
def test_applications_can_be_tested_with_the_test_client(backend: Any) -> None:
    """
    Bodies, background tasks, WebSockets, the lifespan.
    """
    done: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        done.append("startup")
        yield
        done.append("shutdown")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(RequestCancelationMiddleware, default_timeout=30)

    @app.post("/items")
    async def add(item: Item, cancel: Operation, background: BackgroundTasks) -> Any:
        background.add_task(done.append, "background")
        async with cancel:
            return item

    @app.websocket("/echo")
    async def echo(websocket: WebSocket, cancel: Operation) -> None:
        connection = CancelableWebSocket(websocket, cancel)
        await connection.accept()
        await connection.send_json({"got": await connection.receive_text()})
        await connection.close()

    with TestClient(app, backend=backend) as client:
        assert client.post("/items", json={"name": "tea"}).json() == {"name": "tea"}
        with client.websocket_connect("/echo") as websocket:
            websocket.send_text("tea")
            assert websocket.receive_json() == {"got": "tea"}

    assert done == ["startup", "background", "shutdown"]


# --- Bodies, which the 0.11 library lost


@every_server
async def test_a_body_behind_a_dependency_that_awaits_arrives(habits: Habits) -> None:
    """
    The library before this one dropped it, and the request hung.
    """
    app = make_app()

    async def authenticate() -> None:
        await anyio.sleep(1)

    @app.post("/", dependencies=[Depends(authenticate)])
    async def endpoint(request: Request) -> Any:
        await anyio.sleep(1)
        return await request.json()

    peer = Peer(b'{"na', b'me": "t', b'ea"}', habits=habits)
    await peer.run(app)

    assert peer.json == {"name": "tea"}


@every_server
async def test_an_uploaded_file_arrives_whole(habits: Habits) -> None:
    """
    Multipart, in many parts, with an operation around the reading.
    """
    app = make_app()
    content = bytes(range(256)) * 1000

    @app.post("/")
    async def endpoint(cancel: Operation, file: Annotated[UploadFile, File()]) -> Any:
        async with cancel:
            await anyio.sleep(1)
            return await file.read() == content

    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    parts = [body[start : start + 10_000] for start in range(0, len(body), 10_000)]
    peer = Peer(*parts, headers=[("Content-Type", "multipart/form-data; boundary=x")], habits=habits)
    await peer.run(app)

    assert peer.json is True


# --- cancelable_dependency


@every_server
async def test_an_operation_is_cancelled_with_its_request(habits: Habits) -> None:
    """
    The client leaves, and the operation says so.
    """
    app = make_app()
    operations: list[Cancelable] = []

    @app.get("/")
    async def endpoint(cancel: Operation) -> None:
        operations.append(cancel)
        async with cancel:
            await anyio.sleep_forever()

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert operations[0].cancelation is not None
    assert operations[0].cancelation.reason is CancelationReason.DISCONNECT
    assert peer.sent == []


async def test_the_operation_is_named_after_the_path() -> None:
    """
    For logs, which also want to know what was cancelled.
    """
    app = make_app()

    @app.get("/items/{number}")
    async def endpoint(cancel: Operation, number: int) -> Any:
        return cancel.name

    assert (await get(app, "/items/7")).json == "/items/7"


JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")

every_way_to_send_a_timeout = pytest.mark.parametrize(
    ("body", "request_parts"),
    [
        ((), {"query": "timeout=0.05"}),
        ((), {"query": "timeout=0"}),
        ((), {"query": "timeout=-1"}),
        ((), {"query": "timeout=soon"}),
        ((), {"query": "timeout=1&timeout=2"}),
        ((), {"headers": [("timeout", "0.05")]}),
        ((), {"headers": [("cookie", "timeout=0.05")]}),
        ((b'{"timeout": 0.05}',), {"headers": [JSON]}),
        ((b"0.05",), {"headers": [JSON]}),
        ((b"timeout=0.05",), {"headers": [FORM]}),
        ((), {"path": "/0.05"}),
        ((), {"path": "/soon"}),
    ],
    ids=str,
)

WAYS_TO_DEPEND: dict[str, Any] = {
    "cached": Depends(cancelable_dependency),
    "not cached": Depends(cancelable_dependency, use_cache=False),
    "security": Security(cancelable_dependency, scopes=["all"]),
    "its options": Depends(cancelable_dependency.with_options(raise_on_cancel=False)),
}


@pytest.mark.parametrize("dependency", WAYS_TO_DEPEND.values(), ids=WAYS_TO_DEPEND)
@every_way_to_send_a_timeout
async def test_the_client_cannot_set_the_timeout(
    body: tuple[bytes, ...], request_parts: dict[str, Any], dependency: Any
) -> None:
    """
    Not even break the request with it.
    """
    app = make_app()

    @app.api_route("/", methods=["GET", "POST"])
    @app.get("/{timeout}")
    async def endpoint(cancel: Cancelable = dependency) -> Any:
        async with cancel:
            await anyio.sleep(HOUR)
            return cancel.remaining()

    peer = Peer(*body, **request_parts)
    await peer.run(app)

    assert (peer.status, peer.json) == (200, None)


@pytest.mark.parametrize("request_parts", [{"query": "timeout=0.05"}, {"path": "/0.05"}], ids=str)
async def test_the_client_of_a_websocket_cannot_set_the_timeout(request_parts: dict[str, Any]) -> None:
    """
    Nor by what it asks for when it connects.
    """
    app = make_app()
    left: list[float | None] = []

    @app.websocket("/")
    @app.websocket("/{timeout}")
    async def endpoint(websocket: WebSocket, cancel: Operation) -> None:
        await websocket.accept()
        async with cancel:
            await anyio.sleep(HOUR)
            left.append(cancel.remaining())

    await Peer(kind="websocket", **request_parts).run(app)

    assert left == [None]


async def test_the_client_cannot_set_the_timeout_of_what_overrides_another_dependency() -> None:
    """
    FastAPI looks at that anew for each request.
    """
    app = make_app()

    async def other() -> None: ...

    app.dependency_overrides[other] = cancelable_dependency

    @app.get("/{timeout}")
    async def endpoint(cancel: Any = Depends(other)) -> Any:
        return [type(cancel).__name__, cancel.remaining()]

    assert (await get(app, "/0.05", "timeout=0.05")).json == ["Cancelable", None]


async def test_the_client_cannot_change_the_timeout_of_the_options() -> None:
    """
    Neither shorten it, nor lift it.
    """
    app = make_app()

    @app.get("/{timeout}")
    async def endpoint(
        timeout: float, cancel: Annotated[Cancelable, Depends(cancelable_dependency.with_options(timeout=3))]
    ) -> Any:
        return [timeout, cancel.remaining()]

    assert (await get(app, "/0.05", "timeout=0.05")).json == [0.05, 3]
    assert (await get(app, "/3600", "timeout=3600")).json == [3600, 3]


async def test_an_endpoint_may_have_a_timeout_of_its_own() -> None:
    """
    From the query, the path or the body; the dependency does not take it away, and goes by nothing of it.
    """
    app = make_app()

    @app.get("/query")
    async def by_query(cancel: Operation, timeout: float) -> Any:
        return [timeout, cancel.remaining()]

    @app.get("/path/{timeout}")
    async def by_path(cancel: Operation, timeout: float) -> Any:
        return [timeout, cancel.remaining()]

    @app.post("/body")
    async def by_body(cancel: Operation, timeout: Annotated[float, Body()]) -> Any:
        return [timeout, cancel.remaining()]

    peer = Peer(b"0.05", path="/body", headers=[JSON])
    await peer.run(app)

    assert (await get(app, "/query", "timeout=0.05")).json == [0.05, None]
    assert (await get(app, "/path/0.05")).json == [0.05, None]
    assert peer.json == [0.05, None]


async def test_an_endpoint_may_change_its_response() -> None:
    """
    The dependency is no other part of the response, and leaves it as it is.
    """
    app = make_app()

    @app.get("/")
    async def endpoint(cancel: Operation, response: Response) -> Any:
        response.status_code = 202
        response.headers["x-flavour"] = "tea"
        async with cancel:
            return "accepted"

    peer = await get(app)

    assert (peer.status, peer.json, peer.headers["x-flavour"]) == (202, "accepted", "tea")


def test_the_documentation_knows_of_no_timeout() -> None:
    """
    Neither of the dependency's, nor of the decorator's parameters.
    """
    app = make_app()

    @app.get("/plain")
    async def plain(cancel: Operation) -> None: ...

    @app.get("/configured")
    async def configured(
        cancel: Annotated[Cancelable, Depends(cancelable_dependency.with_options(timeout=3))],
    ) -> None: ...

    @app.post("/posted")
    async def posted(cancel: Operation) -> None: ...

    @app.get("/decorated")
    @with_cancelation(timeout=3)
    async def decorated() -> None: ...

    paths = app.openapi()["paths"]

    operations = [operation for path in paths.values() for operation in path.values()]
    assert set(paths) == {"/plain", "/configured", "/posted", "/decorated"}
    assert all(not {"parameters", "requestBody", "security"} & set(operation) for operation in operations)
    assert all(set(operation["responses"]) == {"200"} for operation in operations)


@pytest.mark.parametrize("in_block", [True, False], ids=["in its block", "without"])
async def test_with_options_sets_the_timeout(in_block: bool) -> None:
    """
    It counts from entering the block, and only there.
    """
    app = make_app()

    @app.get("/")
    async def endpoint(
        cancel: Annotated[Cancelable, Depends(cancelable_dependency.with_options(timeout=3))],
    ) -> Any:
        await anyio.sleep(10)
        if in_block:
            async with cancel:
                await anyio.sleep(10)
        return "done"

    peer = await get(app)

    assert peer.status == (504 if in_block else 200)
    assert anyio.current_time() == (13 if in_block else 10)


async def test_with_options_can_make_blocks_quiet() -> None:
    """
    The endpoint goes on after a block that was cut short, and answers with what it has.
    """
    app = make_app()
    quiet = cancelable_dependency.with_options(timeout=3, raise_on_cancel=False)

    @app.get("/")
    async def endpoint(cancel: Cancelable = Depends(quiet)) -> Any:
        found: list[int] = []
        async with cancel:
            while True:
                await anyio.sleep(1)
                found.append(len(found))
        return {"found": found, "complete": not cancel.is_cancelled}

    assert (await get(app)).json == {"found": [0, 1], "complete": False}


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError)]
)
def test_options_are_checked_at_once(timeout: Any, error: type[Exception]) -> None:
    """
    Not at the first request.
    """
    with pytest.raises(error, match="timeout"):
        cancelable_dependency.with_options(timeout=timeout)


def test_options_do_not_add_up() -> None:
    """
    Each call starts from the defaults, and makes a dependency of its own.
    """
    first = cancelable_dependency.with_options(timeout=3)
    second = first.with_options(raise_on_cancel=False)

    assert first is not second
    assert first is not cancelable_dependency
    assert cancelable_dependency.__name__ == first.__name__ == "cancelable_dependency"


async def test_called_by_hand_it_takes_a_timeout() -> None:
    """
    With or without the middleware.
    """
    request = Request(Peer().scope)

    operation = await cancelable_dependency(request, 3)
    other = await cancelable_dependency(request, timeout=5)

    assert (operation.remaining(), other.remaining()) == (3, 5)
    assert (await cancelable_dependency(request)).remaining() is None
    get_request_token(request).cancel()
    with pytest.raises(Exception, match="cancelled on request"):
        operation.check()


async def test_parts_of_a_request_share_the_operation() -> None:
    """
    Sub-dependencies and the endpoint get the same; with ``use_cache=False`` each gets its own.
    """
    app = make_app()
    seen: list[Cancelable] = []

    async def sub_dependency(cancel: Operation) -> None:
        seen.append(cancel)

    @app.get("/", dependencies=[Depends(sub_dependency)])
    async def endpoint(
        cancel: Operation,
        own: Annotated[Cancelable, Depends(cancelable_dependency, use_cache=False)],
        connection: HTTPConnection,
    ) -> None:
        seen.extend([cancel, own])
        assert get_request_token(connection) is connection.scope["cancelation_token"]

    assert (await get(app)).status == 200
    assert seen[0] is seen[1]
    assert seen[1] is not seen[2]


async def test_a_dependency_with_yield_may_enter_the_operation() -> None:
    """
    Then the endpoint is inside of it, and its cleanup runs.
    """
    app = make_app()
    steps: list[str] = []

    async def connection(cancel: Operation) -> AsyncIterator[str]:
        async with cancel:
            try:
                yield "connection"
            finally:
                steps.append("closed")

    @app.get("/")
    async def endpoint(connection: str = Depends(connection)) -> Any:
        await anyio.sleep(1)
        return connection

    peer = await get(app)

    assert (peer.status, peer.json) == (200, "connection")
    assert steps == ["closed"]


async def test_it_can_be_overridden_in_tests() -> None:
    """
    As any dependency.
    """
    app = make_app()
    operation = Cancelable.with_timeout(7)
    app.dependency_overrides[cancelable_dependency] = lambda: operation

    @app.get("/")
    async def endpoint(cancel: Operation) -> Any:
        return cancel.remaining()

    assert (await get(app)).json == 7


@every_server
async def test_it_works_in_websocket_routes(habits: Habits) -> None:
    """
    The operation is cancelled with the connection.
    """
    app = make_app()
    operations: list[Cancelable] = []

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, cancel: Operation) -> None:
        operations.append(cancel)
        await websocket.accept()
        async with cancel:
            await anyio.sleep_forever()

    peer = Peer(kind="websocket", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert operations[0].cancelation is not None
    assert operations[0].cancelation.reason is CancelationReason.DISCONNECT


@pytest.mark.real_time
async def test_a_def_endpoint_can_poll_its_operation() -> None:
    """
    A thread cannot be interrupted, but it can ask; also without a block, which it could not enter.
    """
    app = make_app()
    polls: list[type[Exception]] = []

    @app.get("/")
    def endpoint(cancel: Operation) -> None:
        deadline = threading.Event()
        try:
            while not deadline.wait(0.001):
                cancel.check()
        except Exception as error:
            polls.append(type(error))
            raise

    peer = Peer()
    with anyio.fail_after(5):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, app)
            await anyio.sleep(0.05)
            peer.disconnect()

    assert [error.__name__ for error in polls] == ["DisconnectCancelation"]


# --- with_cancelation


def bare(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    return with_cancelation(endpoint)


def called(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    return with_cancelation()(endpoint)


def with_arguments(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    return with_cancelation(timeout=30, raise_on_cancel=True)(endpoint)


def positional(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    return with_cancelation(30, True)(endpoint)


in_every_way = pytest.mark.parametrize(
    "decorate", [bare, called, with_arguments, positional], ids=lambda decorate: decorate.__name__
)


@in_every_way
def test_a_decorated_endpoint_keeps_its_signature_and_name(decorate: Callable[..., Any]) -> None:
    """
    FastAPI builds parameters, documentation and the route's name from them.
    """

    async def read_item(number: int, item: Item, cancel: Operation, q: str | None = None) -> Item:
        """Read an item."""
        return item

    decorated = decorate(read_item)
    plain_app, app = FastAPI(), FastAPI()
    plain_app.post("/items/{number}")(read_item)
    app.post("/items/{number}")(decorated)

    assert inspect.signature(decorated) == inspect.signature(read_item)
    assert (decorated.__name__, decorated.__doc__) == ("read_item", "Read an item.")
    assert inspect.iscoroutinefunction(decorated)
    assert app.openapi() == plain_app.openapi()
    assert app.url_path_for("read_item", number=1) == "/items/1"


@in_every_way
async def test_a_decorated_endpoint_gets_its_arguments(decorate: Callable[..., Any]) -> None:
    """
    From path, query, body and dependencies.
    """
    app = make_app()

    @app.post("/items/{number}")
    @decorate
    async def read_item(number: int, item: Item, cancel: Operation, q: str | None = None) -> Any:
        return [number, item.name, isinstance(cancel, Cancelable), q]

    peer = Peer(
        b'{"name": "tea"}', path="/items/7", query="q=x", headers=[("content-type", "application/json")]
    )
    await peer.run(app)

    assert peer.json == [7, "tea", True, "x"]


@pytest.mark.parametrize("has_middleware", [True, False], ids=["with middleware", "without"])
@pytest.mark.parametrize("takes_request", [True, False], ids=["request", "no request"])
async def test_a_decorated_endpoint_that_is_late_is_a_504(has_middleware: bool, takes_request: bool) -> None:
    """
    As an ``HTTPException``, which the application may handle as any other.
    """
    app = make_app() if has_middleware else FastAPI()

    @with_cancelation(timeout=3)
    async def with_request(request: Request) -> None:
        await anyio.sleep_forever()

    @with_cancelation(timeout=3)
    async def without_request() -> None:
        await anyio.sleep_forever()

    app.get("/")(with_request if takes_request else without_request)
    peer = await get(app)

    assert anyio.current_time() == 3
    assert (peer.status, peer.json) == (504, {"detail": "timed out after 3 seconds"})


async def test_the_http_exception_is_fastapis_own_and_says_why() -> None:
    """
    Handlers for ``fastapi.HTTPException`` get it, with the cancelation error as its cause.
    """
    app = make_app()
    handled: list[Exception] = []

    @app.exception_handler(HTTPException)
    async def handle(request: Request, error: HTTPException) -> Any:
        handled.append(error)
        from fastapi.responses import JSONResponse

        return JSONResponse({"own": error.detail}, error.status_code, error.headers)

    @app.get("/")
    @with_cancelation
    async def endpoint() -> None:
        operation = current_operation()
        assert operation is not None
        operation.cancel(CancelationReason.SHUTDOWN)
        await anyio.sleep_forever()

    peer = await get(app)

    assert (peer.status, peer.json) == (503, {"own": "the server is shutting down"})
    assert peer.headers["retry-after"] == "1"
    assert type(handled[0].__cause__).__name__ == "ShutdownCancelation"


async def test_without_raise_on_cancel_the_cancelation_error_leaves_the_endpoint() -> None:
    """
    Named so by the published interface; the middleware or a handler of the application answers it.
    """
    app = FastAPI()
    handled: list[Exception] = []

    @app.exception_handler(TimeoutCancelation)
    async def handle(request: Request, error: TimeoutCancelation) -> Any:
        handled.append(error)
        raise HTTPException(599)

    @with_cancelation(timeout=3, raise_on_cancel=False)
    async def endpoint() -> None:
        await anyio.sleep_forever()

    with pytest.raises(TimeoutCancelation):
        await endpoint()

    late = make_app()
    late.get("/")(endpoint)
    peer = await get(late)
    assert (peer.status, peer.json["reason"]) == (504, "timeout")


@pytest.mark.parametrize("takes_request", [True, False], ids=["request", "no request"])
async def test_a_decorated_endpoint_is_tied_to_its_request(takes_request: bool) -> None:
    """
    Without a ``request`` parameter, too: the middleware knows it.
    """
    app = make_app()
    operations: list[Cancelable | None] = []

    async def work() -> None:
        operations.append(current_operation())
        await anyio.sleep_forever()

    @with_cancelation
    async def with_request(any_name: Request) -> None:
        await work()

    @with_cancelation
    async def without_request() -> None:
        await work()

    app.get("/")(with_request if takes_request else without_request)
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert operations[0] is not None
    assert operations[0].cancelation is not None
    assert operations[0].cancelation.reason is CancelationReason.DISCONNECT


async def test_without_the_middleware_the_token_of_the_request_still_cancels() -> None:
    """
    Whoever has the request can cancel it.
    """
    app = FastAPI()

    @app.get("/")
    @with_cancelation
    async def endpoint(request: Request) -> None:
        get_request_token(request).cancel(message="enough")
        await anyio.sleep_forever()

    peer = await get(app)

    assert (peer.status, peer.json) == (503, {"detail": "enough"})


@pytest.mark.real_time
async def test_a_decorated_def_endpoint_runs_in_a_thread_and_may_poll() -> None:
    """
    With its operation around it, as far as threads can see.
    """
    app = make_app()
    threads: list[threading.Thread] = []

    @app.get("/")
    @with_cancelation(timeout=0.05)
    def endpoint(number: int = 7) -> None:
        threads.append(threading.current_thread())
        operation = current_operation()
        assert operation is not None
        while True:
            operation.check()
            threading.Event().wait(0.001)

    with anyio.fail_after(5):
        peer = await get(app)

    assert threads[0] is not threading.main_thread()
    assert (peer.status, peer.json) == (504, {"detail": "timed out after 0.05 seconds"})


async def test_a_method_can_be_decorated() -> None:
    """
    Class-based views register bound methods.
    """
    app = make_app()

    class View:
        answer = "done"

        @with_cancelation
        async def bare(self, number: int) -> Any:
            return [self.answer, number]

        @with_cancelation(timeout=3)
        async def called(self, request: Request) -> Any:
            await anyio.sleep_forever()

    view = View()
    app.get("/bare")(view.bare)
    app.get("/called")(view.called)

    assert (await get(app, "/bare", "number=7")).json == ["done", 7]
    assert (await get(app, "/called")).status == 504


async def test_a_callable_object_can_be_decorated() -> None:
    """
    FastAPI takes them for endpoints, so the decorator does.
    """
    app = make_app()

    class Endpoint:
        async def __call__(self, number: int) -> int:
            return number

    app.get("/")(with_cancelation(Endpoint()))

    assert (await get(app, query="number=7")).json == 7


async def test_a_partial_function_can_be_decorated() -> None:
    """
    What it leaves open is the endpoint's signature.
    """

    async def add(first: int, second: int) -> int:
        await anyio.sleep(1)
        return first + second

    endpoint = with_cancelation(partial(add, 1))

    assert await endpoint(2) == 3
    assert list(inspect.signature(endpoint).parameters) == ["second"]


def test_generators_cannot_be_decorated() -> None:
    """
    They would be over before their stream begins; the error says what to do instead.
    """

    async def agenerate() -> AsyncIterator[int]:
        yield 1

    def generate() -> Iterator[int]:
        yield 1

    for generator in (agenerate, generate, partial(agenerate), partial(generate)):
        with pytest.raises(TypeError, match="cancelable_streaming_response"):
            with_cancelation(generator)
        with pytest.raises(TypeError, match="cancelable_streaming_response"):
            with_cancelation(timeout=3)(generator)


@pytest.mark.parametrize("endpoint", [None, "endpoint", 3])
def test_what_cannot_be_called_cannot_be_decorated(endpoint: Any) -> None:
    """
    The mistake is found where it is made.
    """
    with pytest.raises(TypeError, match="decorates endpoints"):
        with_cancelation()(endpoint)


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError)]
)
def test_the_timeout_of_an_endpoint_is_checked(timeout: Any, error: type[Exception]) -> None:
    """
    When it is decorated, not when it is called.
    """

    async def endpoint() -> None: ...

    with pytest.raises(error, match="timeout"):
        with_cancelation(timeout=timeout)(endpoint)


async def test_each_call_is_an_operation_of_its_own() -> None:
    """
    One cancelled request leaves the next alone.
    """
    app = make_app()
    operations: list[Cancelable | None] = []

    @app.get("/")
    @with_cancelation
    async def endpoint(cancel: bool) -> Any:
        operation = current_operation()
        operations.append(operation)
        assert operation is not None
        if cancel:
            operation.cancel()
        await anyio.sleep(1)
        return "done"

    assert (await get(app, query="cancel=1")).status == 503
    assert (await get(app, query="cancel=0")).status == 200
    assert operations[0] is not operations[1]
    assert current_operation() is None


async def test_errors_and_http_exceptions_of_a_decorated_endpoint_pass() -> None:
    """
    They are the application's.
    """
    app = make_app()

    @app.get("/error")
    @with_cancelation(timeout=3)
    async def error() -> None:
        raise ValueError("broken")

    @app.get("/http")
    @with_cancelation(timeout=3)
    async def http() -> None:
        raise HTTPException(418, "no coffee")

    with pytest.raises(ValueError, match="broken"):
        await get(app, "/error")
    assert (await get(app, "/http")).status == 418


@every_server
async def test_a_decorated_websocket_endpoint_that_is_late_is_closed(habits: Habits) -> None:
    """
    With the code and the reason of its outcome.
    """
    app = make_app()

    @app.websocket("/")
    @with_cancelation(timeout=3)
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    peer = Peer(kind="websocket", habits=habits)
    await peer.run(app)

    assert peer.closed == (1011, "timed out after 3 seconds")
    assert anyio.current_time() == 3


# --- The middleware in FastAPI


@every_server
async def test_a_late_endpoint_with_a_body_is_answered_for(habits: Habits) -> None:
    """
    Also while FastAPI still reads the body for it.
    """
    app = make_app(default_timeout=30)

    @app.post("/")
    async def endpoint(item: Annotated[Item, Body()]) -> None: ...

    peer = Peer(b'{"name"', more=True, habits=habits)
    await peer.run(app)

    assert (peer.status, peer.json["reason"]) == (504, "timeout")


async def test_cleanup_of_dependencies_runs_when_the_client_leaves() -> None:
    """
    Also with awaits in it, in a shield.
    """
    app = make_app()
    steps: list[str] = []

    async def connection() -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
                steps.append("closed")

    @app.get("/", dependencies=[Depends(connection)])
    async def endpoint() -> None:
        await anyio.sleep_forever()

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(1)
        peer.disconnect()

    assert steps == ["closed"]


@every_server
async def test_background_tasks_of_an_endpoint_use_its_token(habits: Habits) -> None:
    """
    The library before this one cancelled the token with every response.
    """
    app = make_app(default_timeout=30)
    done: list[bool] = []

    async def work(token: CancelationToken) -> None:
        async with Cancelable.with_token(token):
            await anyio.sleep(HOUR)
            done.append(token.is_cancelled)

    @app.get("/")
    async def endpoint(request: Request, background: BackgroundTasks) -> str:
        background.add_task(work, get_request_token(request))
        return "accepted"

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await peer.until(lambda: peer.complete)
        await anyio.sleep(1)
        peer.disconnect()

    assert done == [False]
