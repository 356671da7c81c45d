"""What an engine knows of one host: the state of its policies, its connections, its counts.

`learn` takes in how an attempt ended and moves all policy states at once; what it changed
for calls that wait is for `Core.reconsider` to act on.
"""

from collections import defaultdict
from collections.abc import Callable

from yelpaze.http.options import QueuedCall
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.histogram import Histogram
from yelpaze.model.statistics import HostStatistics
from yelpaze.model.url import Origin
from yelpaze.policy.adaptive import Adaptive
from yelpaze.policy.breaker import BreakerState, State
from yelpaze.policy.budget import BudgetState
from yelpaze.policy.hedge import HedgeState
from yelpaze.policy.host import Policy
from yelpaze.policy.quota import read_quota
from yelpaze.policy.rate import Gcra
from yelpaze.policy.retry import Retry, retry_after_seconds
from yelpaze.policy.slots import HostQueue

_ONCE = Retry(attempts=1)
_TOO_MANY, _UNAVAILABLE = 429, 503
_NEVER = float("inf")
# In every spelling of RateLimit-… that occurs; few other answers have it.
_ABOUT_LIMITS = b"imit"
# Resets are in whole seconds.
_ROUNDING = 2.0
_ILL = frozenset({500, 502, 503, 504})
_DROPS = frozenset({ErrorKind.FIRST_BYTE_TIMEOUT, ErrorKind.ATTEMPT_TIMEOUT, ErrorKind.CONNECT_TIMEOUT})


class Host:
    """One origin under one policy. `most`: calls at once that the engine allows in all."""

    __slots__ = (
        "_quota_left",
        "_quota_until",
        "_seen_status",
        "_wall",
        "_width",
        "adaptive",
        "attempts",
        "breaker",
        "breaker_open",
        "budget",
        "failing",
        "failures",
        "given_up",
        "hedge",
        "hedges",
        "key",
        "label",
        "last_success",
        "latency",
        "name",
        "needs_look_up",
        "notified_generation",
        "notified_given_up",
        "notified_pause",
        "origin",
        "paused_until",
        "policy",
        "queue",
        "queueing",
        "requests",
        "retries",
        "retry",
        "share_of",
        "siblings",
        "silent_since",
        "streak",
        "used",
    )

    def __init__(
        self, origin: Origin, policy: Policy, *, most: int, needs_look_up: bool, wall: Callable[[], float]
    ) -> None:
        limit = policy.limit
        self.origin = origin
        self.name = origin.host
        self.label = str(origin) if policy.share == 1 else f"{origin} ({policy.pattern} {policy.share:.0%})"
        # The records of the same origin under other policies: a pause holds for all of them.
        self.siblings: tuple[Host, ...] = ()
        self.used = 0.0
        self.needs_look_up = needs_look_up
        self._wall = wall
        self.policy = policy
        self.retry = policy.retry or _ONCE
        # Stricter settings for a share of the requests: (share, the host record for those).
        self.share_of: tuple[float, Host] | None = None
        self.adaptive = Adaptive(most) if limit.concurrency == "auto" else None
        self._width = most if limit.concurrency == "auto" else min(limit.concurrency, most)
        pace = limit.pace
        self.queue: HostQueue[QueuedCall] = HostQueue(self._width, Gcra(pace, limit.burst) if pace else None)
        self.breaker = BreakerState(policy.breaker) if policy.breaker else None
        self.budget = BudgetState(policy.budget) if policy.budget else None
        self.hedge = HedgeState(policy.hedge) if policy.hedge else None
        if self.adaptive is not None:
            self.queue.limit = self.adaptive.limit
        self.breaker_open = False  # or half-open: not closed
        self.given_up = False
        self.paused_until = -_NEVER
        # What the listeners were notified of already.
        self.notified_generation, self.notified_pause, self.notified_given_up = 0, -_NEVER, False
        # What the host said it has left, until when.
        self._quota_left, self._quota_until = 0, _NEVER
        self.last_success = -_NEVER
        self.silent_since: float | None = None  # since when there was no success, only failures
        # How many different calls have failed since the last success; `streak` numbers the times.
        self.streak = self.failing = 0
        self.requests = self.attempts = self.retries = self.hedges = self.failures = 0
        self._seen_status: defaultdict[int, int] = defaultdict(int)
        self.latency, self.queueing = Histogram(), Histogram()
        self.key = f"{origin.host}:{origin.port}"  # by which a transport pools connections

    # ── policies ────────────────────────────────────────────────────────────────

    @property
    def generation(self) -> int:
        """Of the breaker: to be given back with how the attempt ended."""
        return 0 if self.breaker is None else self.breaker.generation

    def breaker_message(self, now: float) -> str:
        """Which breaker is open, and for how long."""
        until = self.breaker.until - now if self.breaker is not None else 0.0
        when = f"for another {until:.0f} s" if until >= 1 else "until a call that tries it succeeds"
        return f"{self.label} is away: its breaker is open {when}"

    def learn(
        self, now: float, status: int, error: Error | None, seconds: float, headers: Headers, generation: int
    ) -> bool:
        """Take in how an attempt ended; whether calls that wait are concerned."""
        changed = False
        if status:
            self.latency.add(seconds)
            self._seen_status[status] += 1
            if self.hedge is not None:
                self.hedge.answered(seconds)
        good = error is None or _is_well(status, error)
        if good:
            self.last_success = now
            if self.silent_since is not None:
                changed = self._spoke()
        else:
            self.failures += 1
            self.silent_since = now if self.silent_since is None else self.silent_since
        if self.breaker is not None and (status != _TOO_MANY or self.breaker_open):
            changed |= self.breaker.record(now, good, generation)
        if self.adaptive is not None:
            if error is None:
                changed |= self.adaptive.sample(seconds, self.queue.busy)
            else:
                changed |= self._adapt(status, error, seconds)
        if self.policy.pauses and ((error is not None and status) or _ABOUT_LIMITS in headers.raw):
            changed |= self._obey(now, status, headers)
        if changed or now >= self._quota_until:  # never, without a quota
            self.refit(now)
            return True
        return False

    def refit(self, now: float) -> None:
        """Update the queue by breaker, pause, quota and adaptive limit."""
        queue, breaker = self.queue, self.breaker
        queue.limit = self._width if self.adaptive is None else self.adaptive.limit
        shut = self.paused_until
        self.breaker_open = breaker is not None and breaker.state is not State.CLOSED
        if breaker is not None and self.policy.breaker is not None and self.breaker_open:
            queue.limit = min(queue.limit, self.policy.breaker.probes)
            shut = max(shut, breaker.until)
        if now >= self._quota_until:
            self._quota_until = _NEVER
        elif self._quota_until < _NEVER:
            # Those under way may use up what is left: no more than that at once.
            queue.limit = min(queue.limit, max(self._quota_left, 1))
        if shut > now:
            queue.blocked_until = max(queue.blocked_until, shut)

    def is_in_use(self, now: float) -> bool:
        """Whether something is known that must not be forgotten: calls, a pause, an open breaker."""
        queue = self.queue
        return bool(
            queue.busy
            or queue.waiting
            or self.breaker_open
            or queue.blocked_until > now
            or self.paused_until > now
        )

    def pause(self, until: float) -> None:
        """Start nothing before that."""
        self.paused_until = max(self.paused_until, until)

    def give_up_at(self, park: float) -> float:
        """When waiting makes no sense any more; a pause that the host asked for doesn't count."""
        if self.silent_since is None:
            return _NEVER
        return max(self.silent_since, self.paused_until) + park

    def asked(self, now: float) -> None:
        """A new request: what failed before a time without any is no silence."""
        self.requests += 1
        self.used = now
        if self.budget is not None:
            window = self.budget.window
            if now >= window.ends:
                window.roll(now)
            window.calls += 1
        if self.silent_since is not None and not (self.given_up or self.queue.busy or self.queue.waiting):
            self.silent_since = None

    def trip(self, now: float) -> bool:
        """Open the breaker; whether that changed anything."""
        if self.breaker is None or not self.breaker.trip(now):
            return False
        self.refit(now)
        return True

    def _spoke(self) -> bool:
        """A success after failures; whether the host had been given up."""
        self.silent_since = None
        self.failing = 0
        self.streak += 1
        was_down, self.given_up = self.given_up, False
        return was_down

    def _adapt(self, status: int, error: Error | None, seconds: float) -> bool:
        assert self.adaptive is not None
        if status in (_TOO_MANY, _UNAVAILABLE) or (error is not None and error.kind in _DROPS):
            return self.adaptive.dropped()
        return bool(status) and self.adaptive.sample(seconds, self.queue.busy)

    def _obey(self, now: float, status: int, headers: Headers) -> bool:
        """Pause by Retry-After, else by what the quota fields leave."""
        head = headers.raw.lower()
        if b"ratelimit" not in head and b"\nretry-after" not in head:
            return False
        wall = self._wall()
        if status in (_TOO_MANY, _UNAVAILABLE):
            after = retry_after_seconds(headers.get("retry-after"), wall=wall)
            if after is not None:
                self.pause(now + min(after, self.retry.retry_after_cap))
                return True
        quota = read_quota(headers, wall=wall)
        if quota is None:
            return False
        if quota.remaining == 0:
            self.pause(now + quota.reset)
        until = now + quota.reset
        if self._quota_until == _NEVER or until > self._quota_until + _ROUNDING:  # a new window
            self._quota_left, self._quota_until = quota.remaining, until
        else:  # answers may overtake each other: the least counts
            self._quota_left = min(quota.remaining, self._quota_left)
        return quota.remaining < self._width or self.queue.limit < self._width

    # ── counts ──────────────────────────────────────────────────────────────────

    def statistics(self, now: float) -> HostStatistics:
        """A snapshot."""
        queue, breaker = self.queue, self.breaker
        return HostStatistics(
            requests=self.requests,
            attempts=self.attempts,
            retries=self.retries,
            hedges=self.hedges,
            failures=self.failures,
            statuses={str(status): count for status, count in sorted(self._seen_status.items())},
            state="down" if self.given_up else breaker.state.value if breaker else "closed",
            paused=max(0.0, queue.blocked_until - now),
            limit=queue.limit,
            in_flight=queue.busy,
            waiting=len(queue.waiting),
            latency=self.latency.copy(),
            queueing=self.queueing.copy(),
        )


def _is_well(status: int, error: Error) -> bool:
    """Whether a failed attempt still says that the host is in working order."""
    if error.kind is ErrorKind.STATUS:
        return status >= 400 and status not in _ILL and status != _TOO_MANY  # noqa: PLR2004
    return error.kind is ErrorKind.TOO_LARGE
