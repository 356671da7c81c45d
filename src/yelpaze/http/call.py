"""The life of one call: slot → exchange → (redirect | retry | end).

A call is a small state machine without a task of its own. The next step is always the one
outstanding callback:

    waiting     in the limiter's queue             → granted() or refused()
    attempting  an `Exchange` is under way         → ended()
    pausing     before a retry, the slot released  → begin()
    over        on_done has been called, or the call was cancelled

Order of policies: deadline → retry, with its budget → limiter → breaker → attempt timeout →
transport. So a retry and a redirect wait for a slot again.

*Parking.* A bulk caller (`park_listener`) can continue with other hosts while a call waits. Such a call
parks while its host's breaker is open; the attempts that failed before do not count. It ends when the
host answers again or is given up. Other calls fail at once.

*Hedging.* A slow attempt gets a second one, the hedge, if a slot is free and the budget allows. The
first good answer of the two is the call's.
"""

from yelpaze.http.core import Core
from yelpaze.http.exchange import Exchange
from yelpaze.http.host import Host
from yelpaze.http.options import Defaults, OnDone, ParkListener
from yelpaze.http.retry_decision import FailedAttempt, decide
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.http.transport import AttemptResult
from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.breaker import State
from yelpaze.policy.redirect import follow, is_redirect
from yelpaze.policy.retry import Retry, retry_after_seconds

_REDIRECTS = range(300, 400)
_NEVER = float("inf")


def _ignore(_: Outcome) -> None:
    """Replaces a callback that has been called."""


class Call:
    """One request on its way. `cancel()` gives its slot back at once, without `on_done`."""

    __slots__ = (
        "_attempts",
        "_consecutive_failures",
        "_core",
        "_defaults",
        "_exchange",
        "_first_began",
        "_hedge",
        "_held",
        "_is_parked",
        "_on_done",
        "_park_listener",
        "_queued_since",
        "_redirects",
        "_retry",
        "_started",
        "_streak",
        "_timer",
        "_tries",
        "abandoned",
        "current",
        "deadline_at",
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
        core: Core,
        request: Request,
        on_done: OnDone,
        *,
        spool: Spool | None = None,
        trace_id: str | None = None,
        defaults: Defaults = Defaults(),  # noqa: B008  frozen
        park_listener: ParkListener | None = None,
        deadline_at: float = _NEVER,
        order: int | None = None,
    ) -> None:
        self._core = core
        self.order = core.next_order() if order is None else order
        self.request = request
        self.current = request  # what is sent now: the request, or a redirect's target
        self._redirects = 0
        self._on_done = on_done
        self.spool = spool
        self._defaults = defaults
        self._park_listener = park_listener
        self._exchange: Exchange | None = None
        self._hedge: Exchange | None = None
        self._held: tuple[AttemptResult, Error] | None = None  # a failure, while the other may still win
        self._timer: Timer | None = None
        self._tries = 0
        self._attempts: tuple[Attempt, ...] = ()
        self.queued = 0.0
        self._queued_since = 0.0
        self._is_parked = False
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
        return self._park_listener is not None

    def _enter(self, host: Host, now: float) -> None:
        """Be a call of that host from now on, under its policies."""
        self.host = host
        defaults, current, policy = self._defaults, self.current, host.policy
        self.timeout: Timeout = current.timeout or defaults.timeout or policy.timeout
        if policy.deadline is not None and current.deadline is None:
            self.deadline_at = min(self.deadline_at, now + policy.deadline)
        host.asked(now)
        self._retry = retry = defaults.retry if isinstance(defaults.retry, Retry) else host.retry
        if current.idempotent is None and defaults.idempotent is not None:
            self.replayable = defaults.idempotent
        else:
            self.replayable = current.replayable if retry.methods is None else retry.replayable(current)
        # How often it failed since the host's last success, and which success that was.
        self._streak, self._consecutive_failures = -1, 0

    # ── slot ────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; `on_done` is called later, never from within this."""
        host, now = self.host, self._started
        if not host.breaker_open and self._core.slots.take(host.queue, now):  # nearly always
            self._attempt(now)
        else:
            self.begin()

    def begin(self) -> None:
        """Start an attempt as soon as the limits allow."""
        self._timer = None
        core, host, now = self._core, self.host, self._core.now()
        if host.breaker_open and not self._admitted(now):
            return
        if core.slots.take(host.queue, now):
            self._attempt(now)
        elif host.paused_until > self.deadline_at:
            self._refuse_soon(ErrorKind.DEADLINE_TIMEOUT, "the host asked for a pause past the deadline")
        else:
            self._queued_since = now
            self._park()
            if self.deadline_at < _NEVER:
                self._timer = core.timers.at(self.deadline_at, self.past_deadline)
            core.slots.wait(host.queue, self, now)

    def _admitted(self, now: float) -> bool:
        """Whether the host's breaker, which is not closed, lets the call wait or go."""
        core, host, breaker = self._core, self.host, self.host.breaker
        assert breaker is not None
        if breaker.cool(now):
            core.reconsider(host, now)
        if self._park_listener is not None:
            if not (host.given_up and breaker.state is State.OPEN):
                return True
            self._refuse_soon(ErrorKind.HOST_DOWN, core.given_up_message(host))
            return False
        probing = breaker.state is State.HALF_OPEN and host.queue.busy < host.queue.limit
        if not probing and breaker.state is not State.CLOSED:
            self._refuse_soon(ErrorKind.BREAKER_OPEN, self.host.breaker_message(now))
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

    def _park(self) -> None:
        """Nothing is under way for a while: whoever makes calls in bulk may go on with others."""
        if self._park_listener is not None and not self._is_parked:
            self._is_parked = True
            self._park_listener.on_parked(1)

    def _unpark(self) -> None:
        if self._park_listener is not None and self._is_parked:
            self._is_parked = False
            self._park_listener.on_parked(-1)

    def _begin_at(self, when: float) -> None:
        """Pause until then."""
        self._park()
        self._timer = self._core.timers.at(when, self.begin)

    def _attempt(self, now: float) -> None:
        self._tries += 1
        if self._is_parked:
            self._unpark()
        self._first_began = min(self._first_began, now)
        hedged = self.host.hedge is not None and self.replayable and self.spool is None
        try:
            self._exchange = Exchange(self._core, self, now, hedged)
        except Exception as error:  # noqa: BLE001  whatever it is, the slot goes on and the call ends
            why = self._core.not_sent(error)
            self._core.give_slot(self.host, now)
            self._refuse_soon(why.kind, why.message)

    def slow(self) -> None:
        """The attempt is slower than most: send another, if there is room and budget."""
        core, host, now = self._core, self.host, self._core.now()
        # One that never waits: it must not take its turn from a first attempt.
        if host.breaker_open or host.hedge is None:
            return
        if not core.slots.take(host.queue, now):
            return
        if host.hedge.may():
            host.hedges += 1
            core.hedges += 1
            try:
                self._hedge = Exchange(core, self, now, hedged=False)
            except Exception as error:  # noqa: BLE001  the first attempt goes on
                core.report("a hedge could not be sent", error)
                core.give_slot(host, now)
        else:
            core.give_slot(host, now)

    @property
    def _most_redirects(self) -> int:
        given = self.request.redirects
        return self._core.max_redirects if given is None else given

    # ── what next ───────────────────────────────────────────────────────────────

    def ended(self, exchange: Exchange, result: AttemptResult) -> None:
        """An attempt is over: follow, try again, or end."""
        other = self._hedge if exchange is self._exchange else self._exchange
        self._exchange, self._hedge = other, None
        if result.raised is not None:
            exchange.settle(result, None, self._core.now())
            self._over_with(result.raised)
            return
        core, status, error = self._core, result.status, result.error
        now = core.now()
        if error is None and self._retry.when is not None and status not in _REDIRECTS:
            error = self._examined(result, now)
        seconds = now - exchange.began
        self._attempts += (Attempt(status, error, seconds, exchange.began),)
        if self.span is not None and exchange.trace_context is not None:
            self.span.end_attempt(exchange.trace_context, self._attempts[-1])
        if core.on_attempt is not None:
            core.notify_attempt(self.request, self._attempts[-1], self.trace_id)
        exchange.settle(result, error, now)
        if self.abandoned:  # cancelled by one of those just notified
            return
        if status in _REDIRECTS and self._most_redirects and self._redirected(result, now):
            return
        if error is None:
            self._finish(self._outcome(result, None, now))
        elif other is not None:
            self._held = (result, error)
        else:
            result, error = self._held or (result, error)
            self._held = None
            self._decide(result, error, now)

    def _examined(self, result: AttemptResult, now: float) -> Error | None:
        """What the user's predicate says of a good answer."""
        assert self._retry.when is not None
        try:
            if not self._retry.when(self._outcome(result, None, now)):
                return None
        except BaseException as error:  # noqa: BLE001  it could not read the answer, so the answer is none
            why = f"which raised {type(error).__name__}: {error}"
            return Error(ErrorKind.STATUS, f"{result.status}, refused by Retry(when=…), {why}")
        return Error(ErrorKind.STATUS, f"{result.status}, refused by Retry(when=…)")

    def _outcome(self, result: AttemptResult, error: Error | None, now: float) -> Outcome:
        return Outcome(
            self.request,
            result.status,
            result.headers,
            result.body,
            error,
            self._attempts,
            result.timings,
            now - self._started,
            self.current.url,
            result.http_version,
            result.remote_ip,
            self.trace_id,
            result.certificate_expires,
        )

    def _redirected(self, result: AttemptResult, now: float) -> bool:
        """Follow, or end where there is nowhere to go; False if the answer is no redirect to follow."""
        location = result.headers.get("location")
        if location is None or not is_redirect(result.status, location):
            return False
        core = self._core
        try:
            if self._redirects >= self._most_redirects:
                raise MisuseError(f"that is one more than {self._most_redirects} redirects")  # noqa: TRY301
            target = follow(
                self.current, self.current.url, result.status, location, core.rules.secret_headers
            )
        except MisuseError as refused:
            error = Error(ErrorKind.PROTOCOL, f"redirected to {location!r}: {refused}")
            self._finish(self._outcome(result, error, now))
            return True
        self._follow(target, retry_after_seconds(result.headers.get("retry-after"), wall=core.wall()))
        return True

    def _follow(self, target: Request, after: float | None) -> None:
        """Go to the redirect's target, no sooner than its Retry-After says (RFC 9110 §10.2.3)."""
        self._let_go()
        wait = min(after or 0.0, self._retry.retry_after_cap)
        self._redirects += 1
        self._tries = 0
        self.current = target
        now = self._core.now()
        self._enter(self._core.host_of(target.url), now)
        when = now + wait
        if not wait:
            self.begin()
        elif when > self.deadline_at:
            self.refused(ErrorKind.DEADLINE_TIMEOUT, "the redirect's Retry-After would pass the deadline")
        else:
            self._begin_at(when)

    def _decide(self, result: AttemptResult, error: Error, now: float) -> None:
        """All attempts under way have failed: park, try again, or end."""
        core, host = self._core, self.host
        if self._streak != host.streak:
            self._streak, self._consecutive_failures = host.streak, 0
            host.failing += host.silent_since is not None
        self._consecutive_failures += 1
        may_retry = self.current.retry and self._defaults.retry
        if not may_retry or (self.spool is not None and not self.spool.rewindable):
            self._finish(self._outcome(result, error, now))
            return
        failed = FailedAttempt(
            self._retry,
            self._tries,
            self._consecutive_failures,
            self.replayable,
            self.current.has_idempotency_key,
            self.parks,
            self._first_began,
            self.deadline_at,
            result.status,
            error,
            result.headers,
        )
        decision = decide(
            host, failed, now=now, wall=core.wall(), park=core.rules.park, uniform=core.random.uniform
        )
        if decision.tripped:
            core.reconsider(host, now)
        if decision.error is not None:
            self._finish(self._outcome(result, decision.error, now))
        elif decision.parked:
            self._tries = 0
            if now + decision.delay < self.deadline_at:
                self._begin_at(now + decision.delay)
            else:
                self._park()
                self._timer = core.timers.at(self.deadline_at, self.past_deadline)
        elif decision.unpaid:
            self._ask_budget_at(now + decision.delay)
        else:
            self._again(now + decision.delay)

    def _again(self, when: float) -> None:
        self._core.retries += 1
        self.host.retries += 1
        self._begin_at(when)

    def _ask_budget(self) -> None:
        core, host, now = self._core, self.host, self._core.now()
        if host.budget is None or host.budget.withdraw(now):
            self._again(now)
        elif now >= host.give_up_at(core.rules.park):
            self.refused(ErrorKind.HOST_DOWN, core.given_up_message(host))
        else:
            self._ask_budget_at(now + core.random.uniform(0.5, 1.5))

    def _ask_budget_at(self, when: float) -> None:
        self._park()
        if when < self.deadline_at:
            self._timer = self._core.timers.at(when, self._ask_budget)
        else:
            self._timer = self._core.timers.at(self.deadline_at, self.past_deadline)

    # ── end ─────────────────────────────────────────────────────────────────────

    def refused(self, kind: ErrorKind, message: str) -> None:
        """End by a policy's word, wherever it stands."""
        if self.abandoned:
            return
        last = self._attempts[-1].error if self._attempts else None
        error = Error(kind, f"{message}; last: {last.message}" if last is not None else message)
        self._stop()
        self._finish(self._outcome(AttemptResult(0, error), error, self._core.now()))

    def _refuse_soon(self, kind: ErrorKind, message: str) -> None:
        self._core.soon(self.refused, kind, message)

    def past_deadline(self) -> None:
        core, now = self._core, self._core.now()
        whole = max(0.0, self.deadline_at - self._started)
        exchange = self._exchange
        if exchange is not None:
            ran = now - exchange.began
            error = Error(ErrorKind.DEADLINE_TIMEOUT, "cut short by the call's deadline")
            self._attempts += (Attempt(0, error, ran, exchange.began),)
            # A host that got most of the time and gave no answer has failed; one that got little has not.
            host = self.host
            if ran * 2 > whole and host.learn(now, 0, error, ran, Headers(), exchange.generation):
                core.reconsider(host, now)
        self.refused(ErrorKind.DEADLINE_TIMEOUT, f"not done within the deadline of {whole:.3g} s")

    def _finish(self, outcome: Outcome) -> None:
        if self.spool is not None:
            try:
                self.spool.finish(outcome)
            except Exception as error:  # noqa: BLE001  the body's target is somebody else's code
                self._over_with(error)
                return
        self._over()
        self._notify_all(outcome)

    def _notify_all(self, outcome: Outcome) -> None:
        """Notify the span, the listeners and the caller."""
        if self.span is not None:
            self.span.end(outcome)
        if self._core.on_outcome is not None:
            self._core.notify_outcome(outcome)
        self._notify_caller(outcome)

    def _notify_caller(self, outcome: Outcome) -> None:
        # The callback often holds the call itself: let go of it, or only the collector can.
        on_done, self._on_done = self._on_done, _ignore
        try:
            on_done(outcome)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others' answers
            self._core.report("a call's callback raised", error)

    def _stop(self) -> None:
        """Break off whatever is under way."""
        if self._timer is not None:
            self._timer.cancel()
        for exchange in (self._exchange, self._hedge):
            if exchange is not None:
                exchange.stop()
        self._exchange = self._hedge = None

    def _let_go(self) -> None:
        """An answer has come: what else is under way is not wanted any more."""
        if self._exchange is not None:
            self._exchange.let_go()
            self._exchange = None

    def _over(self) -> None:
        self.abandoned = True
        core = self._core
        core.requests += 1
        core.calls.pop(self, None)
        if self._exchange is not None:
            self._let_go()
        if self._is_parked:
            self._unpark()
        if self._queued_since:
            self._leave_queue(core.now())
            self.host.queue.left()

    def _over_with(self, error: BaseException) -> None:
        """The body's target failed (disk full): the caller's own error, not the network's."""
        if self.spool is not None:
            self.spool.finish(None)
            self.spool.error = error
        self._over()
        self._notify_all(self._cancelled_outcome("the body's target failed"))

    def _cancelled_outcome(self, why: str) -> Outcome:
        """The outcome of a call that ended before an answer."""
        error = Error(ErrorKind.CANCELLED, why)
        now = self._core.now()
        self._attempts += (Attempt(0, error, 0.0, now),)
        return self._outcome(AttemptResult(0, error), error, now)

    def cancel(self) -> None:
        """Stop now, wherever it stands; harmless when it is over."""
        if self.abandoned:
            return
        self._stop()
        if self.spool is not None:
            self.spool.finish(None)
        self._on_done = _ignore
        self._over()
        if self.span is not None:
            self.span.end(None)

    def abort(self, why: str) -> None:
        """Cancel, and say so to the caller."""
        if not self.abandoned:
            on_done, span, self.span = self._on_done, self.span, None
            self.cancel()
            self._on_done, self.span = on_done, span
            self._notify_all(self._cancelled_outcome(why))
