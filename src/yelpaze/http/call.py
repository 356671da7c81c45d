"""One call's way: slot → address → attempt → (redirect | retry | end).

A call is a small state machine without a task of its own; what happens next is always
the one callback that is outstanding:

    waiting     in the limiter's queue          → granted()
    resolving   at the resolver                 → _resolved()
    attempting  in libcurl, with a timer        → _answered() or _timed_out()
    pausing     before a retry, slot given back → begin()
    over        on_done has been called, or the call was cancelled

Order of policy (the design's): retry → limiter → attempt time-out → transport, so that a
retry and a redirect wait for a slot again.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yelpaze.http.handle import Handle
from yelpaze.http.reading import Reading, read
from yelpaze.http.resolver import Answer
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Attempt, Outcome, Timings
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.redirect import follow, is_redirect
from yelpaze.policy.retry import pause, retry_after_seconds, worth_retrying

if TYPE_CHECKING:
    from yelpaze.http.core import Core, Host

OnDone = Callable[[Outcome], None]

_REDIRECTS = range(300, 400)


def _told(_: Outcome) -> None:
    """Stands where a callback was."""


class Defaults(msgspec.Struct, frozen=True):
    """What a flow's step says for all of its requests, where a request itself says nothing."""

    idempotent: bool | None = None
    timeout: Timeout | None = None
    retry: bool = True

    def replayable(self, request: Request) -> bool:
        """Whether the request may be sent again even if it may have been processed."""
        if request.idempotent is None and self.idempotent is not None:
            return self.idempotent
        return request.replayable


class Call:
    """One request on its way. `cancel()` gives its slot back at once, without `on_done`."""

    __slots__ = (
        "_attempts",
        "_began",
        "_core",
        "_defaults",
        "_dns",
        "_handle",
        "_hop",
        "_hops",
        "_host",
        "_on_done",
        "_queued",
        "_queued_since",
        "_replayable",
        "_shard_number",
        "_slot",
        "_spool",
        "_started",
        "_timeout",
        "_timer",
        "_tries",
        "abandoned",
        "request",
        "trace_id",
    )

    def __init__(
        self,
        core: "Core",
        request: Request,
        on_done: OnDone,
        *,
        spool: Spool | None = None,
        trace_id: str | None = None,
        defaults: Defaults = Defaults(),  # noqa: B008  frozen
    ) -> None:
        self._core = core
        self.request = request
        self._hop = request  # what is sent now: the request, or a redirect's target
        self._hops = 0
        self._on_done = on_done
        self._spool = spool
        self._defaults = defaults
        self._timeout: Timeout = request.timeout or defaults.timeout or core.timeout
        self._replayable = defaults.replayable(request)
        self._host: Host = core.host_of(request.url)
        self._handle: Handle | None = None
        self._timer: Timer | None = None
        self._slot = False
        self._shard_number = 0
        self._tries = 0
        self._attempts: tuple[Attempt, ...] = ()
        self._queued = 0.0
        self._queued_since = 0.0
        self._dns = 0.0
        self._began = 0.0
        self._started = core.now()
        self.abandoned = False
        self.trace_id = trace_id or core.tracer.trace_id_of(request)

    # ── slot ────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Start an attempt as soon as the limits allow."""
        self._timer = None
        host = self._host
        if self._core.slots.take(host.lane):
            self._slot = True
            self._address()
        else:
            self._queued_since = self._core.now()
            self._core.slots.wait(host.lane, self)

    def granted(self) -> None:
        """The limiter has a slot for us."""
        self._slot = True
        self._queued += self._core.now() - self._queued_since
        self._address()

    def _give_slot(self) -> None:
        self._slot = False
        ticket = self._core.slots.give(self._host.lane)
        if ticket is not None:
            self._core.grant(ticket)

    # ── address ─────────────────────────────────────────────────────────────────

    def _address(self) -> None:
        self._began = self._core.now()
        self._dns = 0.0
        self._tries += 1
        host = self._host
        resolver = self._core.resolver
        if not host.needs_look_up or resolver is None:
            self._attempt(None)
            return
        answer = resolver.cached(host.name)
        if answer is None:
            resolver.look_up(host.name, self._resolved, self._timeout.connect)
        elif answer.error:
            self._core.soon(self._resolved, answer)  # never call back before begin() returns
        else:
            self._attempt(answer)

    def _resolved(self, answer: Answer) -> None:
        if self.abandoned:
            return
        self._dns = self._core.now() - self._began
        if answer.error:
            self._ended(Reading(0, Error(ErrorKind.DNS, answer.error)))
        else:
            self._attempt(answer)

    # ── attempt ─────────────────────────────────────────────────────────────────

    def _attempt(self, answer: Answer | None) -> None:
        core, hop, host = self._core, self._hop, self._host
        body = hop.body
        self._handle = handle = core.transport.handle((hop.method, body is not None, self._replayable))
        self._shard_number = number = host.take_shard()
        shard = core.transport.shard(number)
        resolve = None if answer is None else host.resolve_entry(answer, shard, self._began)
        handle.limit_connect(self._timeout.connect)
        handle.prepare(hop.url, core.tracer.header_lines(hop, self.trace_id), body, resolve)
        if self._spool is not None:
            self._spool.attach(handle)
        limits = self._timeout
        first = min(limits.first_byte, limits.attempt)
        self._timer = core.timers.at(self._began + first, self._timed_out)
        core.attempts += 1
        core.transport.start(handle, shard, self._answered)

    def _timed_out(self) -> None:
        handle, limits, now = self._handle, self._timeout, self._core.now()
        if handle is None:
            return
        elapsed = now - self._began
        if elapsed < limits.attempt and handle.head:
            self._timer = self._core.timers.at(self._began + limits.attempt, self._timed_out)
            return
        if elapsed >= limits.attempt:
            kind, what = ErrorKind.ATTEMPT_TIMEOUT, f"no whole answer within {limits.attempt:g} s"
        else:
            kind, what = (
                ErrorKind.FIRST_BYTE_TIMEOUT,
                f"no answer began within {limits.first_byte:g} s",
            )
        self._timer = None
        timings = Timings(self._dns, total=elapsed, queued=self._queued)
        self._stop_transfer(handle)
        self._ended(Reading(0, Error(kind, what), timings=timings))

    def _answered(self, handle: Handle, code: int, message: str) -> None:
        """Libcurl is done with the attempt: read what is needed, then free the handle."""
        if self._timer is not None:
            self._timer.cancel()
        write_error = handle.write_error
        reading = read(
            handle, code, message, dns=self._dns, queued=self._queued, max_body=self._core.max_body
        )
        self._free(handle)
        if write_error is not None:
            self._over_with(write_error)
        else:
            self._ended(reading)

    def _free(self, handle: Handle) -> None:
        self._handle = None
        self._host.give_shard(self._shard_number)
        if self._spool is not None:
            handle.restore_collecting()
        self._core.transport.release(handle)

    def _stop_transfer(self, handle: Handle) -> None:
        self._handle = None
        if handle.resolve_set and handle.shard is not None:  # libcurl may not have read it yet
            self._host.untell(handle.shard)
        self._host.give_shard(self._shard_number)
        if self._spool is not None:
            handle.restore_collecting()
        self._core.transport.cancel(handle)

    # ── what next ───────────────────────────────────────────────────────────────

    def _ended(self, reading: Reading) -> None:
        """One attempt is over: follow, try again, or end."""
        core, status, error = self._core, reading.status, reading.error
        now = core.now()
        self._attempts += (Attempt(status, error, now - self._began),)
        if status in _REDIRECTS and core.max_redirects:
            target, error = self._redirected(status, reading.headers)
            if target is not None:
                self._follow(target)
                return
        if error is not None and self._retries(status, reading.headers, error, now):
            return
        self._finish(self._outcome(reading, error, now))

    def _outcome(self, reading: Reading, error: Error | None, now: float) -> Outcome:
        return Outcome(
            self.request,
            reading.status,
            reading.headers,
            reading.body,
            error,
            self._attempts,
            reading.timings,
            now - self._started,
            self._hop.url,
            reading.http_version,
            reading.remote_ip,
            self.trace_id,
        )

    def _redirected(self, status: int, headers: Headers) -> tuple[Request | None, Error | None]:
        location = headers.get("location")
        if location is None or not is_redirect(status, location):
            return None, None
        if self._hops >= self._core.max_redirects:
            return None, Error(ErrorKind.PROTOCOL, f"more than {self._core.max_redirects} redirects")
        try:
            return follow(self._hop, self._hop.url, status, location, self._core.secret_headers), None
        except MisuseError as error:
            return None, Error(ErrorKind.PROTOCOL, f"redirected to {location!r}: {error}")

    def _follow(self, target: Request) -> None:
        self._give_slot()
        self._hops += 1
        self._tries = 0
        self._hop = target
        self._replayable = self._defaults.replayable(target)
        self._host = self._core.host_of(target.url)
        self.begin()

    def _retries(self, status: int, headers: Headers, error: Error, now: float) -> bool:
        core = self._core
        if not (self._hop.retry and self._defaults.retry) or (
            self._spool is not None and not self._spool.rewindable
        ):
            return False
        if not worth_retrying(
            core.retry, attempt=self._tries, replayable=self._replayable, status=status, error=error
        ):
            return False
        after = retry_after_seconds(headers.get("retry-after"), wall=time.time()) if status else None
        delay = pause(core.retry, attempt=self._tries, retry_after=after, uniform=core.random.uniform)
        core.retries += 1
        self._give_slot()
        self._timer = core.timers.at(now + delay, self.begin)
        return True

    # ── end ─────────────────────────────────────────────────────────────────────

    def _finish(self, outcome: Outcome) -> None:
        if self._spool is not None:
            try:
                self._spool.finish(good=outcome.error is None and outcome.status < _REDIRECTS.start)
            except OSError as error:
                self._over_with(error)
                return
        self._over()
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        # The callback often holds the call itself: let go of it, or only the collector can.
        on_done, self._on_done = self._on_done, _told
        on_done(outcome)

    def _over(self) -> None:
        self.abandoned = True
        core = self._core
        core.requests += 1
        core.calls.pop(self, None)
        if self._slot:
            self._give_slot()

    def _over_with(self, error: BaseException) -> None:
        """The body's target failed (disk full): the caller's own error, not the network's."""
        if self._spool is not None:
            self._spool.finish(good=False)
            self._spool.error = error
        self._over()
        self._tell(self._cancelled_outcome("the body's target failed"))

    def _cancelled_outcome(self, why: str) -> Outcome:
        """The outcome of a call that ended before an answer."""
        error = Error(ErrorKind.CANCELLED, why)
        self._attempts += (Attempt(0, error, 0.0),)
        return self._outcome(Reading(0, error), error, self._core.now())

    def cancel(self) -> None:
        """Stop now, wherever it stands; harmless when it is over."""
        if self.abandoned:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._stop_transfer(self._handle)
        if self._spool is not None:
            self._spool.finish(good=False)
        self._on_done = _told
        self._over()

    def abort(self, why: str) -> None:
        """Cancel, and say so to the caller."""
        if not self.abandoned:
            on_done = self._on_done
            self.cancel()
            on_done(self._cancelled_outcome(why))
