"""Sends attempts: HTTP through an engine, mails over SMTP; all addresses guarded but the operator's own."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from yelpaze.hooks.delivery.decision import Answer
from yelpaze.hooks.delivery.mail import send_mail
from yelpaze.hooks.kinds.protocol import Email, HttpCall
from yelpaze.hooks.settings import HooksSettings
from yelpaze.http.engine import Engine
from yelpaze.model.errors import ErrorKind, MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.model.tls import Tls
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.host import HostPolicy
from yelpaze.policy.limit import Limit
from yelpaze.policy.retry import retry_after_seconds
from yelpaze.version import __version__

OnAnswer = Callable[[Answer], None]
_CONNECT_SECONDS = 5.0
_OMITTED = ("traceparent", "Accept")


class Sender:
    """Two engines: one with the guard, and one for endpoints of the operator's own settings.

    Retries, budget, breaker, parking and pauses of the engine are off: they belong to the endpoint, and
    one customer's 429 must not hold up another's endpoint on the same host.
    """

    def __init__(self, settings: HooksSettings, wall: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._wall = wall
        self._guard = AddressGuard(settings.allow)
        self._guarded = self._engine(self._guard)
        self._trusted = self._engine(None)
        self._mails: set[asyncio.Task[None]] = set()
        self._timeouts: dict[float, Timeout] = {}
        self._stack = contextlib.AsyncExitStack()

    def _engine(self, guard: AddressGuard | None) -> Engine:
        at_once = self._settings.concurrency
        return Engine(
            concurrency=at_once,
            limit=Limit(concurrency=at_once),
            # Thousands of endpoints, each asked now and then.
            connections=self._settings.connections,
            retry=None,
            budget=None,
            breaker=None,
            hosts={"*": HostPolicy(pauses=False)},
            max_redirects=0,
            max_body=self._settings.max_response,
            truncate=True,
            compressed=False,
            address_guard=guard,
            user_agent=f"yelpaze-hooks/{__version__}",
            omit_headers=_OMITTED,
        )

    async def start(self) -> int:
        """Open; return how many attempts may be under way at once."""
        await self._stack.enter_async_context(self._guarded)
        await self._stack.enter_async_context(self._trusted)
        return self._guarded.concurrency

    async def close(self) -> None:
        """End everything; those under way are aborted."""
        for mail in self._mails:
            mail.cancel()
        await asyncio.gather(*self._mails, return_exceptions=True)
        await self._stack.aclose()

    def send(
        self,
        call: HttpCall | Email,
        on_answer: OnAnswer,
        *,
        timeout: float,
        tls: Tls | None,
        trusted: bool,
    ) -> None:
        """Start an attempt; `on_answer` is called with its end, in a later turn of the event loop."""
        if isinstance(call, Email):
            guard = None if trusted else self._guard
            work = self._mail(call, on_answer, guard, timeout, tls)
            task = asyncio.get_running_loop().create_task(work)
            self._mails.add(task)
            task.add_done_callback(self._mails.discard)
            return
        limits = self._timeouts.get(timeout)
        if limits is None:
            connect = min(_CONNECT_SECONDS, timeout)
            limits = self._timeouts[timeout] = Timeout(connect=connect, first_byte=timeout, attempt=timeout)
        try:
            request = Request(
                method=call.method,
                url=call.url,
                headers=call.headers,
                body=call.body or None,
                # It has an id that stays the same, so that receivers know a second one.
                idempotent=True,
                timeout=limits,
                retry=False,
                tls=tls,
            )
        except MisuseError as error:
            answer = Answer(kind="request", text=str(error))
            asyncio.get_running_loop().call_soon(on_answer, answer)
            return
        engine = self._trusted if trusted else self._guarded
        engine.submit(request, lambda outcome: on_answer(self._answer(outcome)))

    async def _mail(
        self,
        mail: Email,
        on_answer: OnAnswer,
        guard: AddressGuard | None,
        timeout: float,  # noqa: ASYNC109
        tls: Tls | None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        answer = Answer(kind=ErrorKind.PROTOCOL, text="an error that is not known: see the log")
        try:
            answer = await send_mail(mail, guard=guard, timeout=timeout, tls=tls, clock=clock)
        except asyncio.CancelledError:
            answer = Answer(kind=ErrorKind.CANCELLED)
            raise
        finally:
            on_answer(answer)

    def _answer(self, outcome: Outcome) -> Answer:
        status, error, timings = outcome.status, outcome.error, outcome.timings
        total = timings.total or (outcome.attempts[-1].seconds if outcome.attempts else 0.0)
        retry_after = None
        if status and not 200 <= status < 300:  # noqa: PLR2004
            retry_after = retry_after_seconds(outcome.headers.get("retry-after"), wall=self._wall())
        return Answer(
            status,
            error.kind.value if error is not None and not status else "",
            error.message if error is not None else "",
            outcome.body,
            retry_after,
            int(total * 1000),
            timings,
        )
