"""One attempt: a slot, an address, a transfer, and the timers that bound it.

    resolving   at the resolver                 → _resolved()
    attempting  in libcurl, with a timer        → _answered() or _timed_out()
    over        on_end has been called, or the attempt was stopped

It has a slot when it is made; whoever hears of its end calls `settle`, which gives the slot
back. A call may have two at a
time (a hedge); the one that lost is let go: it ends unheard, since cancelling a transfer
would cost its connection, and what it tells of the host still counts.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from yelpaze.http.handle import Handle
from yelpaze.http.reading import Reading, read
from yelpaze.http.resolver import Answer
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.outcome import Timings
from yelpaze.model.request import Request, Timeout

if TYPE_CHECKING:
    from yelpaze.http.core import Core
    from yelpaze.http.host import Host

OnEnd = Callable[["Try", Reading], None]


class Try:
    """An attempt under way. `stop()` gives slot and connection back at once, without `on_end`."""

    __slots__ = (
        "_core",
        "_dns",
        "_handle",
        "_hop",
        "_host",
        "_on_end",
        "_on_slow",
        "_over",
        "_replayable",
        "_shard_number",
        "_spool",
        "_timeout",
        "_timer",
        "_trace_id",
        "began",
        "generation",
        "queued",
        "write_error",
    )

    def __init__(
        self,
        core: "Core",
        host: "Host",
        hop: Request,
        on_end: OnEnd,
        *,
        timeout: Timeout,
        replayable: bool,
        trace_id: str,
        spool: Spool | None = None,
        on_slow: Callable[[], None] | None = None,
        queued: float = 0.0,
    ) -> None:
        self._core = core
        self._host = host
        self._hop = hop
        self._on_end = on_end
        self._on_slow = on_slow
        self._timeout = timeout
        self._replayable = replayable
        self._trace_id = trace_id
        self._spool = spool
        self._handle: Handle | None = None
        self._timer: Timer | None = None
        self._dns = 0.0
        self._shard_number = 0
        self._over = False
        self.queued = queued
        self.began = 0.0
        self.generation = 0
        self.write_error: BaseException | None = None

    # ── address ─────────────────────────────────────────────────────────────────

    def start(self, now: float) -> None:
        """Begin; `on_end` is never called from within this."""
        host, resolver = self._host, self._core.resolver
        self.began = now
        host.attempts += 1
        self.generation = host.generation
        if not host.needs_look_up or resolver is None:
            self._transfer(None)
            return
        answer = resolver.cached(host.name)
        if answer is None:
            resolver.look_up(host.name, self._resolved, self._timeout.connect)
        elif answer.error:
            self._core.soon(self._resolved, answer)
        else:
            self._transfer(answer)

    def _resolved(self, answer: Answer) -> None:
        if self._over:
            return
        self._dns = self._core.now() - self.began
        if answer.error:
            self._end(Reading(0, Error(ErrorKind.DNS, answer.error)))
        else:
            self._transfer(answer)

    # ── transfer ────────────────────────────────────────────────────────────────

    def _transfer(self, answer: Answer | None) -> None:
        core, hop, host = self._core, self._hop, self._host
        body = hop.body
        self._handle = handle = core.transport.handle((hop.method, body is not None, self._replayable))
        self._shard_number = number = host.take_shard()
        shard = core.transport.shard(number)
        resolve = None if answer is None else host.resolve_entry(answer.addresses, shard, self.began)
        handle.limit_connect(self._timeout.connect)
        handle.prepare(hop.url, core.tracer.header_lines(hop, self._trace_id), body, resolve)
        if self._spool is not None:
            self._spool.attach(handle)
        limits = self._timeout
        first = min(limits.first_byte, limits.attempt)
        if self._on_slow is not None and host.hedger is not None and host.hedger.after < first:
            self._timer = core.timers.at(self.began + host.hedger.after, self._slow)
        else:
            self._timer = core.timers.at(self.began + first, self._timed_out)
        core.attempts += 1
        core.transport.start(handle, shard, self._answered)

    def _slow(self) -> None:
        first = min(self._timeout.first_byte, self._timeout.attempt)
        self._timer = self._core.timers.at(self.began + first, self._timed_out)
        if self._on_slow is not None:
            self._on_slow()

    def _timed_out(self) -> None:
        handle, limits, now = self._handle, self._timeout, self._core.now()
        if handle is None:
            return
        elapsed = now - self.began
        if elapsed < limits.attempt and handle.head:
            self._timer = self._core.timers.at(self.began + limits.attempt, self._timed_out)
            return
        if elapsed >= limits.attempt:
            kind, what = ErrorKind.ATTEMPT_TIMEOUT, f"no whole answer within {limits.attempt:g} s"
        else:
            kind, what = (
                ErrorKind.FIRST_BYTE_TIMEOUT,
                f"no answer began within {limits.first_byte:g} s",
            )
        self._timer = None
        timings = Timings(self._dns, total=elapsed, queued=self.queued)
        self._stop_transfer(handle)
        self._end(Reading(0, Error(kind, what), timings=timings))

    def _answered(self, handle: Handle, code: int, message: str) -> None:
        """Libcurl is done: read what is needed, then free the handle."""
        if self._timer is not None:
            self._timer.cancel()
        self.write_error = handle.write_error
        reading = read(handle, code, message, dns=self._dns, queued=self.queued, max_body=self._core.max_body)
        self._handle = None
        self._host.give_shard(self._shard_number)
        if self._spool is not None:
            handle.restore_collecting()
        self._core.transport.release(handle)
        self._end(reading)

    def _stop_transfer(self, handle: Handle) -> None:
        self._handle = None
        if handle.resolve_set and handle.shard is not None:  # libcurl may not have read it yet
            self._host.untell(handle.shard)
        self._host.give_shard(self._shard_number)
        if self._spool is not None:
            handle.restore_collecting()
        self._core.transport.cancel(handle)

    # ── end ─────────────────────────────────────────────────────────────────────

    def _end(self, reading: Reading) -> None:
        self._over = True
        self._on_slow = None
        self._on_end(self, reading)

    def settle(self, reading: Reading, error: Error | None) -> None:
        """Let the host learn how it ended, and only then give the slot to the next in line."""
        self._core.learn(self._host, self, reading, error)
        self._core.give_slot(self._host)

    def stop(self) -> None:
        """Break off, wherever it stands."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._stop_transfer(self._handle)
        self._core.give_slot(self._host)

    def let_go(self) -> None:
        """Nobody waits for it any more: let its transfer end, or stop it if there is none."""
        if self._handle is None:
            self.stop()
            return
        self._on_slow = None
        self._on_end = lambda attempt, reading: attempt.settle(reading, reading.error)
