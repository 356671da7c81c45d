"""One attempt of a call: an address, a transfer, and the timers that bound it.

    resolving   at the resolver                 → _resolved()
    attempting  in libcurl, with a timer        → _answered() or _timed_out()
    over        the call was notified, or the attempt was stopped

An exchange holds a slot from the start; `settle` gives it back. A call may have two exchanges at a
time (a hedge). The one that loses the race is let go, not cancelled: cancelling an HTTP/1.1 transfer
costs its connection, and its result still counts for the host.
"""

from typing import Protocol

from yelpaze.http.core import Core
from yelpaze.http.handle import Handle
from yelpaze.http.host import Host
from yelpaze.http.options import CallSpan
from yelpaze.http.resolver import Answer, Resolver
from yelpaze.http.result import AttemptResult, read
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.outcome import Timings
from yelpaze.model.request import Request, Timeout

_NEVER = float("inf")


class ExchangeOwner(Protocol):
    """The call that an exchange is an attempt of: what is sent, within which limits, and who is notified."""

    current: Request
    deadline_at: float
    host: Host
    order: int
    queued: float
    replayable: bool
    span: CallSpan | None
    spool: Spool | None
    timeout: Timeout
    trace_id: str

    def ended(self, exchange: "Exchange", result: AttemptResult) -> None:
        """The exchange is over."""

    def slow(self) -> None:
        """The exchange takes longer than most."""

    def past_deadline(self) -> None:
        """The call's deadline has passed."""


class Exchange:
    """An attempt under way. `stop()` gives slot and connection back at once, without notifying the call."""

    __slots__ = (
        "_call",
        "_core",
        "_dns",
        "_handle",
        "_hedged",
        "_host",
        "_over",
        "_shard_number",
        "_timer",
        "_unheard",
        "began",
        "generation",
        "parent",
        "write_error",
    )

    def __init__(self, core: Core, call: ExchangeOwner, now: float, hedged: bool) -> None:
        """Begin. The call is never notified from within this constructor.

        `hedged`: notify the call (`slow`) when the attempt takes longer than most.
        """
        host = call.host
        self._core = core
        self._call = call
        self._host = host
        self._hedged = hedged
        self._handle: Handle | None = None
        self._timer: Timer | None = None
        self._dns = 0.0
        self._over = self._unheard = False
        self.began = now
        self.generation = host.generation
        self.write_error: BaseException | None = None
        # The traceparent, where there is tracing.
        self.parent = None if call.span is None else call.span.begin_attempt(call.current.method)
        host.attempts += 1
        if not host.needs_look_up or core.resolver is None:
            self._transfer(None)
        else:
            self._look_up(core.resolver)

    # ── address ─────────────────────────────────────────────────────────────────

    def _look_up(self, resolver: Resolver) -> None:
        answer = resolver.cached(self._host.name)
        if answer is None:
            if self._call.deadline_at < _NEVER:
                self._timer = self._core.timers.at(self._call.deadline_at, self._call.past_deadline)
            resolver.look_up(self._host.name, self._resolved, self._call.timeout.connect)
        elif answer.error:
            self._core.soon(self._resolved, answer)
        else:
            self._transfer(answer)

    def _resolved(self, answer: Answer) -> None:
        if self._over:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._dns = self._core.now() - self.began
        if answer.error:
            self._end(AttemptResult(0, Error(ErrorKind.DNS, answer.error)))
        else:
            self._transfer(answer)

    # ── transfer ────────────────────────────────────────────────────────────────

    def _transfer(self, answer: Answer | None) -> None:
        core, call, host = self._core, self._call, self._host
        current, limits = call.current, call.timeout
        body = current.body
        self._handle = handle = core.transport.handle((current.method, body is not None, call.replayable))
        self._shard_number = number = host.take_shard()
        shard = core.transport.shard(number)
        resolve = None if answer is None else host.resolve_entry(answer.addresses, shard, self.began)
        handle.limit_connect(limits.connect)
        handle.prepare(
            current.url, core.tracer.header_lines(current, call.trace_id, self.parent), body, resolve
        )
        if call.spool is not None:
            call.spool.attach(handle)
        began = self.began
        due = began + (min(limits.attempt, limits.first_byte))
        due = min(due, call.deadline_at)
        if self._hedged and host.hedge is not None and began + host.hedge.after < due:
            self._timer = core.timers.at(began + host.hedge.after, self._hedge_or_wait)
        else:
            self._timer = core.timers.at(due, self._timed_out)
        core.attempts += 1
        handle.order = call.order
        core.transport.start(handle, shard, self._answered)

    def _hedge_or_wait(self) -> None:
        limits, call = self._call.timeout, self._call
        due = self.began + min(limits.first_byte, limits.attempt)
        self._timer = self._core.timers.at(min(due, call.deadline_at), self._timed_out)
        if not self._unheard:
            call.slow()

    def _timed_out(self) -> None:
        handle, call, now = self._handle, self._call, self._core.now()
        if handle is None:
            return
        limits, elapsed = call.timeout, now - self.began
        if now >= call.deadline_at and not self._unheard:
            call.past_deadline()
            return
        # Only what the attempt itself had too little time for is its failure.
        due = self.began + (limits.attempt if handle.head else min(limits.first_byte, limits.attempt))
        due += handle.paused_for(now)  # that was not the server's doing
        if now < due:
            until = due if self._unheard else min(due, call.deadline_at)
            self._timer = self._core.timers.at(until, self._timed_out)
            return
        if elapsed >= limits.attempt or handle.head:
            kind, what = ErrorKind.ATTEMPT_TIMEOUT, f"no whole answer within {limits.attempt:g} s"
        else:
            kind, what = (
                ErrorKind.FIRST_BYTE_TIMEOUT,
                f"no answer began within {limits.first_byte:g} s",
            )
        self._timer = None
        timings = Timings(self._dns, total=elapsed, queued=call.queued)
        self._stop_transfer(handle)
        self._end(AttemptResult(0, Error(kind, what), timings=timings))

    def _answered(self, handle: Handle, code: int, message: str) -> None:
        """Libcurl is done: read what is needed, then free the handle."""
        if self._timer is not None:
            self._timer.cancel()
        core, call = self._core, self._call
        self.write_error = handle.write_error
        result = read(handle, code, message, dns=self._dns, queued=call.queued, max_body=core.max_body)
        self._handle = None
        self._host.give_shard(self._shard_number)
        if call.spool is not None:
            handle.restore_collecting()
        core.transport.release(handle)
        self._end(result)

    def _stop_transfer(self, handle: Handle) -> None:
        self._handle = None
        if handle.resolve_set and handle.shard is not None:  # libcurl may not have read it yet
            self._host.forget_addresses(handle.shard)
        self._host.give_shard(self._shard_number)
        if self._call.spool is not None:
            handle.restore_collecting()
        self._core.transport.cancel(handle)

    # ── end ─────────────────────────────────────────────────────────────────────

    def _end(self, result: AttemptResult) -> None:
        self._over = True
        if self._unheard:
            self.settle(result, result.error, self._core.now())
        else:
            self._call.ended(self, result)

    def settle(self, result: AttemptResult, error: Error | None, now: float) -> None:
        """Let the host learn how it ended, and only then give the slot to the next in line."""
        core, host = self._core, self._host
        if host.learn(now, result.status, error, now - self.began, result.headers, self.generation):
            core.reconsider(host, now)
        core.give_slot(host, now)

    def stop(self) -> None:
        """Break off, wherever it stands."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._stop_transfer(self._handle)
        self._core.give_slot(self._host, self._core.now())

    def let_go(self) -> None:
        """Nobody waits for it any more: let its transfer end, or stop it if there is none."""
        if self._handle is None:
            self.stop()
        else:
            self._unheard = True
