"""What an HTTP/2 server did not process is sent again, a POST too; what it may have processed is not."""

import asyncio
import ssl

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, RequestReceived, StreamEnded

from support.raw import Peer
from yelpaze import Engine, ErrorKind, Retry, get, post

REFUSE, GOAWAY, DIE, ANSWER = "refuse", "goaway", "die", "answer"


class Http2:
    """An HTTP/2 server; `plan(number, connection)` says what happens to each request."""

    def __init__(self, plan):
        self.plan = plan
        self.requests = 0
        self.answered: list[bytes] = []
        self.ended = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        h2.initiate_connection()
        await peer.send(h2.data_to_send())
        paths, last = {}, 0
        while data := await peer.reader.read(1 << 16):
            for event in h2.receive_data(data):
                if isinstance(event, ConnectionTerminated):
                    return
                if isinstance(event, RequestReceived):
                    paths[event.stream_id] = dict(event.headers)[b":path"]
                if not isinstance(event, StreamEnded):
                    continue
                stream = event.stream_id
                self.requests += 1
                what = self.plan(self.requests, peer.number)
                if what == DIE:
                    peer.reset()
                    return
                if what == GOAWAY:
                    h2.close_connection(last_stream_id=last)
                    await peer.send(h2.data_to_send())
                    peer.close()
                    self.ended.set()
                    return
                if what == REFUSE:
                    h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
                else:
                    last = stream
                    self.answered.append(paths[stream])
                    h2.send_headers(stream, [(":status", "200")], end_stream=True)
            await peer.send(h2.data_to_send())


@pytest.fixture(params=["prior knowledge", "ALPN"])
async def served(request, raw, ca, ca_file):
    """`served(plan)` gives the server, its URL, and an engine's options."""

    async def start(plan):
        script, context = Http2(plan), None
        if request.param == "ALPN":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.set_alpn_protocols(["h2"])
            ca.issue_cert("127.0.0.1").configure_cert(context)
        server = await raw(script, tls=context)
        version = "auto" if context else "2"
        return script, server.url, {"http_version": version, "ca_file": ca_file, "retry": Retry(base=0)}

    return start


async def posts(url, count, **options):
    async with Engine(**options) as engine:
        requests = [post(f"{url}/{n}", body=b"x") for n in range(count)]
        return [outcome async for outcome in engine.stream(requests)]


async def test_a_refused_stream_is_sent_again(served):
    server, url, options = await served(lambda number, _: REFUSE if number % 3 == 1 else ANSWER)
    outcomes = await posts(url, 30, **options)
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert sorted(server.answered) == sorted(b"/%d" % n for n in range(30))


async def test_a_stream_above_the_last_one_of_goaway_is_sent_again(served):
    counts = {}

    def ten_for_each_connection(_, connection):
        counts[connection] = counts.get(connection, 0) + 1
        return ANSWER if counts[connection] <= 10 else GOAWAY

    server, url, options = await served(ten_for_each_connection)
    outcomes = await posts(url, 40, **options)
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert sorted(server.answered) == sorted(b"/%d" % n for n in range(40))


async def test_what_is_refused_for_ever_says_so(served):
    _, url, options = await served(lambda *_: REFUSE)
    (outcome,) = await posts(url, 1, **options, park=0.001)
    assert outcome.error.kind in (ErrorKind.REFUSED_STREAM, ErrorKind.HOST_DOWN)
    assert {attempt.error.kind for attempt in outcome.attempts} == {ErrorKind.REFUSED_STREAM}


async def test_a_connection_that_dies_may_have_processed_the_request(served):
    """It had answered others before, so libcurl would repeat the request."""
    server, url, options = await served(lambda number, _: DIE if number == 3 else ANSWER)
    async with Engine(**options) as engine:
        outcomes = [await engine.send(post(f"{url}/{n}", body=b"x")) for n in range(4)]
    assert [outcome.ok for outcome in outcomes] == [True, True, False, True]
    assert outcomes[2].error.kind == ErrorKind.PROTOCOL
    assert len(outcomes[2].attempts) == 1
    assert server.requests == 4


class HalfClosing:
    """Answers one request, pings and ends its side, but goes on reading, and notes whole requests."""

    def __init__(self, *, pings):
        self.pings = pings
        self.whole: list[tuple[int, int]] = []
        self.half_closed = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        h2.initiate_connection()
        await peer.send(h2.data_to_send())
        while data := await peer.reader.read(1 << 16):
            for event in h2.receive_data(data):
                if not isinstance(event, StreamEnded):
                    continue
                self.whole.append((peer.number, event.stream_id))
                if peer.number == 1 and self.half_closed.is_set():
                    continue  # it can't answer any more
                h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                if peer.number == 1:
                    await peer.send(h2.data_to_send())
                    if self.pings:
                        h2.ping(b"12345678")
                        await peer.send(h2.data_to_send())
                    peer.writer.write_eof()
                    self.half_closed.set()
            await peer.send(h2.data_to_send())


@pytest.mark.parametrize("pings", [False, True])
@pytest.mark.parametrize("make", [post, get])
async def test_a_connection_whose_end_has_come_gets_no_request(raw, pings, make):
    script = HalfClosing(pings=pings)
    server = await raw(script)
    options = {"body": b"x"} if make is post else {}
    async with Engine(http_version="2", retry=None) as engine:
        assert (await engine.send(make(server.url, **options))).ok
        await script.half_closed.wait()
        while engine._core.transport._released:  # it has been noticed
            await asyncio.sleep(0)
        outcome = await engine.send(make(server.url, **options))
        assert outcome.ok, outcome.error
    assert [number for number, _ in script.whole] == [1, 2]
