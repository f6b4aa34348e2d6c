"""The page on the registry: its web application does what the page says."""

from __future__ import annotations

from pathlib import Path

import anyio
from anyio import create_task_group, sleep

from tests.test_docs import Answer, ask, load

PAGE = Path(__file__).parents[2] / "docs/how-to/registry.md"


async def test_operators_list_and_cancel_running_requests() -> None:
    """
    A request that runs is listed, is cancelled by id, is answered with 503, and is gone.
    """
    program = load(PAGE)
    app, registry = program["app"], program["registry"]
    answers: list[Answer] = []

    async def client() -> None:
        answers.append(await ask(app, "/report"))

    async with create_task_group() as tasks:
        tasks.start_soon(client)
        await sleep(1)
        operation_id = registry.list()[0].id
        listed = await ask(app, "/operations")
        cancelled = await ask(app, f"/operations/{operation_id}", "DELETE")
        await anyio.wait_all_tasks_blocked()
        again = await ask(app, f"/operations/{operation_id}", "DELETE")

    assert listed.body == b'[{"id":"%s","path":"/report","seconds":1.0}]' % operation_id.encode()
    assert cancelled.body == b'{"cancelled":"%s"}' % operation_id.encode()
    assert again.status == 404
    assert [(answer.status, answer.seconds) for answer in answers] == [(503, 1.0)]
    assert b"stopped by the operator" in answers[0].body
    assert len(registry) == 0
