"""Deliveries to receivers that misbehave, by a clock that the tests put forward."""

import asyncio
import contextlib
import itertools

import pytest

from support.hooks import attempts_of, endpoint_of, opened, states_of
from support.raw import RawServer
from support.waiting import until_true
from yelpaze.hooks.errors import HooksError

SUCCESS, PENDING, FAIL, CANCELED = 0, 1, 2, 4
SHORT = {"schedule": [0, 5, 300], "breaker_failures": 100}


class Receiver:
    """An HTTP receiver whose answers a test sets: `answer(number, path)` gives a status line and headers."""

    def __init__(self):
        self.got = []  # (path, webhook-id, body)
        self.answer = lambda _number, _path: ("200 OK", "")
        self.held = {}
        self.server = None

    async def script(self, peer):
        while True:
            request = await peer.request()
            if not request:
                return
            head, _, body = request.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            path = lines[0].split()[1]
            self.got.append((path, headers["webhook-id"], body))
            gate = self.held.get(path)
            if gate is not None:
                await gate.wait()
            answer = self.answer(len(self.got), path)
            if answer is None:
                peer.reset()
                return
            status, extra = answer
            await peer.answer(b"noted", status, extra)

    def paths(self):
        return [path for path, _, _ in self.got]


@pytest.fixture
async def receiver():
    found = Receiver()
    found.server = RawServer(found.script)
    await found.server.start()
    found.url = found.server.url
    yield found
    for gate in found.held.values():
        gate.set()
    await found.server.stop()


@contextlib.asynccontextmanager
async def acme(store, receiver, path="/a", *, report=lambda _: None, fields=None, **settings):
    async with opened(store, report=report, **{**SHORT, **settings}) as hooks:
        await hooks.create_application("Acme", uid="acme")
        await hooks.create_endpoint("acme", f"{receiver.url}{path}", uid="a", **(fields or {}))
        yield hooks


def advance_until(condition, step=1.0):
    return asyncio.get_running_loop().advance_until(condition, step)


async def settled(hooks, count, app="acme", step=1.0):
    """Put the clock forward until so many attempts are in the log; they."""
    loop = asyncio.get_running_loop()
    for _ in range(5000):
        found = await attempts_of(hooks, app)
        if len(found) >= count:
            return found
        loop.advance(step)
        await asyncio.sleep(0.005)
    raise AssertionError("too few attempts")


async def test_the_schedule_is_kept_and_every_attempt_is_logged(store_name, receiver):
    receiver.answer = lambda number, _: ("503 Service Unavailable", "") if number < 3 else ("200 OK", "")
    async with acme(store_name, receiver) as hooks:
        sent = await hooks.send("acme", "order.completed", {"id": 7})
        found = await settled(hooks, 3)
        assert [one.response_status_code for one in found] == [503, 503, 200]
        assert [one.number for one in found] == [1, 2, 3]
        assert [one.reason for one in found] == ["status: 503 Service Unavailable"] * 2 + [""]
        gaps = [(b.timestamp - a.timestamp).total_seconds() for a, b in itertools.pairwise(found)]
        assert 5 <= gaps[0] < 30
        assert 300 <= gaps[1] < 330
        assert {message_id for _, message_id, _ in receiver.got} == {sent.id}
        assert await states_of(hooks, "acme", "a") == {sent.id: SUCCESS}
        assert (await endpoint_of(hooks, "acme", "a")).failures == 0


async def test_a_message_without_attempts_left_is_a_dead_letter_and_can_be_recovered(store_name, receiver):
    receiver.answer = lambda _number, _path: ("500 Internal Server Error", "")
    async with acme(store_name, receiver) as hooks:
        begin = hooks.now()
        sent = await hooks.send("acme", "order.completed", {})
        await settled(hooks, 3)
        assert await states_of(hooks, "acme", "a") == {sent.id: FAIL}
        receiver.answer = lambda _number, _path: ("204 No Content", "")
        assert await hooks.recover("acme", "a", begin) == 1
        found = await settled(hooks, 4)
        assert found[-1].trigger_type == 1
        assert await states_of(hooks, "acme", "a") == {sent.id: SUCCESS}
        assert await hooks.recover("acme", "a", begin) == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [("301 Moved Permanently", "redirect: 301"), ("404 Not Found", "status: 404 Not Found"), ("299 Odd", "")],
)
async def test_only_2xx_is_a_success_and_redirects_are_not_followed(tmp_path, receiver, status, reason):
    receiver.answer = lambda _number, _path: (status, "Location: /elsewhere\r\n")
    async with acme(str(tmp_path / "h.db"), receiver) as hooks:
        await hooks.send("acme", "order.completed", {})
        (found, *_) = await settled(hooks, 1)
        assert found.reason.startswith(reason)
        assert bool(found.reason) is bool(reason)
        assert set(receiver.paths()) == {"/a"}


async def test_410_disables_and_tells(store_name, receiver):
    receiver.answer = lambda _number, _path: ("410 Gone", "")
    notices = []
    async with acme(store_name, receiver, report=notices.append) as hooks:
        sent = await hooks.send("acme", "order.completed", {})
        await settled(hooks, 1)
        endpoint = await endpoint_of(hooks, "acme", "a")
        assert endpoint.disabled
        assert "410" in endpoint.disabled_reason
        assert await states_of(hooks, "acme", "a") == {sent.id: FAIL}
        assert [notice.kind for notice in notices] == ["endpoint.disabled"]
        later = await hooks.send("acme", "order.completed", {})
        assert later.id not in await states_of(hooks, "acme", "a")
        with pytest.raises(HooksError, match="enable it first"):
            await hooks.resend("acme", sent.id, "a")
        receiver.answer = lambda _number, _path: ("200 OK", "")
        await hooks.update_endpoint("acme", "a", disabled=False)
        assert await hooks.replay_missing("acme", "a", sent.timestamp) == 1
        await settled(hooks, 2)
        assert (await states_of(hooks, "acme", "a"))[later.id] == SUCCESS
        events = await attempts_of(hooks, "yelpaze.operator")
        assert events == []  # nobody listens to them, but they are kept


async def test_operator_events_go_to_the_operators_endpoint(tmp_path, receiver):
    receiver.answer = lambda _number, path: ("410 Gone", "") if path == "/a" else ("200 OK", "")
    operator = {"endpoints": {"ops": {"url": f"{receiver.url}/ops"}}}
    async with acme(str(tmp_path / "h.db"), receiver, operator=operator) as hooks:
        await hooks.send("acme", "order.completed", {})
        await advance_until(lambda: receiver.paths().count("/ops") == 2)
        bodies = sorted(body for path, _, body in receiver.got if path == "/ops")
        assert [b"endpoint.disabled" in bodies[0], b"message.attempt.exhausted" in bodies[1]] == [True, True]


async def test_retry_after_is_a_floor_with_a_cap(tmp_path, receiver):
    waits = iter(["60", "1", "100000", "x"])
    receiver.answer = lambda _number, _path: ("429 Too Many Requests", f"Retry-After: {next(waits)}\r\n")
    settings = {"schedule": [0, 5, 5, 5], "retry_after_cap": 600}
    async with acme(str(tmp_path / "h.db"), receiver, **settings) as hooks:
        await hooks.send("acme", "order.completed", {})
        found = await settled(hooks, 4)
        gaps = [(b.timestamp - a.timestamp).total_seconds() for a, b in itertools.pairwise(found)]
        for gap, wanted in zip(gaps, [60, 5, 600], strict=True):
            assert wanted <= gap < wanted + 30


async def test_one_dead_endpoint_harms_no_other(store_name, receiver):
    receiver.held["/dead"] = asyncio.Event()
    async with acme(store_name, receiver, concurrency=4) as hooks:
        for number in range(10):
            await hooks.create_endpoint("acme", f"{receiver.url}/dead", uid=f"dead{number}")
        for _ in range(20):
            await hooks.send("acme", "order.completed", {})
        await until_true(lambda: receiver.paths().count("/a") == 20)
        # Half of the slots are kept for endpoints that answer.
        assert receiver.paths().count("/dead") <= 2
        receiver.held["/dead"].set()
        await until_true(lambda: receiver.paths().count("/dead") == 200)


async def test_a_breaker_opens_after_five_failures_and_probes_once(tmp_path, receiver):
    receiver.answer = lambda _number, _path: ("500 Internal Server Error", "")
    settings = {"schedule": [0, 100_000], "breaker_failures": 5, "breaker_pause": 30}
    async with acme(str(tmp_path / "h.db"), receiver, **settings) as hooks:
        for _ in range(20):
            await hooks.send("acme", "order.completed", {})
        await settled(hooks, 5)
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert len(receiver.got) == 5
        found = await settled(hooks, 7)
        gaps = [(b.timestamp - a.timestamp).total_seconds() for a, b in itertools.pairwise(found)]
        assert all(gap >= 29 for gap in gaps[4:])
        receiver.answer = lambda _number, _path: ("200 OK", "")
        await advance_until(lambda: len(receiver.got) >= 20)
        await settled(hooks, 20)


async def test_disabled_after_days_of_failure_with_a_notice_before(tmp_path, receiver):
    receiver.answer = lambda _number, _path: ("500 Internal Server Error", "")
    day = 86_400
    settings = {
        "schedule": [0, *[day / 2] * 20],
        "breaker_failures": 2,
        "warn_after": 2 * day,
        "disable_after": 5 * day,
    }
    notices = []
    async with acme(str(tmp_path / "h.db"), receiver, report=notices.append, **settings) as hooks:
        await hooks.send("acme", "order.completed", {})
        await advance_until(lambda: "endpoint.disabled" in [one.kind for one in notices], step=day / 50)
        assert [one.kind for one in notices] == ["endpoint.failing", "endpoint.disabled"]
        while not (await endpoint_of(hooks, "acme", "a")).disabled:
            await asyncio.sleep(0.005)
        found = await attempts_of(hooks, "acme")
        days = (found[-1].timestamp - found[0].timestamp).total_seconds() / day
        assert 5 <= days < 6


async def test_firing_is_dropped_when_resolved_comes(store_name, receiver):
    receiver.answer = lambda number, _path: (
        ("500 Internal Server Error", "") if number == 1 else ("200 OK", "")
    )
    async with acme(store_name, receiver) as hooks:
        firing = await hooks.send("acme", "alarm", {"status": "firing"}, order_key="disk")
        await settled(hooks, 1)
        resolved = await hooks.send("acme", "alarm", {"status": "resolved"}, order_key="disk")
        await settled(hooks, 2)
        asyncio.get_running_loop().advance(1000)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert [body for _, _, body in receiver.got] == [b'{"status":"firing"}', b'{"status":"resolved"}']
        assert await states_of(hooks, "acme", "a") == {firing.id: CANCELED, resolved.id: SUCCESS}


async def test_resolved_waits_for_firing_that_is_under_way(store_name, receiver):
    receiver.held["/a"] = asyncio.Event()
    async with acme(store_name, receiver) as hooks:
        firing = await hooks.send("acme", "alarm", {"status": "firing"}, order_key="disk")
        other = await hooks.send("acme", "alarm", {"status": "other"}, order_key="cpu")
        await until_true(lambda: len(receiver.got) == 1)
        resolved = await hooks.send("acme", "alarm", {"status": "resolved"}, order_key="disk")
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert len(receiver.got) == 1
        receiver.held["/a"].set()
        await settled(hooks, 3)
        bodies = [body for _, _, body in receiver.got]
        assert bodies.index(b'{"status":"firing"}') < bodies.index(b'{"status":"resolved"}')
        states = await states_of(hooks, "acme", "a")
        assert states == {firing.id: SUCCESS, other.id: SUCCESS, resolved.id: SUCCESS}


async def test_what_has_expired_is_not_sent(tmp_path, receiver):
    receiver.answer = lambda _number, _path: ("500 Internal Server Error", "")
    async with acme(str(tmp_path / "h.db"), receiver, schedule=[0, 50, 100]) as hooks:
        from datetime import timedelta

        sent = await hooks.send("acme", "alarm", {}, expires_at=hooks.now() + timedelta(seconds=120))
        found = await settled(hooks, 2)
        assert "expires" in found[-1].reason
        assert await states_of(hooks, "acme", "a") == {sent.id: FAIL}
        await hooks.update_endpoint("acme", "a", paused=True)
        late = await hooks.send("acme", "alarm", {}, expires_at=hooks.now() + timedelta(seconds=10))
        asyncio.get_running_loop().advance(60)
        await hooks.update_endpoint("acme", "a", paused=False)
        await settled(hooks, 3)
        assert len(receiver.got) == 2
        assert (await states_of(hooks, "acme", "a"))[late.id] == FAIL


async def test_fifo_keeps_the_order_through_failures(store_name, receiver):
    receiver.answer = lambda number, _path: ("500 Oh", "") if number in (1, 3) else ("200 OK", "")
    async with acme(store_name, receiver, fields={"fifo": True}) as hooks:
        for number in range(6):
            await hooks.send("acme", "order.completed", {"n": number})
        await settled(hooks, 8)
        bodies = [int(body[5:-1]) for _, _, body in receiver.got]
        assert bodies == [0, 0, 1, 1, 2, 3, 4, 5]


async def test_alarms_have_a_schedule_of_their_own(tmp_path, receiver):
    receiver.answer = lambda _number, _path: ("500 Internal Server Error", "")
    async with acme(str(tmp_path / "h.db"), receiver) as hooks:
        await hooks.send("acme", "alarm", {}, schedule="alarm")
        found = await settled(hooks, 18, step=10.0)
        whole = (found[-1].timestamp - found[0].timestamp).total_seconds()
        assert 3400 < whole < 4000
        asyncio.get_running_loop().advance(10_000)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert len(await attempts_of(hooks, "acme")) == 18


async def test_rate_and_concurrency_of_an_endpoint_are_held(tmp_path, receiver):
    receiver.held["/a"] = asyncio.Event()
    fields = {"concurrency": 3}
    async with acme(str(tmp_path / "h.db"), receiver, fields=fields) as hooks:
        receiver.held["/a"].set()
        await hooks.send("acme", "order.completed", {})
        await settled(hooks, 1)
        receiver.held["/a"].clear()
        for _ in range(10):
            await hooks.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 4)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert len(receiver.got) == 4
        receiver.held["/a"].set()
        await settled(hooks, 11)
        await hooks.update_endpoint("acme", "a", throttle_rate=1)
        for _ in range(4):
            await hooks.send("acme", "order.completed", {})
        found = (await settled(hooks, 15))[-4:]
        times = sorted(one.timestamp for one in found)
        assert (times[-1] - times[0]).total_seconds() >= 2.9


async def test_a_paused_endpoint_waits(store_name, receiver):
    async with acme(store_name, receiver) as hooks:
        await hooks.update_endpoint("acme", "a", paused=True)
        sent = await hooks.send("acme", "order.completed", {})
        asyncio.get_running_loop().advance(100)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert receiver.got == []
        await hooks.update_endpoint("acme", "a", paused=False)
        await settled(hooks, 1)
        assert await states_of(hooks, "acme", "a") == {sent.id: SUCCESS}


async def test_a_clock_that_is_set_moves_what_is_due(tmp_path, receiver):
    from support.hooks import KEY, LOOPBACK, START
    from yelpaze.hooks.hooks import Hooks

    loop = asyncio.get_running_loop()
    receiver.answer = lambda number, _path: ("500 Oh", "") if number == 1 else ("200 OK", "")
    error = [0.0]
    notices = []
    async with Hooks(
        str(tmp_path / "h.db"),
        encryption_key=KEY,
        settings={**LOOPBACK, "jitter": 0, "schedule": [0, 300]},
        report=notices.append,
        wall=lambda: START + loop.time() + error[0],
        monotonic=loop.time,
    ) as hooks:
        await hooks.create_application("Acme", uid="acme")
        await hooks.create_endpoint("acme", f"{receiver.url}/a", uid="a")
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 1)
        began = loop.time()
        error[0] = -36_000.0
        await advance_until(lambda: len(receiver.got) == 2)
        assert 299 <= loop.time() - began < 360
        assert "clock.jumped" in [one.kind for one in notices]


@pytest.mark.parametrize("how", ["never answers", "a byte a second", "reset after the request", "10 MB"])
async def test_each_way_to_fail_is_logged_with_its_reason(tmp_path, raw, how):
    async def script(peer):
        while request := await peer.request():
            assert request
            if how == "never answers":
                await asyncio.sleep(3600)
            elif how == "reset after the request":
                peer.reset()
                return
            elif how == "10 MB":
                await peer.answer(b"x" * 10_000_000)
            else:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(1000):
                    await peer.send(b"x")
                    await asyncio.sleep(1)

    server = await raw(script)
    async with opened(str(tmp_path / "h.db"), schedule=[0], timeout=5) as hooks:
        await hooks.create_application("Acme", uid="acme")
        await hooks.create_endpoint("acme", f"{server.url}/", uid="a")
        await hooks.send("acme", "order.completed", {})
        (found,) = await settled(hooks, 1)
        if how == "10 MB":
            assert found.reason == ""
            assert found.response_status_code == 200
            assert found.response == "x" * 20_000
        else:
            kind = "protocol" if how.startswith("reset") else "timeout"
            assert found.reason.startswith(kind), found.reason
            assert found.response_status_code == 0


async def test_dns_failures_are_retried(tmp_path):
    async with opened(str(tmp_path / "h.db"), schedule=[0, 5]) as hooks:
        await hooks.create_application("Acme", uid="acme")
        await hooks.create_endpoint("acme", "http://nowhere.invalid/", uid="a")
        await hooks.send("acme", "order.completed", {})
        found = await settled(hooks, 2)
        assert all(one.reason.startswith("dns") for one in found)


async def test_what_was_accepted_survives_a_restart(store_name, receiver):
    receiver.answer = lambda _number, _path: ("500 Oh", "")
    async with acme(store_name, receiver) as hooks:
        sent = [(await hooks.send("acme", "order.completed", {"n": n})).id for n in range(20)]
        await settled(hooks, 20)
    receiver.answer = lambda _number, _path: ("200 OK", "")
    receiver.got.clear()
    async with opened(store_name, **SHORT) as hooks:
        await advance_until(lambda: len(receiver.got) == 20)
        await settled(hooks, 40)
        assert await states_of(hooks, "acme", "a") == dict.fromkeys(sent, SUCCESS)


async def test_messages_of_another_process_are_delivered_by_the_owner(store_name, receiver):
    async with acme(store_name, receiver), opened(store_name, deliver=False) as sender:
        sent = await sender.send("acme", "order.completed", {})
        await until_true(lambda: receiver.got)
        assert receiver.got[0][1] == sent.id
        await sender.update_endpoint("acme", "a", url=f"{receiver.url}/b")
        await sender.send("acme", "order.completed", {})
        await until_true(lambda: "/b" in receiver.paths())


async def test_two_processes_share_the_endpoints_and_take_over(store_name, receiver):
    async with acme(store_name, receiver, lease=3) as one:
        for number in range(40):
            await one.create_endpoint("acme", f"{receiver.url}/{number}")
        async with opened(store_name, **SHORT, lease=3) as two:
            # PostgreSQL's leases go by its own clock, so real time has to pass there.
            await until_true(lambda: _both_have_half(one, two))
            await one.send("acme", "order.completed", {})
            await until_true(lambda: len(receiver.got) == 41)
            await until_true(lambda: two.totals().attempts and one.totals().attempts)
        await until_true(lambda: len(one.dispatcher.epochs) == 64)
        await one.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 82)
        assert len(set(receiver.got)) == 82  # none twice


def _both_have_half(one, two):
    asyncio.get_running_loop().advance(0.2)
    return len(one.dispatcher.epochs) == len(two.dispatcher.epochs) == 32


async def test_a_frozen_owner_can_write_nothing_when_it_wakes(tmp_path, receiver):
    """Its shards have gone to another; what it had under way is refused, and delivered by the new owner."""
    store = str(tmp_path / "h.db")
    receiver.held["/a"] = asyncio.Event()
    async with acme(store, receiver, lease=3) as frozen:
        sent = await frozen.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 1)
        renewing = frozen.dispatcher._tasks[0]
        renewing.cancel()
        async with opened(store, **SHORT, lease=3) as heir:
            await advance_until(lambda: len(receiver.got) == 2)
            assert not frozen.dispatcher._tasks[0].done() or renewing.cancelled()
            receiver.held["/a"].set()
            await settled(heir, 1)
            await until_true(lambda: frozen.totals().refused == 1)
            assert await states_of(heir, "acme", "a") == {sent.id: SUCCESS}
            assert [message_id for _, message_id, _ in receiver.got] == [sent.id, sent.id]
            assert len(await attempts_of(heir, "acme")) == 1


async def test_a_store_that_is_away_stops_new_attempts_and_loses_none(tmp_path, receiver):
    from yelpaze.store.session import StoreUnavailable

    notices = []
    async with acme(str(tmp_path / "h.db"), receiver, report=notices.append) as hooks:
        write = hooks._store.write

        async def away(work):
            raise StoreUnavailable("the disk is full")

        receiver.held["/a"] = asyncio.Event()
        sent = await hooks.send("acme", "order.completed", {})
        await until_true(lambda: receiver.got)
        hooks._store.write = away
        receiver.held["/a"].set()
        await until_true(lambda: "store.unavailable" in [one.kind for one in notices])
        with pytest.raises(StoreUnavailable):
            await hooks.send("acme", "order.completed", {})
        hooks._store.write = write
        await settled(hooks, 1)
        assert await states_of(hooks, "acme", "a") == {sent.id: SUCCESS}
        assert len(receiver.got) == 1
        await advance_until(lambda: "store.available" in [one.kind for one in notices])


async def test_a_commit_whose_answer_was_lost_is_found_and_delivered(store_name, receiver):
    from yelpaze.store.session import StoreUnavailable

    async with acme(store_name, receiver, lease=3) as hooks:
        write = hooks._store.write

        async def lost(work):
            await write(work)
            raise StoreUnavailable("the connection was lost")

        hooks._store.write = lost
        with pytest.raises(StoreUnavailable):
            await hooks.send("acme", "order.completed", {}, event_id="o1")
        hooks._store.write = write
        with pytest.raises(HooksError, match="there is a message"):
            await hooks.send("acme", "order.completed", {}, event_id="o1")
        await advance_until(lambda: receiver.got)
        assert len(receiver.got) == 1


async def test_the_rate_of_an_application_is_shared_by_its_endpoints(tmp_path, receiver):
    async with acme(str(tmp_path / "h.db"), receiver) as hooks:
        from functools import partial

        from yelpaze.hooks.context import Access
        from yelpaze.hooks.log.applications import patch_application
        from yelpaze.hooks.values import ApplicationPatch

        for number in range(3):
            await hooks.create_endpoint("acme", f"{receiver.url}/{number}")
        patch = ApplicationPatch(throttle_rate=1)
        await hooks.write(
            partial(patch_application, context=hooks.context, access=Access(), name="acme", patch=patch)
        )
        await asyncio.sleep(0.3)  # until the owner has heard of it: it asks every 100 ms
        await hooks.send("acme", "order.completed", {})
        found = await settled(hooks, 4)
        times = sorted(one.timestamp for one in found)
        assert all((b - a).total_seconds() > 0.9 for a, b in itertools.pairwise(times))


async def test_a_customer_gets_neither_the_services_mail_server_nor_its_password(tmp_path):
    smtp = {"host": "127.0.0.1", "port": 1, "username": "u", "password": "hunter2", "sender": "ops@x.test"}
    async with opened(str(tmp_path / "h.db"), smtp=smtp, allow=[], schedule=[0]) as hooks:
        await hooks.create_application("Acme", uid="acme")
        made = await hooks.create_endpoint("acme", kind="email", options={"to": ["a@x.test"]}, uid="m")
        assert made.options == {"to": ["a@x.test"]}
        await hooks.send("acme", "order.completed", {})
        (found,) = await settled(hooks, 1)
        assert found.reason.startswith("connect")  # it was tried: the operator's server is not guarded
        own = {"to": ["a@x.test"], "host": "127.0.0.1", "password": "***", "sender": "b@x.test"}
        await hooks.update_endpoint("acme", "m", options=own)
        endpoint = await endpoint_of(hooks, "acme", "m")
        assert not endpoint.settings.trusted
        assert "hunter2" not in str(endpoint.settings)
        await hooks.send("acme", "order.completed", {})
        found = await settled(hooks, 2)
        assert found[-1].reason.startswith("blocked_address")


async def test_a_retry_is_not_forgotten_when_it_falls_due_before_it_is_written(tmp_path, receiver):
    """The store is away for results but not for claims: as a server that has just come back."""
    from yelpaze.hooks.delivery.results import write_results
    from yelpaze.store.session import StoreUnavailable

    receiver.answer = lambda number, _path: ("500 Oh", "") if number == 1 else ("200 OK", "")
    async with acme(str(tmp_path / "h.db"), receiver) as hooks:
        write, refused = hooks._store.write, []

        async def away(work):
            if getattr(work, "func", None) is write_results and hooks._store.write is away:
                refused.append(work)
                raise StoreUnavailable("not yet")
            return await write(work)

        hooks._store.write = away
        await hooks.send("acme", "order.completed", {})
        await advance_until(lambda: len(refused) > 10)  # the retry has been due for some time
        hooks._store.write = write
        await settled(hooks, 2)
        assert len(receiver.got) == 2


async def test_the_same_event_from_two_processes_at_once_is_one_message(store_name):
    async with opened(store_name, deliver=False) as one, opened(store_name, deliver=False) as two:
        await one.create_application("Acme", uid="acme")
        sends = [
            hooks.send("acme", "order.completed", {}, event_id=f"o{number}")
            for number in range(50)
            for hooks in (one, two)
        ]
        results = await asyncio.gather(*sends, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Exception)]
        assert len(refused) == 50
        assert {getattr(error, "status", error) for error in refused} == {409}


async def test_processes_that_start_at_once_on_an_empty_store_all_serve(store_name):
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(opened(store_name)) for _ in range(4)))


async def test_what_waited_in_a_shard_that_is_kept_after_all_goes_on(tmp_path, receiver):
    """A second process joins and leaves before the first has given anything away."""
    store = str(tmp_path / "h.db")
    receiver.answer = lambda number, _path: ("500 Oh", "") if number <= 41 else ("200 OK", "")
    async with acme(store, receiver, lease=30, schedule=[0, 3]) as hooks:
        for number in range(40):
            await hooks.create_endpoint("acme", f"{receiver.url}/{number}")
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 41)
        async with opened(store, lease=30):
            await advance_until(lambda: hooks.dispatcher._shards._leaving)
            asyncio.get_running_loop().advance(4)  # all retries fall due meanwhile
            for _ in range(20):
                await asyncio.sleep(0.005)
        await advance_until(lambda: len(receiver.got) == 82)


async def test_an_endpoint_that_cannot_be_decrypted_harms_no_other(tmp_path, receiver):
    notices = []
    async with acme(str(tmp_path / "h.db"), receiver, report=notices.append) as hooks:
        bad = await hooks.create_endpoint("acme", f"{receiver.url}/bad")
        await hooks.write(
            lambda session: session.run("UPDATE endpoint SET sealed = ? WHERE id = ?", b"x", bad.id)
        )
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: receiver.paths() == ["/a"])
        await until_true(lambda: "endpoint.broken" in [one.kind for one in notices])
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: receiver.paths() == ["/a", "/a"])


async def test_fifo_is_kept_when_the_endpoint_is_read_again_before_a_failure_is_written(tmp_path, receiver):
    from yelpaze.hooks.delivery.results import write_results

    receiver.answer = lambda number, _path: ("500 Oh", "") if number == 1 else ("200 OK", "")
    async with acme(str(tmp_path / "h.db"), receiver, fields={"fifo": True}) as hooks:
        write, gate = hooks._store.write, asyncio.Event()

        async def late(work):
            if getattr(work, "func", None) is write_results:
                await gate.wait()
            return await write(work)

        hooks._store.write = late
        for number in range(3):
            await hooks.send("acme", "order.completed", {"n": number})
        await until_true(lambda: len(receiver.got) == 1)
        endpoint = await endpoint_of(hooks, "acme", "a")
        hooks.changed(endpoint.id)
        asyncio.get_running_loop().advance(20)
        for _ in range(20):
            await asyncio.sleep(0.005)
        gate.set()
        await settled(hooks, 4)
        assert [int(body[5:-1]) for _, _, body in receiver.got] == [0, 0, 1, 2]


async def test_order_keys_hold_whatever_the_clocks_of_two_senders_say(store_name, receiver):
    from support.hooks import KEY, START
    from yelpaze.hooks.hooks import Hooks

    loop = asyncio.get_running_loop()
    receiver.answer = lambda number, _path: ("500 Oh", "") if number == 1 else ("200 OK", "")
    slow = Hooks(store_name, deliver=False, encryption_key=KEY, wall=lambda: START + loop.time() - 60)
    async with acme(store_name, receiver) as hooks:
        await hooks.send("acme", "alarm", {"s": "firing"}, order_key="disk")
        await settled(hooks, 1)
        async with slow:
            await slow.send("acme", "alarm", {"s": "resolved"}, order_key="disk")
            await until_true(lambda: len(receiver.got) == 2)
        loop.advance(1000)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert [body for _, _, body in receiver.got] == [b'{"s":"firing"}', b'{"s":"resolved"}']


async def test_a_resend_during_an_attempt_is_not_lost(store_name, receiver):
    receiver.held["/a"] = asyncio.Event()
    async with acme(store_name, receiver, schedule=[0]) as hooks:
        sent = await hooks.send("acme", "order.completed", {})
        await until_true(lambda: len(receiver.got) == 1)
        await hooks.resend("acme", sent.id, "a")
        receiver.held["/a"].set()
        await settled(hooks, 2)
        assert len(receiver.got) == 2
        assert await states_of(hooks, "acme", "a") == {sent.id: SUCCESS}


async def test_what_waits_is_never_too_old(tmp_path, receiver):
    from functools import partial

    from yelpaze.hooks.maintenance import delete_old

    async with acme(str(tmp_path / "h.db"), receiver, retention=86_400) as hooks:
        done = await hooks.send("acme", "order.completed", {})
        await settled(hooks, 1)
        await hooks.update_endpoint("acme", "a", paused=True)
        waiting = await hooks.send("acme", "order.completed", {})
        asyncio.get_running_loop().advance(10 * 86_400)
        while await hooks.write(partial(delete_old, context=hooks.context)):
            pass
        assert await states_of(hooks, "acme", "a") == {waiting.id: PENDING}
        assert done.id not in await states_of(hooks, "acme", "a")
        assert await attempts_of(hooks, "acme") == []


async def test_hanging_endpoints_cost_the_others_no_time(tmp_path, receiver):
    """However many wait for half of the slots, a turn looks at none of them."""
    receiver.held["/dead"] = asyncio.Event()
    async with acme(str(tmp_path / "h.db"), receiver, concurrency=4) as hooks:
        for _ in range(200):
            await hooks.create_endpoint("acme", f"{receiver.url}/dead")
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: receiver.paths().count("/dead") == 2 and "/a" in receiver.paths())
        looked = []
        consider = hooks.dispatcher._consider
        hooks.dispatcher._consider = lambda queue: (looked.append(queue), consider(queue))
        hooks.dispatcher._pump()
        assert looked == []


async def test_the_services_own_tasks_are_watched(tmp_path, receiver):
    from yelpaze.model.errors import StoppedError

    notices = []
    async with acme(str(tmp_path / "h.db"), receiver, report=notices.append) as hooks:

        def broken(*_):
            raise ZeroDivisionError

        hooks.dispatcher._written = broken
        await hooks.send("acme", "order.completed", {})
        await until_true(lambda: "delivery.broken" in [one.kind for one in notices])
        with pytest.raises(StoppedError, match="deliveries have ended"):
            await hooks.send("acme", "order.completed", {})
        with pytest.raises(ZeroDivisionError):
            await hooks.run()
        assert not hooks.dispatcher.is_ready


async def test_above_the_bound_of_backlog_the_api_answers_429(tmp_path, receiver):
    import httpx

    from yelpaze.web.hooks_api.app import hooks_api

    receiver.held["/a"] = receiver.held["/b"] = asyncio.Event()
    async with acme(str(tmp_path / "h.db"), receiver, concurrency=1, max_backlog=4) as hooks:
        for _ in range(8):
            await hooks.create_endpoint("acme", f"{receiver.url}/b")
        transport = httpx.ASGITransport(app=hooks_api(hooks, "admin"))
        headers = {"Authorization": "Bearer admin"}
        async with httpx.AsyncClient(transport=transport, base_url="http://hooks", headers=headers) as client:
            body = {"eventType": "order.completed", "payload": {}}
            assert (await client.post("/api/v1/app/acme/msg", json=body)).status_code == 202
            await until_true(lambda: len(list(hooks.dispatcher._turns)) > 4)
            asyncio.get_running_loop().advance(1)
            answer = await client.post("/api/v1/app/acme/msg", json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["code"] == "rate_limited"
            receiver.held["/a"].set()
            await until_true(lambda: len(receiver.got) == 9)
            asyncio.get_running_loop().advance(1)
            assert (await client.post("/api/v1/app/acme/msg", json=body)).status_code == 202
