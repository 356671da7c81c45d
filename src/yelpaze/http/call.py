"""One call's way: slot → attempt → (redirect | retry | end).

A call is a small state machine without a task of its own; what happens next is always
the one callback that is outstanding:

    waiting     in the limiter's queue          → granted() or refuse()
    attempting  a `Try` is under way            → _ended()
    pausing     before a retry, slot given back → begin()
    over        on_done has been called, or the call was cancelled

Order of policy (the design's): deadline → retry, with its budget → limiter → breaker →
attempt time-out → transport, so that a retry and a redirect wait for a slot again.

*Parking.* A call made in bulk has someone behind it who goes on with other hosts (`aside`).
While its host's breaker is open such a call waits, and what failed until then does not
count; it ends when the host answers again or is given up. Other calls fail at once.

*Hedging.* A slow attempt gets a twin, if a slot is free and the budget allows. The first
good answer of the two is the call's.
"""

from typing import TYPE_CHECKING

from yelpaze.http.attempt import Try
from yelpaze.http.options import Aside, Defaults, OnDone
from yelpaze.http.reading import Reading
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.http.verdict import Trial, judge
from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.breaker import State
from yelpaze.policy.redirect import follow, is_redirect
from yelpaze.policy.retry import Retry, retry_after_seconds

if TYPE_CHECKING:
    from yelpaze.http.core import Core
    from yelpaze.http.host import Host

_REDIRECTS = range(300, 400)
_NEVER = float("inf")


def _told(_: Outcome) -> None:
    """Stands where a callback was."""


class Call:
    """One request on its way. `cancel()` gives its slot back at once, without `on_done`."""

    __slots__ = (
        "_aside",
        "_attempts",
        "_core",
        "_defaults",
        "_first_began",
        "_held",
        "_hops",
        "_is_aside",
        "_on_done",
        "_queued_since",
        "_retry",
        "_row",
        "_started",
        "_streak",
        "_timer",
        "_tries",
        "_try",
        "_twin",
        "abandoned",
        "deadline_at",
        "hop",
        "host",
        "order",
        "queued",
        "replayable",
        "request",
        "span",
        "spool",
        "timeout",
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
        aside: Aside | None = None,
        deadline_at: float = _NEVER,
        order: int | None = None,
    ) -> None:
        self._core = core
        self.order = core.next_order() if order is None else order
        self.request = request
        self.hop = request  # what is sent now: the request, or a redirect's target
        self._hops = 0
        self._on_done = on_done
        self.spool = spool
        self._defaults = defaults
        self._aside = aside
        self._try: Try | None = None
        self._twin: Try | None = None
        self._held: tuple[Reading, Error] | None = None  # a failure, while the other may still win
        self._timer: Timer | None = None
        self._tries = 0
        self._attempts: tuple[Attempt, ...] = ()
        self.queued = 0.0
        self._queued_since = 0.0
        self._is_aside = False
        self._first_began = _NEVER
        self._started = now = core.now()
        self.deadline_at = (
            deadline_at if request.deadline is None else min(deadline_at, now + request.deadline)
        )
        self._enter(core.host_of(request.url), now)
        self.abandoned = False
        self.span = None if core.tracing is None else core.tracing.begin(request)
        self.trace_id = self.span.trace_id if self.span else trace_id or core.tracer.trace_id_of(request)

    @property
    def parks(self) -> bool:
        """Whether it waits for a host that is away, instead of failing."""
        return self._aside is not None

    def _enter(self, host: "Host", now: float) -> None:
        """Be a call of that host from now on, under its policies."""
        self.host = host
        defaults, hop, policy = self._defaults, self.hop, host.policy
        self.timeout: Timeout = hop.timeout or defaults.timeout or policy.timeout
        if policy.deadline is not None and hop.deadline is None:
            self.deadline_at = min(self.deadline_at, now + policy.deadline)
        host.asked(now)
        self._retry = retry = defaults.retry if isinstance(defaults.retry, Retry) else host.retry
        if hop.idempotent is None and defaults.idempotent is not None:
            self.replayable = defaults.idempotent
        else:
            self.replayable = hop.replayable if retry.methods is None else retry.replayable(hop)
        # How often it failed since the host's last success, and which success that was.
        self._streak, self._row = -1, 0

    # ── slot ────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; `on_done` is called later, never from within this."""
        host, now = self.host, self._started
        if not host.ailing and self._core.slots.take(host.lane, now):  # nearly always
            self._attempt(now)
        else:
            self.begin()

    def begin(self) -> None:
        """Start an attempt as soon as the limits allow."""
        self._timer = None
        core, host, now = self._core, self.host, self._core.now()
        if host.ailing and not self._admitted(now):
            return
        if core.slots.take(host.lane, now):
            self._attempt(now)
        elif host.paused_until > self.deadline_at:
            self._refuse_soon(ErrorKind.DEADLINE_TIMEOUT, "the host asked for a pause past the deadline")
        else:
            self._queued_since = now
            self._step_aside()
            if self.deadline_at < _NEVER:
                self._timer = core.timers.at(self.deadline_at, self.past_deadline)
            core.slots.wait(host.lane, self, now)

    def _admitted(self, now: float) -> bool:
        """Whether the host's breaker, which is not closed, lets the call wait or go."""
        core, host, circuit = self._core, self.host, self.host.circuit
        assert circuit is not None
        if circuit.cool(now):
            core.reconsider(host, now)
        if self._aside is not None:
            if not (host.down and circuit.state is State.OPEN):
                return True
            self._refuse_soon(ErrorKind.HOST_DOWN, core.down_message(host))
            return False
        probing = circuit.state is State.HALF_OPEN and host.lane.busy < host.lane.limit
        if not probing and circuit.state is not State.CLOSED:
            self._refuse_soon(ErrorKind.BREAKER_OPEN, "the host's breaker is open")
            return False
        return True

    def granted(self) -> None:
        """The limiter has a slot for us."""
        now = self._core.now()
        if self._timer is not None:
            self._timer.cancel()
        self._leave_queue(now)
        self._attempt(now)

    def _leave_queue(self, now: float) -> None:
        waited, self._queued_since = now - self._queued_since, 0.0
        self.queued += waited
        self.host.queueing.add(waited)

    def _step_aside(self) -> None:
        """Nothing is under way for a while: whoever makes calls in bulk may go on with others."""
        if self._aside is not None and not self._is_aside:
            self._is_aside = True
            self._aside.set_aside(1)

    def _step_back(self) -> None:
        if self._aside is not None and self._is_aside:
            self._is_aside = False
            self._aside.set_aside(-1)

    def _begin_at(self, when: float) -> None:
        """Pause until then."""
        self._step_aside()
        self._timer = self._core.timers.at(when, self.begin)

    def _attempt(self, now: float) -> None:
        self._tries += 1
        if self._is_aside:
            self._step_back()
        self._first_began = min(self._first_began, now)
        hedged = self.host.hedger is not None and self.replayable and self.spool is None
        try:
            self._try = Try(self._core, self, now, hedged)
        except Exception as error:  # noqa: BLE001  whatever it is, the slot goes on and the call ends
            self._core.report("a call could not be sent", error)
            self._core.give_slot(self.host, now)
            self._refuse_soon(ErrorKind.PROTOCOL, f"could not be sent: {error}")

    def is_slow(self) -> None:
        """The attempt is slower than most: send another, if there is room and budget."""
        core, host, now = self._core, self.host, self._core.now()
        # One that never waits: it must not take its turn from a first attempt.
        if host.ailing or host.hedger is None:
            return
        if not core.slots.take(host.lane, now):
            return
        if host.hedger.may():
            host.hedges += 1
            core.hedges += 1
            self._twin = Try(core, self, now, hedged=False)
        else:
            core.give_slot(host, now)

    # ── what next ───────────────────────────────────────────────────────────────

    def ended(self, attempt: Try, reading: Reading) -> None:
        """An attempt is over: follow, try again, or end."""
        other = self._twin if attempt is self._try else self._try
        self._try, self._twin = other, None
        if attempt.write_error is not None:
            attempt.settle(reading, None, self._core.now())
            self._over_with(attempt.write_error)
            return
        core, status, error = self._core, reading.status, reading.error
        now = core.now()
        if error is None and self._retry.when is not None and status not in _REDIRECTS:
            error = self._examined(reading, now)
        seconds = now - attempt.began
        self._attempts += (Attempt(status, error, seconds, attempt.began),)
        if self.span is not None and attempt.parent is not None:
            self.span.end_attempt(attempt.parent, self._attempts[-1])
        if core.on_attempt is not None:
            core.tell_attempt(self.request, self._attempts[-1], self.trace_id)
        attempt.settle(reading, error, now)
        if self.abandoned:  # cancelled by somebody who was told just now
            return
        if status in _REDIRECTS and core.max_redirects and self._redirected(reading, now):
            return
        if error is None:
            self._finish(self._outcome(reading, None, now))
        elif other is not None:
            self._held = (reading, error)
        else:
            reading, error = self._held or (reading, error)
            self._held = None
            self._decide(reading, error, now)

    def _examined(self, reading: Reading, now: float) -> Error | None:
        """What the user's predicate says of a good answer."""
        assert self._retry.when is not None
        try:
            if not self._retry.when(self._outcome(reading, None, now)):
                return None
        except Exception as error:  # noqa: BLE001  it could not read the answer, so the answer is none
            why = f"which raised {type(error).__name__}: {error}"
            return Error(ErrorKind.STATUS, f"{reading.status}, refused by Retry(when=…), {why}")
        return Error(ErrorKind.STATUS, f"{reading.status}, refused by Retry(when=…)")

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
            self.hop.url,
            reading.http_version,
            reading.remote_ip,
            self.trace_id,
        )

    def _redirected(self, reading: Reading, now: float) -> bool:
        """Follow, or end where there is nowhere to go; False if the answer is no redirect to follow."""
        location = reading.headers.get("location")
        if location is None or not is_redirect(reading.status, location):
            return False
        core = self._core
        try:
            if self._hops >= core.max_redirects:
                raise MisuseError(f"that is one more than {core.max_redirects} redirects")  # noqa: TRY301
            target = follow(self.hop, self.hop.url, reading.status, location, core.rules.secret_headers)
        except MisuseError as refused:
            error = Error(ErrorKind.PROTOCOL, f"redirected to {location!r}: {refused}")
            self._finish(self._outcome(reading, error, now))
            return True
        self._follow(target, retry_after_seconds(reading.headers.get("retry-after"), wall=core.wall()))
        return True

    def _follow(self, target: Request, after: float | None) -> None:
        """Go to the redirect's target, no sooner than its Retry-After says (RFC 9110 §10.2.3)."""
        self._drop_attempts()
        wait = min(after or 0.0, self._retry.retry_after_cap)
        self._hops += 1
        self._tries = 0
        self.hop = target
        now = self._core.now()
        self._enter(self._core.host_of(target.url), now)
        when = now + wait
        if not wait:
            self.begin()
        elif when > self.deadline_at:
            self.refuse(ErrorKind.DEADLINE_TIMEOUT, "the redirect's Retry-After would pass the deadline")
        else:
            self._begin_at(when)

    def _decide(self, reading: Reading, error: Error, now: float) -> None:
        """All attempts under way have failed: park, try again, or end."""
        core, host = self._core, self.host
        if self._streak != host.streak:
            self._streak, self._row = host.streak, 0
            host.failing += host.silent_since is not None
        self._row += 1
        may_retry = self.hop.retry and self._defaults.retry
        if not may_retry or (self.spool is not None and not self.spool.rewindable):
            self._finish(self._outcome(reading, error, now))
            return
        trial = Trial(
            self._retry,
            self._tries,
            self._row,
            self.replayable,
            self.hop.has_idempotency_key,
            self.parks,
            self._first_began,
            self.deadline_at,
            reading.status,
            error,
            reading.headers,
        )
        verdict = judge(
            host, trial, now=now, wall=core.wall(), park=core.rules.park, uniform=core.random.uniform
        )
        if verdict.tripped:
            core.reconsider(host, now)
        if verdict.error is not None:
            self._finish(self._outcome(reading, verdict.error, now))
        elif verdict.parked:
            self._tries = 0
            if now + verdict.delay < self.deadline_at:
                self._begin_at(now + verdict.delay)
            else:
                self._step_aside()
                self._timer = core.timers.at(self.deadline_at, self.past_deadline)
        elif verdict.unpaid:
            self._ask_budget_at(now + verdict.delay)
        else:
            self._again(now + verdict.delay)

    def _again(self, when: float) -> None:
        self._core.retries += 1
        self.host.retries += 1
        self._begin_at(when)

    def _ask_budget(self) -> None:
        core, host, now = self._core, self.host, self._core.now()
        if host.purse is None or host.purse.withdraw(now):
            self._again(now)
        elif now >= host.give_up_at(core.rules.park):
            self.refuse(ErrorKind.HOST_DOWN, core.down_message(host))
        else:
            self._ask_budget_at(now + core.random.uniform(0.5, 1.5))

    def _ask_budget_at(self, when: float) -> None:
        self._step_aside()
        if when < self.deadline_at:
            self._timer = self._core.timers.at(when, self._ask_budget)
        else:
            self._timer = self._core.timers.at(self.deadline_at, self.past_deadline)

    # ── end ─────────────────────────────────────────────────────────────────────

    def refuse(self, kind: ErrorKind, message: str) -> None:
        """End by a policy's word, wherever it stands."""
        if self.abandoned:
            return
        last = self._attempts[-1].error if self._attempts else None
        error = Error(kind, f"{message}; last: {last.message}" if last is not None else message)
        self._stop()
        self._finish(self._outcome(Reading(0, error), error, self._core.now()))

    def _refuse_soon(self, kind: ErrorKind, message: str) -> None:
        self._core.soon(self.refuse, kind, message)

    def past_deadline(self) -> None:
        core, now = self._core, self._core.now()
        whole = max(0.0, self.deadline_at - self._started)
        attempt = self._try
        if attempt is not None:
            ran = now - attempt.began
            error = Error(ErrorKind.DEADLINE_TIMEOUT, "cut short by the call's deadline")
            self._attempts += (Attempt(0, error, ran, attempt.began),)
            # A host that got most of the time and gave no answer has failed; one that got little has not.
            host = self.host
            if ran * 2 > whole and host.learn(now, 0, error, ran, Headers(), attempt.generation):
                core.reconsider(host, now)
        self.refuse(ErrorKind.DEADLINE_TIMEOUT, f"not done within the deadline of {whole:.3g} s")

    def _finish(self, outcome: Outcome) -> None:
        if self.spool is not None:
            try:
                self.spool.finish(outcome)
            except Exception as error:  # noqa: BLE001  the body's target is somebody else's code
                self._over_with(error)
                return
        self._over()
        self._told_all(outcome)

    def _told_all(self, outcome: Outcome) -> None:
        """Tell everybody who wants to know."""
        if self.span is not None:
            self.span.end(outcome)
        if self._core.on_outcome is not None:
            self._core.tell_outcome(outcome)
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        # The callback often holds the call itself: let go of it, or only the collector can.
        on_done, self._on_done = self._on_done, _told
        try:
            on_done(outcome)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others' answers
            self._core.report("a call's callback raised", error)

    def _stop(self) -> None:
        """Break off whatever is under way."""
        if self._timer is not None:
            self._timer.cancel()
        for attempt in (self._try, self._twin):
            if attempt is not None:
                attempt.stop()
        self._try = self._twin = None

    def _drop_attempts(self) -> None:
        """An answer has come: what else is under way is not wanted any more."""
        if self._try is not None:
            self._try.let_go()
            self._try = None

    def _over(self) -> None:
        self.abandoned = True
        core = self._core
        core.requests += 1
        core.calls.pop(self, None)
        if self._try is not None:
            self._drop_attempts()
        if self._is_aside:
            self._step_back()
        if self._queued_since:
            self._leave_queue(core.now())
            self.host.lane.left()

    def _over_with(self, error: BaseException) -> None:
        """The body's target failed (disk full): the caller's own error, not the network's."""
        if self.spool is not None:
            self.spool.finish(None)
            self.spool.error = error
        self._over()
        self._told_all(self._cancelled_outcome("the body's target failed"))

    def _cancelled_outcome(self, why: str) -> Outcome:
        """The outcome of a call that ended before an answer."""
        error = Error(ErrorKind.CANCELLED, why)
        now = self._core.now()
        self._attempts += (Attempt(0, error, 0.0, now),)
        return self._outcome(Reading(0, error), error, now)

    def cancel(self) -> None:
        """Stop now, wherever it stands; harmless when it is over."""
        if self.abandoned:
            return
        self._stop()
        if self.spool is not None:
            self.spool.finish(None)
        self._on_done = _told
        self._over()
        if self.span is not None:
            self.span.end(None)

    def abort(self, why: str) -> None:
        """Cancel, and say so to the caller."""
        if not self.abandoned:
            on_done, span, self.span = self._on_done, self.span, None
            self.cancel()
            self._on_done, self.span = on_done, span
            self._told_all(self._cancelled_outcome(why))
