"""Flows from Python, against a real server: answers, failures, skips, many requests."""

import asyncio
from typing import TypedDict

import msgspec
import pytest

import yelpaze
from support.raw import Peer
from yelpaze import Failure, Flow, MisuseError, Response, Retry, get, post
from yelpaze.testing import MockTransport, Reply


async def shop(peer: Peer) -> None:
    """`/n` answers {"n": n}; /bad no JSON; /404 and /500 that status; /echo the body."""
    while data := await peer.request():
        path = data.split(b" ")[1].decode().split("?")[0]
        if path == "/bad":
            await peer.answer(b"no json")
        elif path in ("/404", "/500"):
            await peer.answer(b'{"error": "x"}', status=f"{path[1:]} X")
        elif path == "/echo":
            await peer.answer(data.partition(b"\r\n\r\n")[2])
        else:
            await peer.answer(b'{"n": %s}' % path[1:].encode())


class Number(msgspec.Struct):
    n: int


class Row(TypedDict):
    n: int


async def outcome_of(flow: Flow, *rows, **options):
    return await flow.run(rows, **options)


async def test_answers_are_decoded_by_annotation(raw):
    server = await raw(shop)
    flow = Flow("f")

    @flow.request
    def plain(row: Row):
        return get(f"{server.url}/{row['n']}")

    @flow.request
    def again(plain: Number):
        return get(f"{server.url}/{plain.n + 1}")

    @flow.request
    def third(again):  # without annotation, a request step gets the response
        assert isinstance(again, Response)
        return get(f"{server.url}/{again.json()['n'] + 1}")

    @flow.compute
    def last(plain: Response, again: dict, third, row):  # and a compute step the decoded body
        return plain.status, plain.json(), again, third, row

    (result,) = await outcome_of(flow, {"n": 1})
    assert result.value == (200, {"n": 1}, {"n": 2}, {"n": 3}, {"n": 1})
    assert result.row == 1
    assert result.input == {"n": 1}


async def test_a_plain_function_that_someone_already_has(raw):
    server = await raw(shop)

    def annotated(resp1: dict, resp2: dict, resp3: dict):
        return resp1["n"] + resp2["n"] + resp3["n"]

    def plain(resp1, resp2, resp3):
        return resp1["n"] + resp2["n"] + resp3["n"]

    def many(resp1, resp2, resp3):
        return sum(answer["n"] for answers in (resp1, resp2, resp3) for answer in answers)

    for business_logic in (annotated, plain, many):
        flow = Flow("f")
        for number in (1, 2, 3):

            def step(row, number=number, logic=business_logic):
                request = get(f"{server.url}/{number * row}")
                return [request] if logic is many else request

            step.__name__ = f"resp{number}"
            flow.request(step)
        flow.compute(business_logic)
        assert [r.value for r in await outcome_of(flow, 1, 10)] == [6, 60]


async def test_a_body_that_is_no_json_names_the_annotation_that_would_take_it(raw):
    async def says(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"<html>")

    server = await raw(says)
    flow = Flow("f")

    @flow.request
    def page(row):
        return get(server.url)

    @flow.compute
    def last(page):
        return page

    (result,) = await outcome_of(flow, 1)
    assert result.failure.message.endswith("; annotate it `Response` to get the answer as it is")


async def test_lists_and_dicts_of_requests(raw):
    server = await raw(shop)
    flow = Flow("f")

    @flow.request
    def listed(row):
        return [get(f"{server.url}/{n}") for n in range(row)]

    @flow.request
    def named(row):
        return {"a": get(f"{server.url}/7"), "b": get(f"{server.url}/8")}

    @flow.compute
    def last(listed: list[Number], named: dict[str, Number]):
        return [item.n for item in listed], {name: item.n for name, item in named.items()}

    results = await outcome_of(flow, 3, 0)
    assert results[0].value == ([0, 1, 2], {"a": 7, "b": 8})
    assert list(results[0].value[1]) == ["a", "b"]
    assert results[1].value[0] == []


async def test_one_failed_call_of_a_list_fails_the_step_or_is_an_item(raw):
    server = await raw(shop)

    def made(optional: bool) -> Flow:
        flow = Flow("f")

        @flow.request(optional=optional)
        def listed(row):
            return [get(f"{server.url}/1"), get(f"{server.url}/404")]

        @flow.compute
        def last(listed: list[Number | Failure]):
            return [item.status if isinstance(item, Failure) else item.n for item in listed]

        return flow

    (strict,) = await outcome_of(made(False), 1)
    assert strict.failure.kind == "status"
    assert strict.failure.status == 404
    assert strict.failure.step == "listed"
    (lenient,) = await outcome_of(made(True), 1)
    assert lenient.value == [1, 404]


async def test_optional_steps_pass_their_failure_on(raw):
    server = await raw(shop)
    flow = Flow("f", engine={"retry": None})

    @flow.request(optional=True)
    def stock(row):
        return get(f"{server.url}/500")

    @flow.compute
    def last(stock: dict | Failure):
        return stock.kind, stock.status, len(stock.attempts)

    (result,) = await outcome_of(flow, 1)
    assert result.value == ("status", 500, 1)


async def test_skipped_steps(raw):
    server = await raw(shop)
    flow = Flow("f")

    @flow.request
    def maybe(row):
        return get(f"{server.url}/1") if row else None

    @flow.request
    def after(maybe: Number):
        return get(f"{server.url}/{maybe.n + 1}")

    @flow.compute
    def last(maybe: Number | None, after: Number | None):
        return maybe and maybe.n, after and after.n

    results = await outcome_of(flow, 1, 0)
    assert [r.value for r in results] == [(1, 2), (None, None)]

    strict = Flow("strict")
    strict.request(maybe)

    @strict.compute
    def end(maybe: Number):
        return maybe.n

    assert [r.value for r in await outcome_of(strict, 1, 0)] == [1, None]


async def test_accept_by_status_and_by_predicate(raw):
    server = await raw(shop)

    def made(accept) -> Flow:
        flow = Flow("f")

        @flow.request(accept=accept)
        def only(row):
            return get(f"{server.url}/{row}")

        return flow

    results = await outcome_of(made({200, 404}), 404, 5)
    assert [r.value.status for r in results] == [404, 200]
    results = await outcome_of(made(lambda outcome: outcome.json()["n"] < 9), 5, 10)
    assert [r.ok for r in results] == [True, False]
    (broken,) = await outcome_of(made(lambda outcome: 1 / 0), 1)
    assert broken.failure.kind == "exception"


async def test_what_does_not_fit_fails_the_row_with_the_fields_path(raw):
    server = await raw(shop)
    flow = Flow("misfits")

    @flow.request
    def answer(row: Row):
        return get(f"{server.url}/{row['n']}") if row["n"] < 10 else get(f"{server.url}/bad")

    flow.compute(text_of)
    results = await outcome_of(flow, {"n": 1}, {"n": 99}, {"n": "x"}, "nonsense")
    assert [r.failure.kind for r in results] == ["validation", "validation", "input", "input"]
    assert "`$.n`" in results[0].failure.message
    assert "'answer'" in results[0].failure.message
    assert results[0].failure.step == "text_of"
    assert results[2].failure.step is None
    assert len(results[0].failure.trace_id) == 32


class NText(msgspec.Struct):
    n: str


def text_of(answer: NText):
    return answer.n


async def test_failures_of_user_code_and_of_requests(raw):
    flow = Flow("f", engine={"retry": None})

    @flow.request
    def only(row):
        if row == "raise":
            raise LookupError("oops")
        if row == "wrong":
            return 17
        if row == "wrong list":
            return [17]
        return get(row)

    rows = [
        "raise",
        "wrong",
        "wrong list",
        "file:///x",
        "http://a\r\nb/",
        "",
        "http://127.0.0.1:1/",
    ]
    results = await outcome_of(flow, *rows)
    kinds = [r.failure.kind for r in results]
    assert kinds == ["exception", "exception", "exception", "misuse", "misuse", "misuse", "connect"]
    assert "LookupError: oops" in results[0].failure.traceback
    assert "test_flow.py" in results[0].failure.traceback
    assert "not int" in results[1].failure.message
    assert results[6].failure.attempts[0].error.kind == "connect"


async def test_a_post_step_marked_idempotent_is_retried(raw):
    times = 0

    async def fails_twice(peer: Peer) -> None:
        nonlocal times
        while await peer.request():
            times += 1
            await peer.answer(b"{}", status="500 X" if times < 3 else "200 OK")

    server = await raw(fails_twice)
    flow = Flow("f", engine={"retry": yelpaze.Retry(base=0)})

    @flow.request(idempotent=True)
    def only(row):
        return post(server.url, json={})

    (result,) = await outcome_of(flow, 1)
    assert result.ok
    assert times == 3


async def test_all_calls_of_a_row_share_its_trace(raw):
    traces = []

    async def notes(peer: Peer) -> None:
        while data := await peer.request():
            traces.append(data.split(b"traceparent: ")[1].split(b"\r\n")[0].split(b"-")[1:3])
            await peer.answer(b"{}")

    server = await raw(notes)
    flow = Flow("f")

    @flow.request
    def first(row):
        return get(server.url)

    @flow.request
    def second(first):
        return get(server.url)

    await outcome_of(flow, 1)
    assert traces[0][0] == traces[1][0]
    assert traces[0][1] != traces[1][1]


async def test_stream_is_lazy_bounded_and_stops_when_left(raw):
    server = await raw(shop)
    flow = Flow("f")
    taken = 0

    @flow.request
    def only(row):
        return get(f"{server.url}/{row}")

    def rows():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    given = 0
    stream = flow.stream(rows(), concurrency=4)
    async for result in stream:
        assert result.ok
        given += 1
        assert taken <= given + 5
        if given == 20:
            break
    await stream.aclose()


async def test_async_rows_and_rows_that_raise(raw):
    server = await raw(shop)
    flow = Flow("f")

    @flow.request
    def only(row):
        return get(f"{server.url}/{row}")

    async def rows():
        yield 1
        raise LookupError("source broke")

    with pytest.raises(LookupError):
        await flow.run(rows())


def test_yelpaze_run_blocks():
    flow = Flow("f")

    @flow.compute
    def double(row: int) -> int:
        return 2 * row

    assert [r.value for r in yelpaze.run(flow, [1, 2])] == [2, 4]
    outcomes = yelpaze.run({"a": get("http://127.0.0.1:1/")}, retry=None)
    assert outcomes["a"].error.kind == "connect"
    assert len(yelpaze.run([get("http://127.0.0.1:1/")] * 3, retry=None)) == 3
    assert yelpaze.run(get("http://127.0.0.1:1/"), retry=None).status == 0
    with pytest.raises(MisuseError):
        yelpaze.run(17)


async def test_inside_a_loop_yelpaze_run_says_what_to_write():
    flow = Flow("f")

    async def page():
        """Never begun."""

    for what, instead in (
        (flow, r"await flow\.run\(rows\)"),
        (page(), "await it"),
        (get("http://127.0.0.1:1/"), r"await engine\.send"),
        ({"a": get("http://127.0.0.1:1/")}, r"engine\.gather"),
    ):
        with pytest.raises(MisuseError, match=instead):
            yelpaze.run(what)


def test_yelpaze_run_checks_its_options():
    flow = Flow("f")

    @flow.compute
    def double(row: int) -> int:
        return 2 * row

    with pytest.raises(MisuseError):
        yelpaze.run(flow, [1], concurrency=0)


def test_workers_need_a_flow_that_they_can_find():
    flow = Flow("hidden")

    @flow.compute
    def double(row: int) -> int:
        return 2 * row

    with pytest.raises(yelpaze.FlowError, match="top level"):
        yelpaze.run(flow, [1], workers=1)


async def test_hostile_answers_of_a_last_step_end_the_row(raw):
    async def hostile(peer: Peer) -> None:
        while data := await peer.request():
            deep = b"/deep" in data
            await peer.answer(
                b"[" * 100_000 + b"]" * 100_000 if deep else b"text",
                headers="" if deep else "Content-Type: text/plain; charset=idna\r\n",
            )

    server = await raw(hostile)
    flow = Flow("f")

    @flow.request
    def only(row):
        return get(f"{server.url}/{row}")

    from yelpaze.flow.execution import _plain

    results = await outcome_of(flow, "deep", "charset")
    assert all(result.ok for result in results)
    assert [len(_plain(result.value)) for result in results] == [200_000, 4]


async def test_a_request_that_cannot_be_made_fails_its_row_only(raw):
    server = await raw(shop)
    flow = Flow("f")

    @flow.request
    def only(row):
        if row == 3:
            raise SystemExit(1)
        return post(f"{server.url}/1", body={"a": 1} if row == 2 else b"x")

    results = await outcome_of(flow, 1, 2, 3, 4)
    assert [result.failure and result.failure.kind for result in results] == [
        None,
        "misuse",
        "exception",
        None,
    ]


class Panic(BaseException):
    """As Rust's panics come through PyO3."""


@pytest.mark.parametrize(
    "error", [Panic, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("where", ["request", "accept", "retry", "compute", "str"])
async def test_whatever_user_code_raises_fails_its_row_only(error, where):
    class UnspeakableError(Exception):
        def __str__(self):
            raise error

    def fail(at, value=True):
        if at == where:
            raise error
        return value

    flow = Flow("f")

    @flow.request(
        accept=lambda outcome: fail("accept"), retry=Retry(when=lambda outcome: fail("retry", False))
    )
    def call(row):
        if row == 2:
            fail("request")
            return get("https://a.test/2")
        return get("https://a.test/")

    @flow.compute
    def out(call: int, row: int):
        if row == 2:
            fail("compute")
            if where == "str":
                raise UnspeakableError
        return call

    mock = MockTransport({"https://a.test/2": Reply(json=2), "*": Reply(json=1)})
    results = await flow.run([1, 2, 3], engine={"transport": mock})
    assert len(results) == 3
    assert results[1].ok is (where == "retry")  # there it refuses the answer, which `accept` takes
    if where in ("request", "compute", "str"):
        assert [result.value for result in results if result.ok] == [1, 1]
        assert results[1].failure.kind == "exception"


async def test_rows_that_end_at_once_leave_the_loop_to_others():
    flow = Flow("f")

    @flow.request
    def only(row: int):
        raise LookupError

    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await flow.run(range(5000))
    task.cancel()
    assert turns > 10
