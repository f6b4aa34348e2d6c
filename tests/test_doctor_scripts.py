"""What the doctor's scripts find wrong, with a server that does wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

pytest.importorskip("rich")
pytest.importorskip("h2")
pytest.importorskip("wsproto")

import h2.config
import h2.connection
import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

import hother.cancelable
from hother.cancelable._doctor import _blind_spots, _runner, _shutdown, _work
from hother.cancelable._doctor._answers import Ending
from hother.cancelable._doctor._catalogue import SCENARIOS
from hother.cancelable._doctor._http1 import ask
from hother.cancelable._doctor._http2 import Client as Http2Client
from hother.cancelable._doctor._journal import Journal
from hother.cancelable._doctor._process import CannotStart, Process
from hother.cancelable._doctor._runner import Result, ServerRun, Verdict
from hother.cancelable._doctor._servers import Server
from hother.cancelable._doctor._shutdown import judge_shutdown
from hother.cancelable._doctor._sockets import Wire
from hother.cancelable._doctor._stage import Stage
from hother.cancelable._doctor._websocket import Client as WebSocketClient
from tests.doctor_peer import CLEAN, Peer, answer

pytestmark = [pytest.mark.real_time, pytest.mark.only_on("asyncio")]

CALLED, BEGAN = {"event": "called"}, {"event": "began", "first": False}
FINISHED = {"event": "ended", "how": "finished", "reason": None}
STOPPED = {"event": "ended", "how": "CancelledError", "reason": "disconnect"}
LEFT = {"event": "left", "how": "returned"}
WRONG_BODY = json.dumps({"size": 3, "sha256": "0"}).encode()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What does not happen at once never will.
    """
    monkeypatch.setattr(Stage, "patience", 0.1)
    monkeypatch.setattr(Stage, "missed", 0.1)
    monkeypatch.setattr(_blind_spots, "_CROWD", 2)
    monkeypatch.setattr(_runner, "_SETTLING", 0.1)
    monkeypatch.setattr(_runner, "_LOGGING", 0.1)
    monkeypatch.setattr(_runner, "_JOURNAL", 0.1)


@asynccontextmanager
async def serving(peer: Peer) -> AsyncGenerator[ServerRun, None]:
    """Have the peer listen, for the length of a block."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(peer.serve)
        yield ServerRun(peer.server, cast("Process", peer), peer._journal)
        tasks.cancel_scope.cancel()


async def judge(name: str, peer: Peer) -> Result:
    """Play a scenario with a peer."""
    async with serving(peer) as run:
        await run.warm_up(())
        return await run.judge(next(scenario for scenario in SCENARIOS if scenario.name == name))


@pytest.mark.parametrize(
    ("name", "events", "reply", "kinds"),
    [
        ("body/length-1-early", [CALLED, BEGAN, FINISHED, LEFT], answer(body=WRONG_BODY), {"body"}),
        ("body/length-1-early", [CALLED, BEGAN, FINISHED, LEFT], answer(500), {"status"}),
        ("session/close", [CALLED, BEGAN, STOPPED, LEFT], b"", {"session"}),
        (
            "session/close",
            [CALLED, BEGAN, STOPPED, {"event": "session given back"}, {"event": "context lost"}, LEFT],
            b"",
            {"context"},
        ),
        ("cleanup/close", [CALLED, BEGAN, STOPPED, LEFT], b"", {"cleanup"}),
        ("thread/deaf", [CALLED, BEGAN, FINISHED, LEFT], answer(504), {"late"}),
        ("asks/close", [CALLED, BEGAN | {"first": True}, FINISHED, LEFT], b"", {"truth"}),
        ("big-file/close", [CALLED, BEGAN, FINISHED], b"", {"ended"}),
        ("crowd/close", [CALLED, BEGAN, STOPPED], b"", {"ended", "left"}),
        (
            "close/background",
            [CALLED, BEGAN, FINISHED, LEFT],
            b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nshort",
            {"answer"},
        ),
        ("close/unasked", [], b"", {"began"}),
        ("close/unasked", [CALLED, BEGAN], b"", {"ended"}),
        ("close/unasked", [CALLED, BEGAN, STOPPED, LEFT | {"callbacks": 2}], b"", {"behind"}),
        ("deadline/unasked", [BEGAN], b"", {"ended", "status", "answer"}),
        ("websocket/busy/lost", [], answer(404), {"began", "script"}),
        ("h2-close/unasked", [], b"", {"began"}),
    ],
)
async def test_what_is_wrong_is_found(
    name: str, events: Sequence[Mapping[str, Any]], reply: bytes, kinds: set[str]
) -> None:
    """
    By the script, or by what was to be expected.
    """
    result = await judge(name, Peer(Journal(), events, reply))

    assert {kind for kind, _ in result.problems} == kinds, result


async def test_a_client_that_waits_to_be_asked_is_asked_late() -> None:
    """
    When the handler reads, and not before.
    """
    reply = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(body=WRONG_BODY)

    result = await judge("body/asked-for", Peer(Journal(), [CALLED, BEGAN, FINISHED, LEFT], reply, delay=0.2))

    assert {kind for kind, _ in result.problems} == {"body"}


class WebSocketPeer(Peer):
    """Accepts every WebSocket, pings, says something wrong, and says goodbye with a code of its own."""

    async def _talk(self, stream: Any) -> None:
        frames = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        head = await stream.receive()
        if b"/__control__/" in head:
            async with stream:
                await stream.send(answer(body=json.dumps(CLEAN).encode()))
            return
        self._tell(head.partition(b"run=")[2].partition(b"&")[0].decode())
        frames.receive_data(head)
        messages = (AcceptConnection(), Ping(), TextMessage(data="wrong"), CloseConnection(code=4000))
        async with stream:
            await stream.send(b"".join(frames.send(message) for message in messages))
            await stream.receive()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("websocket/talk/goodbye", {"message", "ended", "began"}),
        ("websocket/ticker/operator", {"code", "ended"}),
        ("websocket/closes/handler", {"code", "ended"}),
    ],
)
async def test_a_websocket_that_says_something_wrong(name: str, kinds: set[str]) -> None:
    """
    A message that was not to be expected, or another close code.
    """
    result = await judge(name, WebSocketPeer(Journal(), [CALLED, BEGAN]))

    assert {kind for kind, _ in result.problems} == kinds, result


async def test_nothing_comes_after_the_end_of_a_websocket() -> None:
    """
    Whoever reads on learns that.
    """
    peer = WebSocketPeer(Journal())
    async with serving(peer):
        client = WebSocketClient(await Wire.open(peer.port))
        await client.open("/?run=r1&")
        code = await client.read_to_close(1)
        lost = await client.read_to_close(1)
        client.close()

    assert (code, lost) == (4000, CloseReason.ABNORMAL_CLOSURE)
    assert await client.read_to_close(1) == lost


async def test_a_late_handler_gets_a_second_chance() -> None:
    """
    The machine may have been busy, and the result says so.
    """
    result = await judge("asks/close", Peer(Journal(), [CALLED, BEGAN, {"event": "noticed"}], b""))

    assert (result.verdict, result.attempts) == (Verdict.FAIL, 2)


async def test_what_is_left_behind_and_logged_is_found() -> None:
    """
    The control is given the time to log the same.
    """

    class Leaking(Peer):
        """Has one more each time."""

        exchanges = 0

        async def _talk(self, stream: Any) -> None:
            self.exchanges += 1
            self._orders["state"] = {**CLEAN, "objects": {"Exchange": self.exchanges}}
            await super()._talk(stream)

    logs = 'Traceback (most recent call last):\n  File "x"\nKeyError: 1\n'
    result = await judge("close/unasked", Leaking(Journal(), [CALLED, BEGAN, STOPPED, LEFT], logs=logs))

    assert {kind for kind, _ in result.problems} == {"behind", "log"}
    assert result.control is not None
    assert result.control.tracebacks == ["KeyError: 1"]


async def test_a_log_that_stays_silent_is_not_waited_for_long() -> None:
    """
    The middleware logged something, and the control does not.
    """
    peer = Peer(Journal())
    async with serving(peer) as run:
        assert await run._tracebacks_since(0, wait=True) == []


async def test_a_server_that_does_not_answer_orders() -> None:
    """
    Nothing can be said of what it left behind.
    """
    peer = Peer(Journal(), [CALLED, BEGAN, STOPPED, LEFT], orders={"state": answer(500)})
    async with serving(peer) as run:
        result = await run.judge(SCENARIOS[0])

    assert any("does not answer" in sentence for _, sentence in result.problems)


ITS_OWN = """Traceback (most recent call last):
  File "/x/hypercorn/run.py", line 1, in run
trio.BusyResourceError: no
"""
HERE = Path(hother.cancelable.__file__).parent
OF_OURS = ITS_OWN.replace("/x/hypercorn/run.py", str(HERE / "asgi" / "_exchange.py"))
OF_THE_DOCTOR = ITS_OWN.replace("/x/hypercorn/run.py", str(HERE / "_doctor" / "_probe" / "_witness.py"))
IN_OUR_DIRECTORY = ITS_OWN.replace("/x/hypercorn/run.py", "/x/hother.cancelable/.venv/trio/_util.py")


class Mortal(Peer):
    """Ends in its first request, and answers no orders then."""

    def _tell(self, name: str) -> None:
        super()._tell(name)
        self.has_ended = True
        self._orders["state"] = answer(500)


@pytest.mark.parametrize(
    ("logs", "verdicts", "ends"),
    [
        ([ITS_OWN, "", ""], [Verdict.PASS, Verdict.PASS], 1),
        ([IN_OUR_DIRECTORY, "", ""], [Verdict.PASS, Verdict.PASS], 1),
        ([OF_THE_DOCTOR, "", ""], [Verdict.PASS, Verdict.PASS], 1),
        (["no traceback", "", ""], [Verdict.PASS, Verdict.PASS], 1),
        ([ITS_OWN] * 2 + [""], [Verdict.PASS, Verdict.PASS], 2),
        ([ITS_OWN] * 3 + [""], [Verdict.FAIL, Verdict.PASS], 0),
        ([OF_OURS, ""], [Verdict.FAIL, Verdict.PASS], 0),
    ],
)
async def test_a_server_that_ends_by_itself_is_started_again(
    monkeypatch: pytest.MonkeyPatch, logs: list[str], verdicts: list[Verdict], ends: int
) -> None:
    """
    What it ended in is played again, unless our code may have been the reason.
    """
    journal, waiting = Journal(), list(logs)

    @asynccontextmanager
    async def running(*args: object) -> AsyncGenerator[Peer, None]:
        kind = Mortal if (log := waiting.pop(0)) else Peer
        peer = kind(journal, [CALLED, BEGAN, STOPPED, LEFT], logs=log)
        async with anyio.create_task_group() as tasks:
            await tasks.start(peer.serve)
            yield peer
            tasks.cancel_scope.cancel()

    monkeypatch.setattr(_runner, "running", running)
    results: list[Result] = []

    await _runner.run_server(Peer.server, SCENARIOS[:2], journal, results.append, ())

    assert [result.verdict for result in results] == verdicts, results
    assert [len(result.server_ended) for result in results] == [ends, 0]
    assert all("ended by itself" in why for why in results[0].server_ended)
    if verdicts[0] is Verdict.FAIL:
        assert {kind for kind, _ in results[0].problems} == {"server"}


async def test_a_script_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All waits are bounded.
    """
    monkeypatch.setattr(_runner, "_LONGEST", 0.01)

    result = await judge("close/unasked", Peer(Journal()))

    assert any("it took longer" in sentence for _, sentence in result.problems)


async def test_an_order_that_is_not_answered_properly() -> None:
    """
    It is an error, and says which it was.
    """
    peer = Peer(Journal(), orders={"bad": answer(body=b"no json")})
    async with serving(peer):
        with pytest.raises(EOFError, match="bad was not answered"):
            await ask(peer.port, "bad")


async def test_an_http2_stream_that_is_reset_or_dropped() -> None:
    """
    Before or after its response has started, or with the connection.
    """
    endings: list[Ending] = []

    async def talk(stream: Any) -> None:
        frames = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        frames.initiate_connection()
        started = len(endings)
        async with stream:
            while not frames.highest_inbound_stream_id:
                frames.receive_data(await stream.receive())
            if started:
                frames.send_headers(1, [(":status", "200")])
            if started < 2:
                frames.reset_stream(1)
            await stream.send(frames.data_to_send())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, talk)
            for _ in range(3):
                client = Http2Client(await Wire.open(port))
                await client.open()
                await client.request("GET", "/")
                endings.append((await client.read(2)).ending)
                client.close()
            tasks.cancel_scope.cancel()

    assert endings == [Ending.NOTHING, Ending.TRUNCATED, Ending.TRUNCATED]


async def test_nobody_listens() -> None:
    """
    The connection is given up.
    """
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

    with pytest.raises(OSError, match="refused"):
        await Wire.open(port)


async def test_a_server_that_does_not_stop_is_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the middleware it does the same, so that it is to blame.
    """
    journal = Journal()
    moments = [{"event": name} for name in ("part", "started", "sends")]
    peer = Peer(journal, [CALLED, BEGAN, *moments, FINISHED, LEFT], answer())

    @asynccontextmanager
    async def running(*args: object) -> AsyncGenerator[Peer, None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(peer.serve)
            yield peer
            tasks.cancel_scope.cancel()

    monkeypatch.setattr(_shutdown, "running", running)
    monkeypatch.setattr(_shutdown, "_LONGEST", 0.1)
    scenarios = [scenario for scenario in SCENARIOS if scenario.needs_shutdown]

    results = await judge_shutdown(peer.server, scenarios, journal)

    assert {result.verdict for result in results} == {Verdict.LIMITATION}
    assert {kind for result in results for kind, _ in result.problems} >= {"process", "fate"}


async def test_a_server_that_cannot_start_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It fails in that, too.
    """

    async def never(*args: object) -> None:
        raise CannotStart("it does not answer")

    monkeypatch.setattr(_work, "judge_shutdown", never)
    server = Server("broken", "no_such_package", ("no_such_package",))
    scenarios = [scenario for scenario in SCENARIOS if scenario.needs_shutdown or "http/2" in scenario.needs]
    results: list[Result] = []

    await _work.examine(server, scenarios, Journal(), results.append)

    verdicts = {result.scenario.needs_shutdown: result.verdict for result in results}
    assert verdicts == {True: Verdict.FAIL, False: Verdict.ABSENT}
