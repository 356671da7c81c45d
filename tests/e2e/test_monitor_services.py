"""The services of a monitor together: outages from first failure to alarm, kills, takeovers, commands."""

import asyncio

import pytest

from support.monitor import HOUR, MINUTE, START, World, settings
from support.needed import needs
from support.waiting import until_true
from yelpaze.bus.positions import StoredPositions
from yelpaze.bus.protocol import BusUnavailable
from yelpaze.monitor import queries
from yelpaze.monitor.check import id_of
from yelpaze.monitor.config.loading import config_of
from yelpaze.monitor.pushes import PushWatch
from yelpaze.monitor.records import TRANSITIONS

needs("yaml")


@pytest.fixture
def world(tmp_path, store_name):
    def make(config):
        return World(str(tmp_path / "bus.db"), store_name, config)

    return make


async def outage(world, evaluate, key, pattern, location="local"):
    """A slot a minute: `.` is good, `x` fails."""
    for mark in pattern:
        count = evaluate.folded
        await world.results((key, mark == ".", location))
        await world.until_folded(evaluate, count + 1)
        world.later()


async def test_an_outage_from_first_failure_to_resolved_message(world):
    async with world(settings("web")) as w:
        evaluate, _ = w.evaluate(), w.alarm()
        await outage(w, evaluate, "g_web", ".xxx")
        await w.until_told(1)
        await outage(w, evaluate, "g_web", ".")
        await w.until_told(2)
        firing, resolved = await w.alarms()
        assert [one.payload["status"] for one in (firing, resolved)] == ["firing", "resolved"]
        assert firing.payload["title"] == "DOWN: g/web"
        assert "[STATUS] (500) == 200" in firing.payload["text"]
        assert (firing.channels, firing.app, firing.schedule) == (("webhook",), "monitor", "alarm")
        assert firing.order_key == resolved.order_key
        assert [firing.event_id, resolved.event_id] == ["webhook|g_web|1", "webhook|g_web|2"]
        [row] = await w.read("SELECT state, since, until, reason FROM incident")
        first = START + MINUTE
        assert row[0] == "resolved"
        assert abs(row[1] - first) < 1000
        assert abs(row[2] - (first + 3 * MINUTE)) < 1000
        assert row[3] == "probe_cleared"


async def test_a_failure_is_confirmed_from_the_other_locations(world):
    async with world(settings("web", locations=["eu", "us", "ap"])) as w:
        evaluate = w.evaluate()
        for location in ("eu", "us", "ap"):
            await w.results(("g_web", True, location))
        await w.until_folded(evaluate, 3)
        w.later()
        async with w.bus.consume(["probe.us", "probe.ap", "probe.eu"]) as consumer:
            await w.results(("g_web", False, "eu"))
            records, _ = await consumer.read(10, 30.0)
            while len(records) < 2:
                more, _ = await consumer.read(10, 30.0)
                records += more
        assert sorted(one.topic for one in records) == ["probe.ap", "probe.us"]


async def test_a_child_that_fails_before_its_parent_raises_no_alarm(world):
    config = settings("router", "shop", shop={"parents": ["g_router"]})
    async with world(config) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        for slot in range(3):
            await w.results(("g_shop", False))
            await w.until_folded(evaluate, 2 * slot + 1)
            w.later(1000)
            await w.results(("g_router", False))
            await w.until_folded(evaluate, 2 * slot + 2)
            w.later(MINUTE - 1000)
        await w.until_told(1)
        w.later(5 * MINUTE)
        await alarm.look()
        assert await w.told() == [("firing", ["g_router"])]
        for _ in range(2):
            await w.results(("g_router", True), ("g_shop", True))
            w.later()
        await w.until_told(2)
        await alarm.look()
        assert await w.told() == [("firing", ["g_router"]), ("resolved", ["g_router"])]


async def test_a_child_that_stays_down_is_told_when_its_parent_is_back(world):
    config = settings("router", "shop", shop={"parents": ["g_router"]})
    async with world(config) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        for slot in range(3):
            await w.results(("g_router", False), ("g_shop", False))
            await w.until_folded(evaluate, 2 * slot + 2)
            w.later()
        await w.until_told(1)
        await w.results(("g_router", True), ("g_shop", False))
        await w.until_folded(evaluate, 8)
        await w.until_told(2)
        w.later(10 * MINUTE)
        await alarm.look()
        await w.until_told(3)
        assert sorted(await w.told()) == [
            ("firing", ["g_router"]),
            ("firing", ["g_shop"]),
            ("resolved", ["g_router"]),
        ]


# ── kills ───────────────────────────────────────────────────────────────────────


async def shown(w):
    return [(one.id, one.kind, one.at, one.count) for one in await w.transitions()]


async def test_a_killed_evaluate_goes_on_with_the_same_transitions(world, tmp_path):
    keys = [f"s{n}" for n in range(6)]
    pattern = {key: ".xx.xxx..x.."[number:] + ".." for number, key in enumerate(keys)}
    seen = {}
    for kills in (0, 3):
        folder = tmp_path / f"k{kills}"
        folder.mkdir()
        async with World(str(folder / "bus.db"), str(folder / "s.db"), settings(*keys)) as w:
            evaluate = w.evaluate()
            for slot in range(8):
                marks = [(f"g_{key}", pattern[key][slot] == ".") for key in keys]
                before = evaluate.folded
                await w.results(*marks)
                if kills and slot % 2:
                    if slot == 3:
                        await w.until_folded(evaluate, before + 1)
                        await evaluate.drain()  # with a snapshot, else from the start
                    await w.stop("evaluate")
                    evaluate = w.evaluate()
                w.later()

            if not kills:
                await w.until_folded(evaluate, 6 * 8)
            wanted = len(seen[0]) if kills else 1
            while len({one.id for one in await w.transitions()}) < wanted:
                await asyncio.sleep(0.02)
            rows = await w.read("SELECT id, kind, at FROM transition ORDER BY id")
            seen[kills] = rows
            closed = await w.read("SELECT check_key, since, until, reason FROM incident ORDER BY id")
            seen[f"{kills} incidents"] = closed
    assert seen[0] == seen[3]
    assert seen["0 incidents"] == seen["3 incidents"]


async def test_what_was_written_and_not_published_is_published_later_once(world):
    async with world(settings("web")) as w:
        evaluate, publish = w.evaluate(), w.bus.publish

        async def refusing(topic, records):
            if topic == TRANSITIONS:
                raise BusUnavailable("killed here")
            await publish(topic, records)

        w.bus.publish = refusing
        await outage(w, evaluate, "g_web", "xx")
        await until_true(lambda: evaluate.transitions >= 2)
        await w.stop("evaluate")
        w.bus.publish = publish
        assert await w.transitions() == []
        w.later(MINUTE)
        again, _ = w.evaluate(), w.alarm()
        await w.until_told(1)
        await again._sweep()
        assert len({one.id for one in await w.transitions()}) == 2
        assert await w.told() == [("firing", ["g_web"])]


async def test_a_killed_alarm_service_sends_once(world):
    async with world(settings("web")) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        publish = w.bus.publish

        async def refusing(topic, records):
            if topic == "alarms":
                raise BusUnavailable("killed here")
            await publish(topic, records)

        w.bus.publish = refusing
        await outage(w, evaluate, "g_web", "xx")
        await until_true(lambda: alarm.notified == 1)
        await w.stop("alarm")
        w.bus.publish = publish
        alarm = w.alarm()
        await w.until_told(1)
        await outage(w, evaluate, "g_web", ".")
        await w.until_told(2)
        assert [one.event_id for one in await w.alarms()] == ["webhook|g_web|1", "webhook|g_web|2"]


async def test_two_alarm_services_tell_channels_once(world):
    async with world(settings("a", "b", "c")) as w:
        evaluate, one = w.evaluate(), w.alarm()
        await outage(w, evaluate, "g_a", "xx")
        await w.until_told(1)
        other = w.alarm("other")
        await other._load()
        other._is_active = True  # as one that was frozen, and does not know that it has lost its partition
        for key in ("g_b", "g_c"):
            await outage(w, evaluate, key, "xx")
        await w.until_told(3)
        await other.look()
        await one.look()
        ids = [alarm.event_id for alarm in await w.alarms()]
        assert len(ids) == len(set(ids)) == 3


async def test_evaluates_share_the_checks(world):
    keys = [f"s{n}" for n in range(40)]
    async with world(settings(*keys)) as w:
        both = [w.evaluate("a"), w.evaluate("b")]

        def is_divided():
            counts = [len(one._states) for one in both]
            return sum(counts) == 64 and min(counts) == 32

        await until_true(is_divided)
        for success in (False, False, True):
            await w.results(*((f"g_{key}", success) for key in keys))
            w.later()
        await until_true(lambda: sum(one.folded for one in both) >= 120)
        while len(await w.transitions()) < 120:
            await asyncio.sleep(0.02)
        kinds = [one.kind for one in await w.transitions()]
        assert [kinds.count(kind) for kind in ("seems_down", "down", "resolved")] == [40, 40, 40]


# ── commands ────────────────────────────────────────────────────────────────────


async def test_silenced_alarms_are_held_until_the_silence_ends(world):
    async with world(settings("web")) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        await w.command("silence", matchers={"group": "g"}, until=w.now + HOUR)
        while not await w.read("SELECT 1 FROM silence"):
            await asyncio.sleep(0.02)
        await alarm._refresh()
        await outage(w, evaluate, "g_web", "xxx")
        await alarm.look()
        assert await w.told() == []
        w.later(HOUR)
        await alarm._refresh()
        await alarm.look()
        await w.until_told(1)
        assert await w.told() == [("firing", ["g_web"])]


async def test_maintenance_opens_no_incidents_and_ends_open_ones(world):
    async with world(settings("web", "api")) as w:
        evaluate, _ = w.evaluate(), w.alarm()
        await outage(w, evaluate, "g_web", "xx")
        await w.until_told(1)
        await w.command("maintenance", matchers={"group": "g"}, until=w.now + HOUR)
        while not await w.read("SELECT 1 FROM silence"):
            await asyncio.sleep(0.02)
        await evaluate._silences.refresh()
        await outage(w, evaluate, "g_web", "xx")
        await outage(w, evaluate, "g_api", "xx")
        rows = await w.read("SELECT check_key, reason FROM incident")
        assert rows == [("g_web", "maintenance")]


async def test_an_acknowledged_incident_is_reminded_of_no_more(world):
    config = settings("web")
    config["endpoints"][0]["alerts"][0]["minimum-reminder-interval"] = "5m"
    async with world(config) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        await outage(w, evaluate, "g_web", "xx")
        await w.until_told(1)
        w.later(5 * MINUTE)
        await alarm.look()
        await w.until_told(2)
        assert (await w.alarms())[1].payload["is_reminder"] is True
        [(incident,)] = await w.read("SELECT id FROM incident")
        await w.command("ack", incident=incident, by="ada", comment="on it")
        while not await w.read("SELECT 1 FROM incident WHERE acked IS NOT NULL"):
            await asyncio.sleep(0.02)
        w.later(30 * MINUTE)
        await alarm.look()
        assert len(await w.alarms()) == 2
        assert await w.read("SELECT acked_by, comment FROM incident") == [("ada", "on it")]


async def test_a_check_that_is_taken_out_ends_its_incident(world):
    async with world(settings("web", "api")) as w:
        evaluate, alarm = w.evaluate(), w.alarm()
        await outage(w, evaluate, "g_web", "xx")
        await w.until_told(1)
        new = config_of(settings("api"))
        evaluate.reconfigure(new)
        alarm.reconfigure(new)
        await w.results(("g_api", True))
        while not await w.read("SELECT 1 FROM incident WHERE reason = 'superseded'"):
            await asyncio.sleep(0.02)
        while len(await w.transitions()) < 3:
            await asyncio.sleep(0.02)


# ── storage ─────────────────────────────────────────────────────────────────────


async def stored(w, count):
    while True:
        days = await w.read("SELECT day FROM result_day")
        counts = [(await w.read(f"SELECT count(*) FROM result_{day}"))[0][0] for (day,) in days]
        if sum(counts) >= count:
            return
        await asyncio.sleep(0.02)


async def test_results_are_kept_once_and_summed_up(world):
    async with world(settings("web", "api")) as w:
        storage = w.storage()
        for slot in range(120):
            await w.results(("g_web", slot % 4 != 0), ("g_api", True))
            w.later()
        await stored(w, 240)
        await storage.roll_up(everything=True)
        ids = [id_of("g_web"), id_of("g_api")]
        sums = await w.store.read(lambda session: queries.sums_of(session, ids, START - HOUR, w.now))
        assert {(one.good, one.bad) for one in sums.values()} == {(90, 30), (120, 0)}
        assert sums[ids[0]].uptime == 0.75
        assert sums[ids[1]].average == pytest.approx(12.5)
        assert sums[ids[1]].quantile(0.95) == 13
        # Everything is read again, as after a lost position.
        await w.stop("store")
        positions = StoredPositions("store")
        await w.store.write(lambda session: positions.set(session, {("results", n): 0 for n in range(64)}))
        storage = w.storage()
        await until_true(lambda: storage.stored >= 240)
        await storage.roll_up(everything=True)
        again = await w.store.read(lambda session: queries.sums_of(session, ids, START - HOUR, w.now))
        assert again == sums


async def test_late_results_fill_history(world):
    async with world(settings("web")) as w:
        storage = w.storage()
        await w.results(("g_web", True))
        await stored(w, 1)
        w.later(30 * MINUTE)
        await storage.roll_up(everything=True)
        await w.results(("g_web", False), at=START + MINUTE)
        await stored(w, 2)
        await storage.roll_up(everything=True)
        sums = await w.store.read(
            lambda session: queries.sums_of(session, [id_of("g_web")], START - HOUR, w.now)
        )
        assert (sums[id_of("g_web")].good, sums[id_of("g_web")].bad) == (1, 1)


async def test_old_results_go_and_sums_stay(world):
    config = settings("web", retention={"results": "2d", "minutes": "3d", "hours": "30d"})
    async with world(config) as w:
        storage = w.storage()
        for _ in range(6):
            await w.results(("g_web", True))
            w.later(24 * HOUR)
        await stored(w, 6)
        await storage.roll_up(everything=True)
        from yelpaze.monitor.storage.rollups import drop_old

        await w.store.write(lambda session: drop_old(session, w.config.retention, w.now))
        assert len(await w.read("SELECT day FROM result_day")) <= 3
        levels = dict(await w.read("SELECT level, count(*) FROM rollup GROUP BY level"))
        assert (levels["m"] <= 3, levels["h"], levels["d"]) == (True, 6, 6)


# ── push ────────────────────────────────────────────────────────────────────────


async def test_the_silence_of_a_push_check_is_a_failure(world):
    config = {
        **settings("web"),
        "external-endpoints": [{"name": "backup", "token": "secret", "heartbeat": {"interval": "1h"}}],
    }
    async with world(config) as w:
        evaluate = w.evaluate()
        watch = PushWatch(w.bus, w.store, w.config, w.wall)
        await watch.look()
        w.later(59 * MINUTE)
        await watch.look()
        assert evaluate.folded == 0
        w.later(2 * MINUTE)
        await asyncio.gather(watch.look(), watch.look())
        await w.until_folded(evaluate, 1)
        w.later(3 * HOUR)
        await watch.look()
        await w.until_folded(evaluate, 2)
        [opened] = await w.transitions()
        assert (opened.check, opened.kind, opened.message) == (
            "_backup",
            "seems_down",
            "no call within 3600 s",
        )
