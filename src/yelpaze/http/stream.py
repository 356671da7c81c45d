"""Many calls from an input taken lazily, with a bounded window."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Protocol

from yelpaze.http.options import OnDone, Pending
from yelpaze.model.closing import closing
from yelpaze.model.errors import MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request
from yelpaze.policy.look_ahead import LookAhead


class Submit(Protocol):
    """Engine.submit."""

    def __call__(self, request: Request, on_done: OnDone, *, park_listener: "_Window") -> Pending:
        """Start a call."""


async def stream(
    submit: Submit,
    requests: Iterable[Request] | AsyncIterable[Request],
    *,
    size: int,
    ordered: bool,
) -> AsyncIterator[Outcome]:
    """Yield outcomes; at most `size` requests are taken and not yet given back.

    Those that wait for their host don't count, up to eight times as many.
    """
    window = _Window(submit, size, ordered=ordered)
    try:
        if isinstance(requests, AsyncIterable):
            async with closing(_from_async(window, requests)) as opened:
                async for outcome in opened:
                    yield outcome
        else:
            async with closing(_from_sync(window, iter(requests))) as opened:
                async for outcome in opened:
                    yield outcome
    finally:
        window.cancel()


class _Window:
    """Calls under way and outcomes not yet taken."""

    def __init__(self, submit: Submit, size: int, *, ordered: bool) -> None:
        self._submit = submit
        self._ordered = ordered
        self.ahead = LookAhead(size, parks=not ordered)
        self._ready: deque[Outcome] = deque()
        self._early: dict[int, Outcome] = {}
        self._calls: dict[int, Pending] = {}
        self._next_in = self._next_out = 0
        self._waiter: asyncio.Future[None] | None = None

    def on_parked(self, change: int) -> None:
        self.ahead.parked += change
        if change > 0:
            self.wake()

    def add(self, request: Request) -> None:
        number = self._next_in
        self._next_in += 1
        self.ahead.held += 1

        def on_done(outcome: Outcome) -> None:
            self._calls.pop(number, None)
            self._arrived(number, outcome)

        try:
            call = self._submit(request, on_done, park_listener=self)
        except BaseException:
            self.ahead.held -= 1
            raise
        if not call.abandoned:
            self._calls[number] = call

    def _arrived(self, number: int, outcome: Outcome) -> None:
        if self._ordered:
            self._early[number] = outcome
            while self._next_out in self._early:
                self._ready.append(self._early.pop(self._next_out))
                self._next_out += 1
        else:
            self._ready.append(outcome)
        if self._ready:
            self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> Outcome | None:
        if not self._ready:
            return None
        self.ahead.held -= 1
        return self._ready.popleft()

    async def changed(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def cancel(self) -> None:
        for call in list(self._calls.values()):
            call.cancel()


async def _from_sync(window: _Window, requests: Iterator[Request]) -> AsyncIterator[Outcome]:
    more, refused, ahead = True, None, window.ahead
    while True:
        while more and (ahead.held < ahead.size or ahead.has_room):
            try:
                request = next(requests)
            except StopIteration:
                more = False
                break
            try:
                window.add(request)
            except MisuseError as error:  # no request, or the engine was closed: what is done comes first
                more, refused = False, error
        outcome = window.take()
        if outcome is not None:
            yield outcome
        elif window.ahead.held:
            await window.changed()
        elif refused is not None:
            raise refused
        else:
            return


async def _from_async(window: _Window, requests: AsyncIterable[Request]) -> AsyncIterator[Outcome]:
    room = asyncio.Event()

    async def feed() -> None:
        try:
            async for request in requests:
                while not window.ahead.has_room:
                    room.clear()
                    await room.wait()
                window.add(request)
        finally:
            window.wake()

    feeder = asyncio.ensure_future(feed())
    try:
        while True:
            outcome = window.take()
            if outcome is not None:
                yield outcome
                room.set()
            elif window.ahead.held or not feeder.done():
                await window.changed()
                room.set()
            else:
                await feeder  # raises what the input raised
                return
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
