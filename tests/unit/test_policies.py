"""The engine's policies in simulated time: each test fails without its policy."""

import asyncio
from collections import Counter

import pytest

from support.simulated import Answer, Simulation
from yelpaze import Breaker, Budget, Engine, Hedge, HostPolicy, Limit, MisuseError, Retry, Timeout, get, post
from yelpaze.testing import MockTransport, NetworkFault, run_simulated

REFUSED = 7  # CURLE_COULDNT_CONNECT
API = "http://10.0.0.1/x"


def ok(_url, _now):
    return Answer()


def only_503(_url, _now):
    return Answer(503)


async def send_all(engine, count, url=API, **options):
    return await asyncio.gather(*(engine.send(get(url, **options)) for _ in range(count)))


async def drain(engine, requests, **options):
    return [outcome async for outcome in engine.stream(requests, **options)]


def away(start, end, seconds=0.01):
    """A server that refuses connections for a while."""

    def server(_url, now):
        return Answer(0, 0.001, code=REFUSED) if start <= now - 1000 < end else Answer(200, seconds)

    return server


# ── deadline ────────────────────────────────────────────────────────────────────────


def test_a_deadline_covers_all_attempts_and_the_pauses_between():
    sim = Simulation(
        lambda *_: Answer(500, 0.4), retry=Retry(attempts=50, base=0.01), budget=None, breaker=None
    )
    outcome = sim.run(lambda engine: engine.send(get(API, deadline=2)))
    assert outcome.error.kind == "timeout.deadline"
    assert outcome.elapsed <= 2.001
    assert 3 <= len(outcome.attempts) <= 6


def test_a_deadline_ends_a_call_that_waits_for_a_slot():
    sim = Simulation(lambda *_: Answer(200, 10), per_host=1)

    async def main(engine):
        return await asyncio.gather(engine.send(get(API)), engine.send(get(API, deadline=1)))

    first, second = sim.run(main)
    assert first.ok
    assert (second.error.kind, second.attempts) == ("timeout.deadline", ())
    assert second.elapsed == pytest.approx(1)
    assert sim.engine.statistics().hosts["http://10.0.0.1:80"].waiting <= 1


def test_waiting_for_a_slot_is_no_part_of_the_attempt():
    sim = Simulation(lambda *_: Answer(200, 0.9), per_host=1, timeout=Timeout(attempt=1))
    outcomes = sim.run(lambda engine: send_all(engine, 5))
    assert all(outcome.ok for outcome in outcomes)
    assert max(outcome.timings.queued for outcome in outcomes) == pytest.approx(3.6)


def test_a_pause_past_the_deadline_is_not_waited_for():
    sim = Simulation(lambda *_: Answer(503, headers="Retry-After: 60\r\n"))
    outcome = sim.run(lambda engine: engine.send(get(API, deadline=5)))
    assert outcome.error.kind == "timeout.deadline"
    assert "Retry-After asks for 60 s" in outcome.error.message
    assert outcome.status == 503
    assert outcome.elapsed < 0.1


# ── retry ───────────────────────────────────────────────────────────────────────────


def test_a_predicate_finds_the_error_inside_a_200():
    def server(_url, now):
        return Answer(body=b'{"error":"busy"}' if now < 1000.05 else b'{"data":1}')

    policy = Retry(attempts=6, base=0.05, when=lambda outcome: "error" in outcome.json())
    outcome = Simulation(server, retry=policy).run(lambda engine: engine.send(get(API)))
    assert outcome.ok
    assert outcome.json() == {"data": 1}
    assert len(outcome.attempts) > 1
    assert outcome.attempts[0].error.kind == "status"
    refused = Simulation(server, retry=policy).run(lambda engine: engine.send(post(API)))
    assert (refused.ok, len(refused.attempts)) == (False, 1)  # it may have been processed


@pytest.mark.parametrize(
    ("policy", "request_", "answer", "attempts"),
    [
        (Retry(statuses={418}), get(API), Answer(418), 3),
        (Retry(statuses={418}), get(API), Answer(503), 1),
        (Retry(errors={"dns"}), get(API), Answer(0, code=REFUSED), 1),
        (Retry(errors={"connect"}), get(API), Answer(0, code=REFUSED), 3),
        (Retry(methods={"POST"}), post(API), Answer(500), 3),
        (Retry(methods={"POST"}), get(API), Answer(500), 1),
        (Retry(), post(API), Answer(500), 1),
        (Retry(), post(API, idempotent=True), Answer(500), 3),
        (Retry(), post(API, idempotency_key="k"), Answer(409), 3),
        (Retry(), post(API, idempotency_key="k"), Answer(422), 1),
        (Retry(), post(API), Answer(409), 1),
        (Retry(), get(API, retry=False), Answer(503), 1),
        (None, get(API), Answer(503), 1),
        (Retry(attempts=100, base=0.5, cap=0.5, max_time=3), get(API), Answer(500), 10),
    ],
)
def test_what_is_tried_again(policy, request_, answer, attempts):
    sim = Simulation(lambda *_: answer, retry=policy, breaker=None)
    outcome = sim.run(lambda engine: engine.send(request_))
    if attempts == 10:  # by time: about 3 s in pauses of 0.25 s on average
        assert 6 <= len(outcome.attempts) <= 30
        assert outcome.elapsed < 3.5
    else:
        assert len(outcome.attempts) == attempts == sim.attempts


def test_an_idempotency_key_is_the_same_in_every_attempt():
    sim = Simulation(lambda *_: Answer(500))
    sim.run(lambda engine: engine.send(post(API, idempotency_key=True)))
    keys = [sent.headers["idempotency-key"] for sent in sim.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0].startswith('"')


# ── budget ──────────────────────────────────────────────────────────────────────────


def test_retries_stay_within_their_budget():
    sim = Simulation(only_503, breaker=None)
    outcomes = sim.run(lambda engine: send_all(engine, 3000))
    assert sim.attempts <= 3000 * 1.3
    assert sim.attempts > 3000 * 1.1
    kinds = Counter(outcome.error.kind for outcome in outcomes)
    assert kinds["budget_spent"] > 2000
    assert all(outcome.status == 503 for outcome in outcomes)


def test_without_the_budget_they_would_not():
    sim = Simulation(only_503, breaker=None, budget=None)
    sim.run(lambda engine: send_all(engine, 3000))
    assert sim.attempts == 9000


def test_the_budget_fills_again():
    sim = Simulation(only_503, breaker=None, budget=Budget(share=0, per_second=1, ttl=10))

    async def main(engine):
        await send_all(engine, 50)
        first = sim.attempts
        await asyncio.sleep(11)
        await send_all(engine, 50)
        return first, sim.attempts - first

    assert sim.run(main) == (60, 60)


# ── breaker ─────────────────────────────────────────────────────────────────────────


def test_an_open_breaker_fails_send_at_once_and_probes_later():
    sim = Simulation(away(0, 40), budget=None)

    async def main(engine):
        await send_all(engine, 30, retry=False)
        tried = sim.attempts
        refused = await engine.send(get(API))
        assert (refused.error.kind, refused.attempts, sim.attempts) == ("breaker_open", (), tried)
        assert engine.statistics().hosts["http://10.0.0.1:80"].state == "open"
        await asyncio.sleep(31)
        await send_all(engine, 30, retry=False)  # half-open, the host still away
        assert sim.attempts - tried <= 5
        await asyncio.sleep(31)
        outcomes = await send_all(engine, 3)
        assert all(outcome.ok for outcome in outcomes)
        assert engine.statistics().hosts["http://10.0.0.1:80"].state == "closed"

    sim.run(main)
    assert sim.kinds() == [
        "breaker.open", "breaker.half_open", "breaker.open", "breaker.half_open", "breaker.closed",
    ]  # fmt: skip


def test_calls_that_wait_fail_when_the_breaker_opens():
    sim = Simulation(lambda *_: Answer(500, 1.0), retry=None, per_host=25)
    outcomes = sim.run(lambda engine: send_all(engine, 200))
    assert Counter(outcome.error.kind for outcome in outcomes)["breaker_open"] > 150
    assert max(outcome.elapsed for outcome in outcomes) < 3


def test_a_busy_host_that_goes_away_is_noticed_at_once():
    """Half of the last ten seconds' calls cannot fail for a long time, twenty in a row do soon."""
    sim = Simulation(away(8.995, 1e9), retry=None)

    async def main(engine):
        for _ in range(900):
            await send_all(engine, 10)
        before = sim.attempts
        await send_all(engine, 500)
        return before

    before = sim.run(main)
    assert before == 9000
    assert sim.attempts - before <= 90


# ── parking ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("concurrency", [2, 8, 256])
def test_a_minute_away_costs_no_request_made_in_bulk(concurrency):
    sim = Simulation(away(2, 62), concurrency=concurrency)
    count = 300 * concurrency if concurrency < 256 else 50_000
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(count))))
    assert len(outcomes) == count
    assert all(outcome.ok for outcome in outcomes)
    assert "breaker.open" in sim.kinds()
    in_the_minute = sum(2 <= when < 62 for when in sim.times)
    assert in_the_minute < 20 * concurrency + 100


def test_a_host_that_never_comes_back_is_given_up():
    sim = Simulation(away(1, 1e9), park=120)
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(50_000))))
    assert len(outcomes) == 50_000
    kinds = Counter("ok" if outcome.ok else outcome.error.kind for outcome in outcomes)
    assert set(kinds) == {"ok", "host_down"}
    assert sim.loop.now - 1000 < 150
    assert "host.down" in sim.kinds()


def test_a_host_given_up_may_come_back():
    sim = Simulation(away(1, 200), park=60)

    async def main(engine):
        first = await drain(engine, (get(API) for _ in range(20_000)))
        await asyncio.sleep(140)
        return first, await drain(engine, (get(API) for _ in range(100)))

    first, second = sim.run(main)
    assert any(outcome.error for outcome in first)
    assert all(outcome.ok for outcome in second)
    assert sim.kinds()[-1] == "breaker.closed" or "host.up" in sim.kinds()


def test_a_spent_budget_parks_in_bulk():
    def half_failing(_url, now):
        return Answer(503 if int(now * 1e6) % 2 else 200)

    options = {"breaker": None, "budget": Budget(share=0.05, per_second=1), "retry": Retry(attempts=40)}
    sim = Simulation(half_failing, **options)
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(500))))
    assert all(outcome.ok for outcome in outcomes)
    assert sim.loop.now - 1000 > 10


def test_a_parked_host_leaves_the_look_ahead_to_others():
    def server(url, now):
        dead = "10.0.0.1" in url and now - 1000 < 300
        return Answer(0, 0.001, code=REFUSED) if dead else Answer()

    sim = Simulation(server, concurrency=50)
    urls = ["http://10.0.0.1/x", "http://10.0.0.2/x"] * 150

    async def main(engine):
        order = []
        async for outcome in engine.stream(get(url) for url in urls):
            order.append((outcome.url, sim.loop.now - 1000))
            assert outcome.ok
        return order

    order = sim.run(main)
    fast = [when for url, when in order if "10.0.0.2" in url]
    assert len(fast) == 150
    assert max(fast) < 20  # all of them while the other is away


def test_a_slow_host_does_not_starve_a_fast_one():
    sim = Simulation(
        lambda url, _: Answer(200, 5 if "10.0.0.1" in url else 0.01), concurrency=20, per_host=10
    )
    urls = ["http://10.0.0.1/x"] * 60 + ["http://10.0.0.2/x"] * 60

    async def main(engine):
        return [(o.url, sim.loop.now - 1000) async for o in engine.stream(get(url) for url in urls)]

    order = sim.run(main)
    assert max(when for url, when in order if "10.0.0.2" in url) < 1


# ── rate and pauses ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rate", ["10/s", "100/s", "1000/s", "90/m"])
def test_a_rate_is_obeyed_within_one_percent(rate):
    sim = Simulation(ok, limit=Limit(rate=rate, concurrency=500))
    pace = Limit(rate=rate).pace
    count = int(10.5 / pace.interval) + 3
    sim.run(lambda engine: drain(engine, (get(API) for _ in range(count))))
    within = sum(when < 10 for when in sim.times)
    assert within == pytest.approx(10 / pace.interval, rel=0.01, abs=1)
    for start in range(10):  # nor more in any second
        in_second = sum(start <= when < start + 1 for when in sim.times)
        assert in_second <= 1 / pace.interval * 1.02 + 1


def test_a_burst_may_start_at_once():
    sim = Simulation(ok, limit=Limit(rate="1/s", burst=5))
    sim.run(lambda engine: drain(engine, (get(API) for _ in range(8))))
    assert [round(when) for when in sim.times] == [0, 0, 0, 0, 0, 1, 2, 3]


def test_a_rate_over_all_hosts():
    sim = Simulation(ok, rate="10/s")
    sim.run(lambda engine: drain(engine, (get(f"http://10.0.0.{n % 9 + 1}/") for n in range(30))))
    assert sim.times[-1] == pytest.approx(2.9, abs=0.02)


@pytest.mark.parametrize(
    "headers",
    [
        "Retry-After: 7\r\n",
        "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Other: 1\r\n",
        'RateLimit: "default";r=0;t=7\r\n',
        'ratelimit-policy: "default";q=10;w=7\r\nratelimit: "default";r=0\r\n',
        "X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 7\r\n",
    ],
)
def test_what_a_host_asks_for_holds_for_all_its_calls(headers):
    first = []

    def server(_url, _now):
        first.append(1)
        return Answer(429, headers=headers) if len(first) == 1 else Answer()

    sim = Simulation(server)

    async def main(engine):
        await engine.send(get(API, retry=False))
        return await send_all(engine, 5)

    outcomes = sim.run(main)
    assert all(outcome.ok for outcome in outcomes)
    wait = 0 if "1970" in headers else 7
    assert min(sim.times[1:]) == pytest.approx(wait + 0.01, abs=0.02)
    assert ("host.paused" in sim.kinds()) == bool(wait)


def test_no_more_calls_than_the_host_says_are_left():
    left = {"n": 10, "until": 5.0}

    def server(_url, now):
        if now - 1000 >= left["until"]:
            left.update(n=10, until=left["until"] + 5)
        left["n"] -= 1
        if left["n"] < 0:
            return Answer(429)
        reset = left["until"] - (now - 1000)
        return Answer(headers=f'RateLimit: "d";r={left["n"]};t={-(-reset // 1):.0f}\r\n')

    sim = Simulation(server, per_host=4)
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(40))))
    assert all(outcome.ok for outcome in outcomes)
    assert all(len(outcome.attempts) == 1 for outcome in outcomes)  # never refused


def test_retry_after_is_clamped():
    sim = Simulation(
        lambda _, now: Answer(429 if now < 1001 else 200, headers="Retry-After: 9999999999\r\n"),
        retry=Retry(retry_after_cap=30),
    )
    outcome = sim.run(lambda engine: engine.send(get(API)))
    assert outcome.ok
    assert outcome.elapsed == pytest.approx(30, abs=0.1)


# ── concurrency ─────────────────────────────────────────────────────────────────────


def test_the_limits_bound_what_is_under_way():
    sim = Simulation(ok, concurrency=30, limit=Limit(concurrency=7))
    sim.run(lambda engine: drain(engine, (get(API) for _ in range(200))))
    assert sim.transport.most == 7
    sim = Simulation(ok, concurrency=30, limit=Limit(concurrency=7))
    sim.run(lambda engine: drain(engine, (get(f"http://10.0.0.{n % 9 + 1}/") for n in range(400))))
    assert sim.transport.most == 30


def test_an_adaptive_limit_finds_what_the_host_bears():
    """A server that answers 40 at once in 10 ms each, and more only as slowly as they come."""
    under_way: list[float] = []

    def server(_url, now):
        under_way[:] = [end for end in under_way if end > now]
        queue = max(0, len(under_way) - 40)
        seconds = 0.01 + queue * 0.01 / 40 * 4
        under_way.append(now + seconds)
        return Answer(200, seconds)

    sim = Simulation(server, concurrency=1000, limit=Limit(concurrency="auto"))
    sim.run(lambda engine: drain(engine, (get(API) for _ in range(20_000))))
    limit = sim.engine.statistics().hosts["http://10.0.0.1:80"].limit
    assert 30 <= limit <= 120
    refusing = Simulation(
        only_503, concurrency=1000, limit=Limit(concurrency="auto"), breaker=None, retry=None
    )
    refusing.run(lambda engine: drain(engine, (get(API) for _ in range(200))))
    assert refusing.engine.statistics().hosts["http://10.0.0.1:80"].limit <= 2


# ── hedging ─────────────────────────────────────────────────────────────────────────


def two_percent_slow():
    count = [0]

    def server(_url, _now):
        count[0] += 1
        return Answer(200, 1.0 if count[0] % 50 == 0 else 0.01 + count[0] % 7 * 0.001)

    return server


async def paced(engine, sim, count):
    async def one(number):
        await asyncio.sleep(number * 0.005)
        return await engine.send(get(API))

    return await asyncio.gather(*(one(number) for number in range(count)))


def p99(outcomes):
    return sorted(outcome.elapsed for outcome in outcomes)[int(len(outcomes) * 0.99)]


def test_hedging_cuts_the_tail_and_costs_five_percent():
    plain = Simulation(two_percent_slow())
    assert p99(plain.run(lambda engine: paced(engine, plain, 5000))) == pytest.approx(1, abs=0.1)
    hedged = Simulation(two_percent_slow(), hedge=Hedge())
    outcomes = hedged.run(lambda engine: paced(engine, hedged, 5000))
    assert p99(outcomes) < 0.1
    statistics = hedged.engine.statistics()
    assert 50 < statistics.hedges <= 5000 * 0.05
    assert statistics.requests == 5000
    assert statistics.in_flight == 0
    assert hedged.attempts == 5000 + statistics.hedges


def test_what_may_not_be_sent_twice_is_not_hedged():
    sim = Simulation(lambda *_: Answer(200, 0.5), hedge=Hedge(after=0.1, share=1))
    sim.run(lambda engine: engine.send(get(API)))
    before = sim.engine.statistics().hedges
    assert before == 1 or before == 0

    async def main(engine):
        for _ in range(20):
            await engine.send(post(API))
        return engine.statistics().hedges

    again = Simulation(lambda *_: Answer(200, 0.5), hedge=Hedge(after=0.1, share=1))
    assert again.run(main) == 0


def test_the_first_failure_waits_for_the_hedge():
    count = [0]

    def server(_url, _now):
        count[0] += 1
        if count[0] <= 10:
            return Answer()
        return Answer(500, 0.3) if count[0] == 11 else Answer(200, 0.4)

    sim = Simulation(server, hedge=Hedge(after=0.2, share=1))

    async def main(engine):
        for _ in range(10):
            await engine.send(get(API))
        return await engine.send(get(API))

    outcome = sim.run(main)
    assert outcome.ok
    assert outcome.elapsed == pytest.approx(0.6)
    assert [attempt.status for attempt in outcome.attempts] == [500, 200]


# ── de-duplication ──────────────────────────────────────────────────────────────────


def test_identical_gets_share_one_call():
    sim = Simulation(ok, dedupe=True)

    async def main(engine):
        same = await send_all(engine, 20)
        others = await asyncio.gather(
            engine.send(get(API)),
            engine.send(get(API, headers={"Accept": "text/plain"})),
            engine.send(get(API, dedupe=False)),
            engine.send(post(API)),
        )
        return same, others

    same, _ = sim.run(main)
    assert all(outcome.ok for outcome in same)
    assert sim.attempts == 1 + 4
    assert sim.engine.statistics().shared == 19


def test_one_who_leaves_does_not_cost_the_others_their_answer():
    sim = Simulation(lambda *_: Answer(200, 1.0), dedupe=True)

    async def main(engine):
        first = asyncio.ensure_future(engine.send(get(API)))
        second = asyncio.ensure_future(engine.send(get(API)))
        third = asyncio.ensure_future(engine.send(get(API), deadline=0.5))
        await asyncio.sleep(0.1)
        first.cancel()
        outcomes = await second, await third
        fourth = asyncio.ensure_future(engine.send(get(API)))
        await asyncio.sleep(0.1)
        fourth.cancel()
        await asyncio.sleep(0.1)
        return outcomes

    second, third = sim.run(main)
    assert second.ok
    assert third.error.kind == "timeout.deadline"
    assert sim.attempts == 2
    assert not sim.transport.under_way


def test_a_shared_call_that_is_parked_leaves_the_look_ahead_to_others():
    def server(url, now):
        dead = "10.0.0.1" in url and now - 1000 < 300
        return Answer(0, 0.001, code=REFUSED) if dead else Answer()

    sim = Simulation(server, concurrency=50, dedupe=True)
    urls = [url for n in range(150) for url in (f"http://10.0.0.1/{n // 3}", f"http://10.0.0.2/{n}")]

    async def main(engine):
        found = []
        async for outcome in engine.stream(get(url) for url in urls):
            assert outcome.ok
            found.append((outcome.url, sim.loop.now - 1000))
        return found

    found = sim.run(main)
    fast = [when for url, when in found if "10.0.0.2" in url]
    assert (len(found), len(fast)) == (300, 150)
    assert max(fast) < 20  # all of them while the other is away
    assert sim.engine.statistics().shared > 0


# ── policies of hosts ───────────────────────────────────────────────────────────────


def test_the_most_exact_pattern_holds():
    hosts = {
        "*": HostPolicy(limit=Limit(concurrency=9)),
        "*.shop.test": HostPolicy(limit=Limit(concurrency=8)),
        "api.shop.test": HostPolicy(retry=None),
        "*.nobody.test": HostPolicy(retry=None),
    }
    sim = Simulation(ok, hosts=hosts, limit=Limit(concurrency=3))

    async def main(engine):
        for host in ("api.shop.test", "img.shop.test", "other.test"):
            await engine.send(get(f"http://{host}/"))
        return engine.statistics()

    statistics = sim.run(main)
    limits = {name.split("/")[2].split(":")[0]: host.limit for name, host in statistics.hosts.items()}
    assert limits == {"api.shop.test": 3, "img.shop.test": 8, "other.test": 9}
    assert statistics.unmatched == ("*.nobody.test",)


def test_a_share_of_the_requests_is_moved_first():
    strict = HostPolicy(retry=None, share=0.1)
    sim = Simulation(lambda *_: Answer(500), hosts={"10.0.0.1": strict}, breaker=None, budget=None)
    outcomes = sim.run(lambda engine: send_all(engine, 2000))
    moved = sum(len(outcome.attempts) == 1 for outcome in outcomes)
    assert 150 < moved < 250
    assert set(sim.engine.statistics().hosts) == {"http://10.0.0.1:80", "http://10.0.0.1:80 (10.0.0.1 10%)"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limit(rate="fast"),
        lambda: Limit(rate="0/s"),
        lambda: Limit(concurrency=0),
        lambda: Limit(burst=0),
        lambda: Breaker(share=0),
        lambda: Breaker(calls=0),
        lambda: Hedge(after=-1),
        lambda: Budget(share=2),
        lambda: Retry(attempts=0),
        lambda: Retry(errors={"nonsense"}),
        lambda: Retry(max_time=-1),
        lambda: HostPolicy(share=0),
        lambda: HostPolicy(retry=3),
        lambda: HostPolicy(deadline=-1),
        lambda: get(API, deadline=-1),
        lambda: get(API, deadline=float("nan")),
        lambda: post(API, idempotency_key="ключ"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(MisuseError):
        make()


def test_listeners_see_everything_and_change_nothing():
    attempts, outcomes = [], []

    def failing(outcome):
        outcomes.append(outcome)
        raise RuntimeError("a hook's own mistake")

    sim = Simulation(
        only_503, on_attempt=lambda request, attempt, trace_id: attempts.append(attempt), on_outcome=failing
    )
    reported = []
    sim.loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
    outcome = sim.run(lambda engine: engine.send(get(API)))
    assert len(attempts) == len(outcome.attempts) == 3
    assert outcomes == [outcome]
    assert reported == ["a listener raised"]


def test_a_call_that_cannot_be_sent_ends_and_gives_its_slot_on():
    sim = Simulation(ok, per_host=1)
    reported = []
    sim.loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
    start = sim.transport.start

    def broken(attempt, on_done):
        sim.transport.start = start
        raise OSError("no more handles")

    sim.transport.start = broken
    first, second = sim.run(lambda engine: send_all(engine, 2))
    assert first.error.kind == "protocol"
    assert second.ok
    assert reported == ["a call could not be sent"]


# ── what policies do to each other ──────────────────────────────────────────────────


def at(host):
    return f"http://{host}/x"


def test_a_429_in_half_open_is_no_hot_loop():
    def server(_url, now):
        return Answer(503 if now < 1001 else 429, 0.01)

    sim = Simulation(server, park=120)
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(60))))
    assert {outcome.error.kind for outcome in outcomes} == {"host_down"}
    assert sim.attempts < 60 * 3 + 100


def test_an_old_failure_gives_no_healthy_host_up():
    def server(_url, now):
        return Answer(500 if now < 1000.5 else 200)

    sim = Simulation(server, limit=Limit(rate="1/s"))

    async def main(engine):
        await engine.send(post(API))
        await asyncio.sleep(700)
        return await drain(engine, (get(API) for _ in range(10)))

    assert all(outcome.ok for outcome in sim.run(main))


def test_a_pause_that_the_host_asked_for_is_no_silence():
    def server(_url, now):
        return Answer(503, headers="Retry-After: 120\r\n") if now < 1100 else Answer()

    sim = Simulation(server, park=60, breaker=None)
    outcomes = sim.run(lambda engine: drain(engine, (get(API) for _ in range(50))))
    assert all(outcome.ok for outcome in outcomes)


def test_calls_that_pause_leave_the_look_ahead_to_others():
    def server(url, now):
        ill = "10.0.0.1" in url and now < 1099
        return Answer(503, headers="Retry-After: 100\r\n") if ill else Answer()

    sim = Simulation(server, concurrency=15)
    urls = [at("10.0.0.1")] * 15 + [at("10.0.0.2")] * 50

    async def main(engine):
        return [(o.url, sim.loop.now - 1000) async for o in engine.stream(get(url) for url in urls)]

    order = sim.run(main)
    assert max(when for url, when in order if "10.0.0.2" in url) < 2
    assert len(order) == 65


def test_the_quota_of_a_new_window_is_believed():
    left = {"n": 100, "until": 10.0}
    limits = []

    def server(_url, now):
        while now - 1000 >= left["until"]:
            left.update(n=100, until=left["until"] + 10)
        left["n"] -= 1
        if left["n"] < 0:
            return Answer(429)
        reset = int(-(-(left["until"] - (now - 1000)) // 1))
        return Answer(200, 0.05, headers=f'RateLimit: "d";r={left["n"]};t={reset}\r\n')

    sim = Simulation(server, per_host=20)

    async def main(engine):
        async for outcome in engine.stream(get(API) for _ in range(500)):
            assert outcome.ok
            limits.append((sim.loop.now - 1000, engine.statistics().hosts["http://10.0.0.1:80"].limit))

    sim.run(main)
    assert sim.loop.now - 1000 < 50  # five windows of a hundred
    assert any(limit == 20 for when, limit in limits if when > 10)


def test_with_retries_off_no_failed_call_is_sent_again():
    sim = Simulation(only_503, retry=None, park=60)
    outcomes = sim.run(lambda engine: drain(engine, (get(f"{API}?{n}") for n in range(60))))
    assert len(outcomes) == 60
    sent = Counter(sent.url for sent in sim.requests)
    assert max(sent.values()) == 1


def test_a_redirect_is_under_the_policies_of_its_new_host():
    def server(url, _now):
        if "10.0.0.1" in url:
            return Answer(302, headers=f"Location: {at('10.0.0.2')}\r\n")
        return Answer(200, 20)

    hosts = {"10.0.0.2": HostPolicy(timeout=Timeout(attempt=1), deadline=2.5)}
    sim = Simulation(server, hosts=hosts, retry=Retry(attempts=10, base=0))
    outcome = sim.run(lambda engine: engine.send(get(at("10.0.0.1"))))
    assert outcome.error.kind == "timeout.deadline"
    assert outcome.elapsed == pytest.approx(2.5, abs=0.02)
    assert sim.engine.statistics().hosts["http://10.0.0.2:80"].requests == 1


def test_a_pause_holds_for_all_shares_of_a_host():
    first = []

    def server(_url, _now):
        first.append(1)
        return Answer(503, headers="Retry-After: 60\r\n") if len(first) == 1 else Answer()

    sim = Simulation(server, hosts={"10.0.0.1": HostPolicy(share=0.5, retry=None)})

    async def main(engine):
        await engine.send(get(API, retry=False))
        await send_all(engine, 20)

    sim.run(main)
    assert min(sim.times[1:]) >= 60


def test_a_host_that_asked_for_a_pause_is_not_forgotten():
    def server(url, _now):
        return Answer(503, headers="Retry-After: 100\r\n") if "10.0.0.1" in url else Answer()

    sim = Simulation(server)

    async def main(engine):
        await engine.send(get(at("10.0.0.1"), retry=False))
        await drain(engine, (get(at(f"h{number}.test")) for number in range(10_100)))
        await engine.send(get(at("10.0.0.1"), retry=False))

    sim.run(main)
    times = [sent.at for sent in sim.requests if "10.0.0.1" in sent.url]
    assert times[1] - times[0] >= 100


def test_a_hedges_loser_is_no_failure_of_the_host():
    count = [0]

    def server(_url, _now):
        count[0] += 1
        return Answer(200, 5 if count[0] % 2 else 0.05)

    sim = Simulation(server, hedge=Hedge(after=0.2, share=1), per_host=100)

    async def main(engine):
        outcomes = [await engine.send(get(API), deadline=1) for _ in range(20)]
        await asyncio.sleep(20)
        return outcomes

    assert all(outcome.ok for outcome in sim.run(main))
    host = sim.engine.statistics().hosts["http://10.0.0.1:80"]
    assert (host.failures, host.state, host.in_flight) == (0, "closed", 0)


def test_sharing_a_call_keeps_the_trace():
    sim = Simulation(ok, dedupe=True)

    async def main(engine):
        done = asyncio.get_running_loop().create_future()
        engine.submit(get(API), done.set_result, trace_id="a" * 32)
        return await done

    assert sim.run(main).trace_id == "a" * 32


def test_a_predicate_that_raises_refuses_the_answer():
    policy = Retry(attempts=2, base=0, when=lambda outcome: "error" in outcome.json())
    sim = Simulation(lambda *_: Answer(200, body=b"<html>"), retry=policy)
    outcome = sim.run(lambda engine: engine.send(get(API)))
    assert not outcome.ok
    assert "DecodeError" in outcome.error.message
    assert len(outcome.attempts) == 2


def test_aborted_calls_are_told_to_the_hook():
    outcomes = []
    sim = Simulation(lambda *_: Answer(200, 60), per_host=1, on_outcome=outcomes.append)

    async def main(engine):
        tasks = [asyncio.ensure_future(engine.send(get(API))) for _ in range(50)]
        await asyncio.sleep(0.1)
        await engine.close()
        return await asyncio.gather(*tasks)

    ended = sim.run(main)
    assert {outcome.error.kind for outcome in ended} == {"cancelled"}
    assert len(outcomes) == 50
    assert sim.attempts == 1  # none was begun only to be stopped


@pytest.mark.parametrize(
    "make",
    [
        lambda: Breaker(pause="3s"),
        lambda: Budget(share=None),
        lambda: Hedge(after="soon"),
        lambda: Retry(when=3),
    ],
)
def test_settings_of_a_wrong_type_are_refused(make):
    with pytest.raises(MisuseError):
        make()


def test_an_open_breaker_says_whose_it_is_and_for_how_long():
    transport = MockTransport({"http://a.test/": NetworkFault("connect")})

    async def messages():
        async with Engine(transport=transport, retry=None, breaker=Breaker(calls=1, pause=30)) as engine:
            await engine.send(get("http://a.test/"))
            await asyncio.sleep(9.6)
            return (await engine.send(get("http://a.test/"))).error.message

    assert run_simulated(messages()).startswith(
        "http://a.test:80 is away: its breaker is open for another 20 s"
    )
