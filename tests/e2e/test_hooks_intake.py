"""Messages from the bus become deliveries, each once; what is no message goes to `dead`."""

import asyncio
import contextlib
import json

import pytest

from support.hooks import attempts_of, opened
from support.hooks_log import APP, endpoint_for, logged
from support.waiting import until_true
from yelpaze.bus.opening import open_bus
from yelpaze.bus.protocol import NewRecord
from yelpaze.hooks.intake import TOPIC, TOPICS, Intake


@contextlib.asynccontextmanager
async def taken_in(bus, hooks, said):
    intake = Intake(bus, hooks, said.append)
    task = asyncio.ensure_future(intake.run())
    try:
        yield intake
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def bus(tmp_path):
    async with open_bus(str(tmp_path / "bus.db")) as bus:
        await bus.create(TOPICS)
        yield bus


def message(number, **fields):
    given = {"app": APP, "eventType": "order", "eventId": f"e{number}", "payload": {"n": number}, **fields}
    return NewRecord(APP, json.dumps(given).encode())


async def test_each_message_is_delivered_once_however_often_it_is_read(bus, tmp_path, service):
    async with opened(str(tmp_path / "hooks.db")) as hooks:
        await endpoint_for(hooks, service.url)
        async with taken_in(bus, hooks, []) as intake:
            await bus.publish(TOPIC, [message(1), message(2), message(1)])
            await logged(hooks, 2)
            await bus.publish(TOPIC, [message(2), message(3)])
            await logged(hooks, 3)
            assert intake.accepted >= 3
        assert sorted(json.loads(call.body)["n"] for call in service.calls) == [1, 2, 3]
        assert len(await attempts_of(hooks, APP)) == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no JSON", "is no message"),
        (b'{"app": "acme"}', "eventType"),
        (message(1, app="nobody").value, "no such application"),
        (message(1, eventType="no type!").value, "eventType"),
    ],
)
async def test_what_hooks_refuse_is_kept_apart_and_holds_nothing_up(bus, tmp_path, service, value, reason):
    said = []
    async with opened(str(tmp_path / "hooks.db")) as hooks:
        await endpoint_for(hooks, service.url)
        async with taken_in(bus, hooks, said):
            await bus.publish(TOPIC, [NewRecord(APP, value), message(2)])
            await logged(hooks)
            await until_true(lambda: said)
        async with bus.consume(["dead"], "reader") as consumer:
            [dead], _ = await consumer.read(10, 5.0)
    found = json.loads(dead.value)
    assert (found["topic"], found["value"]) == (TOPIC, value.decode())
    assert reason in found["reason"]
    assert "message.refused" in {notice.kind for notice in said}
