"""What ships for the tests of others: routes, faults, delays, simulated time."""

import asyncio

import pytest

from yelpaze import Engine, Flow, Hedge, HostPolicy, MisuseError, Retry, Timeout, get, head, post
from yelpaze.testing import MockTransport, NetworkFault, Reply, run_simulated

SHOP = "https://shop.test"


def sent_by(mock, *requests, **options):
    """The outcomes, and the simulated seconds that it took."""

    async def main():
        began = asyncio.get_running_loop().time()
        async with Engine(transport=mock, **options) as engine:
            outcomes = await asyncio.gather(*(engine.send(request) for request in requests))
        return outcomes, asyncio.get_running_loop().time() - began

    return run_simulated(main())


def test_routes_are_tried_in_order():
    mock = MockTransport(
        {
            f"POST {SHOP}/items/*": Reply(201, json={"made": True}),
            f"{SHOP}/items/7?size=*": Reply(json={"size": "given"}),
            f"{SHOP}/items/7": Reply(json={"id": 7}),
            f"{SHOP}/items/*": lambda sent: {"other": sent.url.rpartition("/")[2]},
            "*": Reply(404),
        }
    )
    outcomes, _ = sent_by(
        mock,
        post(f"{SHOP}/items/7"),
        get(f"{SHOP}/items/7?size=L"),
        get(f"{SHOP}/items/7?colour=red"),
        get(f"{SHOP}/items/9"),
        get("http://elsewhere.test/"),
    )
    assert [outcome.status for outcome in outcomes] == [201, 200, 200, 200, 404]
    assert [outcome.json() for outcome in outcomes[:4]] == [
        {"made": True},
        {"size": "given"},
        {"id": 7},
        {"other": "9"},
    ]
    assert len(mock.requests) == 5
    assert mock.most == 5


def test_a_request_is_seen_as_it_was_sent():
    mock = MockTransport({"*": Reply(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], body="text")})
    ((outcome,), _) = sent_by(mock, post(f"{SHOP}/x", json={"a": 1}, headers={"X-Empty": ""}))
    (sent,) = mock.requests
    assert (sent.method, sent.url, sent.json()) == ("POST", f"{SHOP}/x", {"a": 1})
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-empty"] == ""
    assert sent.headers["traceparent"].split("-")[1] == outcome.trace_id
    assert outcome.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert outcome.text == "text"
    assert outcome.headers["content-length"] == "4"


def test_answers_one_after_the_other_and_retries_between():
    mock = MockTransport(
        {"*": [NetworkFault("connect"), Reply(503, headers={"Retry-After": "120"}), Reply(json=1)]}
    )
    ((outcome,), seconds) = sent_by(mock, get(f"{SHOP}/x"))
    assert outcome.json() == 1
    assert [attempt.status for attempt in outcome.attempts] == [0, 503, 200]
    assert seconds >= 120


def test_a_stall_meets_the_timeouts():
    mock = MockTransport({"*/stall": Reply(delay=float("inf")), "*/slow": Reply(delay=1, body_delay=100)})
    timeout = Timeout(first_byte=10, attempt=20)
    outcomes, seconds = sent_by(mock, get(f"{SHOP}/stall"), get(f"{SHOP}/slow"), retry=None, timeout=timeout)
    assert [outcome.error.kind for outcome in outcomes] == ["timeout.first_byte", "timeout.attempt"]
    assert seconds == 20
    assert mock.under_way == 0


def test_a_streamed_body_goes_where_it_should(tmp_path):
    mock = MockTransport({"*/good": Reply(body=b"x" * 1000), "*/bad": Reply(500, body=b"no")})

    async def main():
        async with Engine(transport=mock, retry=None) as engine:
            good = await engine.send(get(f"{SHOP}/good"), to=tmp_path / "good")
            bad = await engine.send(get(f"{SHOP}/bad"), to=tmp_path / "bad")
            with pytest.raises(OSError, match="disk full"):
                await engine.send(get(f"{SHOP}/good"), to=full)
            return good, bad

    def full(_data):
        raise OSError("disk full")

    good, bad = run_simulated(main())
    assert (good.body, (tmp_path / "good").read_bytes()) == (b"", b"x" * 1000)
    assert (bad.body, (tmp_path / "bad").exists()) == (b"no", False)


def test_head_has_no_body():
    ((outcome,), _) = sent_by(MockTransport({"*": Reply(body="text")}), head(f"{SHOP}/x"))
    assert (outcome.body, outcome.headers["content-length"]) == (b"", "4")


def test_a_flow_without_a_network():
    flow = Flow("prices")

    @flow.request(retry=Retry(attempts=3))
    def item(row):
        return get(f"{SHOP}/items/{row}")

    @flow.compute
    def price(item: dict) -> float:
        return item["price"] * 2

    mock = MockTransport(
        {f"{SHOP}/items/13": Reply(404), f"{SHOP}/items/*": Reply(json={"price": 2.5}, delay=20)}
    )
    results = run_simulated(flow.run([12, 13, 14], engine={"transport": mock}))
    assert [result.value if result.ok else result.failure.status for result in results] == [5.0, 404, 5.0]


def test_brackets_and_methods_in_routes_are_what_they_look_like():
    mock = MockTransport(
        {"get https://shop.test/items?ids[0]=*": Reply(), "http://[2001:db8::1]/*": Reply(201)}
    )
    outcomes, _ = sent_by(mock, get(f"{SHOP}/items?ids[0]=1"), get("http://[2001:db8::1]/x"))
    assert [outcome.status for outcome in outcomes] == [200, 201]


@pytest.mark.parametrize("which", [1, 2])
def test_a_handler_that_fails_costs_its_own_call_at_most(which):
    """The first attempt's, or its hedge's: no slot is lost, and nothing is sent for a call that has ended."""
    calls = 0

    def handler(_sent):
        nonlocal calls
        calls += 1
        if calls == which:
            raise RuntimeError("a mistake of the test")
        return Reply(delay=5)

    mock = MockTransport({"*": handler})

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with Engine(transport=mock, retry=None, hedge=Hedge(after=0.5, share=1)) as engine:
            outcome = await engine.send(get(f"{SHOP}/x"))
            await asyncio.sleep(10)
            (host,) = engine.statistics().hosts.values()
            return outcome, host.in_flight

    outcome, in_flight = run_simulated(main())
    assert outcome.ok is (which == 2)
    assert (in_flight, calls) == (0, which)


def test_a_value_that_is_no_json_says_so():
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with Engine(transport=MockTransport({"*": lambda _: object()})) as engine:
            return await engine.send(get(f"{SHOP}/x"))

    assert "could not be sent" in run_simulated(main()).error.message


def test_simulated_time_does_not_depend_on_the_time_of_day(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    ((outcome,), seconds) = sent_by(MockTransport({"*": [Reply(503), Reply()]}), get(f"{SHOP}/x"))
    assert outcome.ok
    assert seconds < 5


def test_a_request_without_a_route_says_so():
    reported = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with Engine(transport=MockTransport({f"{SHOP}/*": Reply()})) as engine:
            return await engine.send(get("http://elsewhere.test/x"))

    outcome = run_simulated(main())
    assert "no route for GET http://elsewhere.test/x" in outcome.error.message
    assert len(reported) == 1


@pytest.mark.parametrize(
    "routes",
    [
        {"items": Reply()},
        {"GET items": Reply()},
        {5: Reply()},
        {f"{SHOP}/": []},
        {"*": 5},
        {"*": "text"},
        {"*": Reply},
        {"*": [Reply(), 5]},
        [("*", Reply())],
    ],
    ids=range(9),
)
def test_routes_that_make_no_sense_are_refused(routes):
    with pytest.raises(MisuseError):
        MockTransport(routes)


@pytest.mark.parametrize("kind", ["status", "nothing", "cancelled"])
def test_faults_that_no_network_makes_are_refused(kind):
    with pytest.raises(MisuseError, match="NetworkFault takes one of"):
        NetworkFault(kind)


@pytest.mark.parametrize(
    "options",
    [{"status": "200"}, {"status": 999}, {"delay": "5s"}, {"body_delay": -1}, {"json": 1, "body": b"x"}],
    ids=str,
)
def test_replies_that_make_no_sense_are_refused(options):
    with pytest.raises(MisuseError, match="Reply"):
        Reply(**options)


def test_functions_may_stand_in_a_list():
    mock = MockTransport({"*": [lambda sent: Reply(503), lambda sent: b"bytes"]})
    ((outcome,), _) = sent_by(mock, get(f"{SHOP}/x"))
    assert outcome.body == b"bytes"


def test_when_nothing_can_happen_any_more_it_says_so():
    async def for_ever():
        await asyncio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is left to wait for at simulated time 1005"):
        run_simulated(for_ever())


def test_a_day_passes_at_once():
    async def day():
        await asyncio.gather(*(asyncio.sleep(hour * 3600) for hour in range(25)))
        return asyncio.get_running_loop().time()

    assert run_simulated(day()) == 1000 + 24 * 3600


def test_without_pauses_a_retry_after_delays_its_own_call_alone():
    mock = MockTransport({"*/busy": [Reply(429, headers={"Retry-After": "60"}), Reply()], "*": Reply()})

    async def main():
        loop = asyncio.get_running_loop()
        async with Engine(transport=mock, hosts={"*": HostPolicy(pauses=False)}) as engine:
            busy = asyncio.ensure_future(engine.send(get(f"{SHOP}/busy")))
            await asyncio.sleep(1)
            began = loop.time()
            assert (await engine.send(get(f"{SHOP}/other"))).ok
            other = loop.time() - began
            return await busy, other

    busy, other = run_simulated(main())
    assert busy.ok
    assert busy.elapsed == 60
    assert other == 0
