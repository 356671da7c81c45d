"""Answers without a network: routes to replies, faults and functions.

The engine above it is the real one, with its limits, retries, breakers and deadlines. In simulated time
(`simulated_time.py`), the delays of the answers pass at once.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from yelpaze.http.transport import AttemptRequest, AttemptResult, OnAttemptDone, Transfer, status_error
from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Timings
from yelpaze.model.request import HeadersLike

_FAULTS: Final = frozenset(
    {
        ErrorKind.DNS,
        ErrorKind.CONNECT,
        ErrorKind.TLS,
        ErrorKind.CONNECT_TIMEOUT,
        ErrorKind.PROTOCOL,
        ErrorKind.REFUSED_STREAM,
        ErrorKind.TOO_LARGE,
        ErrorKind.BLOCKED_ADDRESS,
    }
)
_NEVER = float("inf")


class Reply(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        status: Its status.
        json: A value that is sent as JSON.
        body: The body as it is, instead of `json`.
        headers: Header fields, as a mapping or as pairs.
        delay: Seconds until its first byte; infinite for a server that stalls.
        body_delay: Seconds from then until its end.

    """

    status: int = 200
    json: Any = msgspec.UNSET
    body: bytes | str = b""
    headers: HeadersLike = ()
    delay: float = 0.0
    body_delay: float = 0.0

    def __post_init__(self) -> None:
        if type(self.status) is not int or not 100 <= self.status <= 599:  # noqa: PLR2004
            raise MisuseError(f"Reply(status=…) takes a number from 100 to 599: {self.status!r}")
        for name in ("delay", "body_delay"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= 0:
                raise MisuseError(f"Reply({name}=…) takes seconds, 0 or more: {value!r}")
        if self.json is not msgspec.UNSET and self.body:
            raise MisuseError("Reply takes json or body, not both")

    def content(self) -> bytes:
        """The body as bytes."""
        if self.json is not msgspec.UNSET:
            return msgspec.json.encode(self.json)
        return self.body.encode() if isinstance(self.body, str) else self.body

    def head(self, length: int) -> bytes:
        """The header block."""
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        lines = [
            f"HTTP/1.1 {self.status} {_phrase(self.status)}",
            *(f"{name}: {value}" for name, value in pairs),
        ]
        if self.json is not msgspec.UNSET:
            lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode("latin-1")


class NetworkFault(msgspec.Struct, frozen=True):
    """A failure of the network, after `delay` seconds.

    `kind` is an error kind: connect, dns, tls, timeout.connect, protocol, too_large, blocked_address.
    Raises MisuseError for others: a status is a `Reply`, and a stall `Reply(delay=float("inf"))`.
    """

    kind: str
    message: str = "simulated"
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _FAULTS:
            raise MisuseError(f"NetworkFault takes one of {', '.join(sorted(_FAULTS))}: {self.kind!r}")


class SentRequest(msgspec.Struct, frozen=True):
    """A request as it was sent; `at` is the event loop's time in seconds."""

    method: str
    url: str
    headers: Headers
    body: bytes
    at: float

    def json(self) -> Any:
        """The body, decoded. Raises msgspec.DecodeError."""
        return msgspec.json.decode(self.body)


Answer = Reply | NetworkFault
Handler = Callable[[SentRequest], Any]
Route = Answer | Handler | Sequence[Answer | Handler]


class MockTransport:
    """A transport for tests: `Engine(transport=MockTransport({…}))`.

    Args:
        routes: From patterns to what is answered. A pattern is a URL, in which `*` stands for anything, and
            before it a method, if it is for that one only. Without `?` in it, the query is ignored. The first
            pattern that matches counts. An answer is a `Reply`, a `NetworkFault`, a list of them (one after
            the other; the last is repeated), or a function of the `SentRequest` that returns one of these or
            a value to be sent as JSON.

    A request without a route fails, and says so. `max_body` of the engine is not applied: that is a
    `NetworkFault("too_large")`. `requests` holds all that were sent; `most` is the highest
    number of them that were under way at once.

    >>> from yelpaze import Engine, get
    >>> mock = MockTransport({"https://shop.test/items/*": [Reply(503), Reply(json={"price": 3})]})
    >>> async def main():
    ...     async with Engine(transport=mock) as engine:
    ...         return await engine.send(get("https://shop.test/items/7"))
    >>> from yelpaze.http.simulated_time import run_simulated
    >>> outcome = run_simulated(main())
    >>> outcome.json(), len(outcome.attempts)
    ({'price': 3}, 2)

    """

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self._routes: list[tuple[str, bool, re.Pattern[str], Callable[[SentRequest], Answer]]] = []
        self._under_way: dict[_MockTransfer, None] = {}
        self.requests: list[SentRequest] = []
        self.most = 0
        if not isinstance(routes, Mapping | None):
            raise MisuseError(f"MockTransport takes a dict of routes, not {type(routes).__name__}")
        for pattern, route in (routes or {}).items():
            self.route(pattern, route)

    @property
    def under_way(self) -> int:
        """Requests that have no answer yet."""
        return len(self._under_way)

    def route(self, pattern: str, route: Route) -> None:
        """Add a route. Raises MisuseError."""
        if not isinstance(pattern, str):
            raise MisuseError(f"a route is a URL such as https://shop.test/items/*: {pattern!r}")
        method, _, url = pattern.rpartition(" ")
        if "://" not in url and not url.startswith("*"):
            raise MisuseError(f"a route is a URL such as https://shop.test/items/*: {pattern!r}")
        pattern_of = re.compile(".*".join(map(re.escape, url.split("*"))), re.DOTALL)
        self._routes.append((method.upper(), "?" in url, pattern_of, _handler_of(route)))

    def start(self, attempt: AttemptRequest, on_done: OnAttemptDone) -> Transfer:
        """Answer as the routes say. Raises MisuseError if there is none."""
        loop = asyncio.get_running_loop()
        block = "\r\n".join(_decoded(line) for line in attempt.header_lines)
        sent = SentRequest(
            attempt.method, attempt.url, Headers(block.encode("latin-1")), attempt.body or b"", loop.time()
        )
        self.requests.append(sent)
        answer = self._answer(sent)
        body = answer.content() if isinstance(answer, Reply) else b""
        transfer = _MockTransfer(loop, attempt, on_done, self._under_way, body)
        self.most = max(self.most, len(self._under_way))
        transfer.answer(answer)
        return transfer

    def _answer(self, sent: SentRequest) -> Answer:
        plain = sent.url.partition("?")[0]
        for method, has_query, pattern, handler in self._routes:
            if method in ("", sent.method) and pattern.fullmatch(sent.url if has_query else plain):
                return handler(sent)
        raise MisuseError(f"MockTransport has no route for {sent.method} {sent.url}")

    def close(self) -> None:
        """Forget what is under way."""
        for transfer in list(self._under_way):
            transfer.cancel()


def _handler_of(route: Route) -> Callable[[SentRequest], Answer]:
    if isinstance(route, Reply | NetworkFault):
        return lambda _: route
    if callable(route) and not isinstance(route, type):
        return lambda sent: _as_answer(route(sent))
    if isinstance(route, list | tuple) and route:
        handlers = _last_repeated([_handler_of(one) for one in route])
        return lambda sent: next(handlers)(sent)  # noqa: PLW0108  a new one each time
    raise MisuseError(f"a route takes a Reply, a NetworkFault, a function, or a list of them: {route!r}")


def _last_repeated(
    handlers: list[Callable[[SentRequest], Answer]],
) -> Iterator[Callable[[SentRequest], Answer]]:
    yield from handlers
    while True:
        yield handlers[-1]


def _as_answer(value: Any) -> Answer:
    if isinstance(value, bytes):
        return Reply(body=value)
    return value if isinstance(value, Reply | NetworkFault) else Reply(json=value)


def _decoded(line: str | bytes) -> str:
    """A header line as it goes over the wire; libcurl's `Name;` is an empty field."""
    text = line if isinstance(line, str) else line.decode("latin-1")
    return f"{text[:-1]}:" if text.endswith(";") and ":" not in text else text


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class _MockTransfer:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attempt: AttemptRequest,
        on_done: OnAttemptDone,
        under_way: "dict[_MockTransfer, None]",
        body: bytes,
    ) -> None:
        self._loop = loop
        self._attempt = attempt
        self._on_done = on_done
        self._under_way = under_way
        self._body = body
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False
        under_way[self] = None

    def paused_for(self, _now: float) -> float:
        return 0.0

    def answer(self, answer: Answer) -> None:
        if answer.delay == _NEVER:
            return
        self._timer = self._loop.call_later(answer.delay, self._arrive, answer)

    def _arrive(self, answer: Answer) -> None:
        if isinstance(answer, Reply):
            self._begin(answer)
        else:
            self._fail(answer)

    def _fail(self, fault: NetworkFault) -> None:
        self._end(AttemptResult(0, Error(ErrorKind(fault.kind), fault.message)))

    def _begin(self, reply: Reply) -> None:
        self.has_begun = True
        if reply.body_delay:
            self._timer = self._loop.call_later(reply.body_delay, self._complete, reply)
        else:
            self._complete(reply)

    def _complete(self, reply: Reply) -> None:
        attempt, body = self._attempt, self._body
        head = bytearray(reply.head(len(body)))
        body = b"" if attempt.method == "HEAD" else body
        raised: BaseException | None = None
        if attempt.write is not None and body:
            try:
                if attempt.write(head, body):
                    body = b""
            except Exception as failed:  # noqa: BLE001  as every transport: the engine raises it
                raised = failed
        total = reply.delay + reply.body_delay
        timings = Timings(first_byte=reply.delay, total=total, queued=attempt.queued)
        error = status_error(reply.status)
        self._end(AttemptResult(reply.status, error, Headers(bytes(head)), body, timings, "1.1", "", raised))

    def _end(self, result: AttemptResult) -> None:
        del self._under_way[self]
        self._on_done(result)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._under_way.pop(self, None)
