"""One attempt of a call: an address, a transfer, and the timers that bound it.

    resolving   at the resolver                 → _resolved()
    attempting  at the transport, with a timer        → _answered() or _timed_out()
    over        the call was notified, or the attempt was stopped

An exchange holds a slot from the start; `settle` gives it back. A call may have two exchanges at a
time (a hedge). The one that loses the race is let go, not cancelled: cancelling an HTTP/1.1 transfer
costs its connection, and its result still counts for the host.
"""

from typing import Protocol

from yelpaze.http.causes import OUT_OF_FILES
from yelpaze.http.core import Core
from yelpaze.http.host import Host
from yelpaze.http.options import CallSpan
from yelpaze.http.resolver import Answer, Resolver
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timer
from yelpaze.http.transport import AttemptRequest, AttemptResult, Transfer
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.outcome import Timings
from yelpaze.model.request import Connect, Request, Timeout
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.process.descriptors import are_used_up

_NEVER = float("inf")
# These say nothing of the host.
_NOT_OF_HOST = frozenset({ErrorKind.BLOCKED_ADDRESS, ErrorKind.PROXY, ErrorKind.OUT_OF_FILES})


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

    def refused(self, kind: ErrorKind, message: str) -> None:
        """The call cannot go on."""


class Exchange:
    """An attempt under way. `stop()` gives slot and connection back at once, without notifying the call."""

    __slots__ = (
        "_call",
        "_core",
        "_dns",
        "_hedged",
        "_host",
        "_over",
        "_timer",
        "_transfer",
        "_unheard",
        "began",
        "generation",
        "trace_context",
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
        self._transfer: Transfer | None = None
        self._timer: Timer | None = None
        self._dns = 0.0
        self._over = self._unheard = False
        self.began = now
        self.generation = host.generation
        self.trace_context = None if call.span is None else call.span.begin_attempt(call.current.method)
        host.attempts += 1
        if not host.needs_look_up or core.resolver is None:
            if core.guard is not None and (why := core.guard.refusal(host.name.strip("[]"))) is not None:
                core.soon(self._refused, why)
                return
            self._send(None)
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
            self._send(answer)

    def _resolved(self, answer: Answer) -> None:
        if self._over:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._dns = self._core.now() - self.began
        if answer.error:
            error = OUT_OF_FILES if are_used_up() else Error(ErrorKind.DNS, answer.error, answer.code)
            self._end(AttemptResult(0, error))
            return
        try:
            self._send(answer)
        except Exception as error:  # noqa: BLE001  whatever it is, the call ends
            why = self._core.not_sent(error)
            self._call.refused(why.kind, why.message)

    # ── transfer ────────────────────────────────────────────────────────────────

    def _send(self, answer: Answer | None) -> None:
        core, call, host = self._core, self._call, self._host
        current, limits = call.current, call.timeout
        addresses = None if answer is None else answer.addresses
        connect = current.connect
        if addresses is not None and (core.guard is not None or connect is not None):
            addresses, fault = _usable(addresses, core.guard, connect, host.name)
            if fault is not None:
                core.soon(self._end_with, fault)
                return
        attempt = AttemptRequest(
            method=current.method,
            url=current.url,
            header_lines=core.tracer.header_lines(current, call.trace_id, self.trace_context),
            body=current.body,
            replayable=call.replayable,
            host=host.key,
            addresses=addresses,
            connect_timeout=limits.connect,
            order=call.order,
            dns=self._dns,
            queued=call.queued,
            write=None if call.spool is None else call.spool.writer(),
            tls=current.tls,
            certificate=connect is not None and connect.certificate,
        )
        self._transfer = core.transport.start(attempt, self._answered)  # may raise
        began = self.began
        due = began + (min(limits.attempt, limits.first_byte))
        due = min(due, call.deadline_at)
        if self._hedged and host.hedge is not None and began + host.hedge.after < due:
            self._timer = core.timers.at(began + host.hedge.after, self._hedge_or_wait)
        else:
            self._timer = core.timers.at(due, self._timed_out)
        core.attempts += 1

    def _hedge_or_wait(self) -> None:
        limits, call = self._call.timeout, self._call
        due = self.began + min(limits.first_byte, limits.attempt)
        self._timer = self._core.timers.at(min(due, call.deadline_at), self._timed_out)
        if not self._unheard:
            call.slow()

    def _timed_out(self) -> None:
        transfer, call, now = self._transfer, self._call, self._core.now()
        if transfer is None:
            return
        limits, elapsed = call.timeout, now - self.began
        if now >= call.deadline_at and not self._unheard:
            call.past_deadline()
            return
        # Only what the attempt itself had too little time for is its failure.
        due = self.began + (limits.attempt if transfer.has_begun else min(limits.first_byte, limits.attempt))
        due += transfer.paused_for(now)  # that was not the server's doing
        if now < due:
            until = due if self._unheard else min(due, call.deadline_at)
            self._timer = self._core.timers.at(until, self._timed_out)
            return
        if elapsed >= limits.attempt or transfer.has_begun:
            kind, what = ErrorKind.ATTEMPT_TIMEOUT, f"no whole answer within {limits.attempt:g} s"
        else:
            kind, what = (
                ErrorKind.FIRST_BYTE_TIMEOUT,
                f"no answer began within {limits.first_byte:g} s",
            )
        self._timer = None
        timings = Timings(self._dns, total=elapsed, queued=call.queued)
        self._stop_transfer(transfer)
        self._end(AttemptResult(0, Error(kind, what), timings=timings))

    def _answered(self, result: AttemptResult) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transfer = None
        self._end(result)

    def _stop_transfer(self, transfer: Transfer) -> None:
        self._transfer = None
        transfer.cancel()

    def _refused(self, why: str) -> None:
        self._end_with(Error(ErrorKind.BLOCKED_ADDRESS, why))

    def _end_with(self, error: Error) -> None:
        if not self._over:
            self._end(AttemptResult(0, error))

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
        is_of_host = error is None or error.kind not in _NOT_OF_HOST
        if is_of_host and host.learn(
            now, result.status, error, now - self.began, result.headers, self.generation
        ):
            core.reconsider(host, now)
        core.give_slot(host, now)

    def stop(self) -> None:
        """Break off, wherever it stands."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transfer is not None:
            self._stop_transfer(self._transfer)
        self._core.give_slot(self._host, self._core.now())

    def let_go(self) -> None:
        """Nobody waits for it any more: let its transfer end, or stop it if there is none."""
        if self._transfer is None:
            self.stop()
        else:
            self._unheard = True


def _usable(
    addresses: tuple[str, ...], guard: AddressGuard | None, connect: Connect | None, name: str
) -> tuple[tuple[str, ...], Error | None]:
    """The addresses that may be connected to, or why there are none."""
    if connect is not None and connect.ip_family is not None:
        is_6 = connect.ip_family == 6  # noqa: PLR2004
        addresses = tuple(one for one in addresses if (":" in one) is is_6)
        if not addresses:
            text = f"cannot resolve {name!r}: it has no IPv{connect.ip_family} address"
            return (), Error(ErrorKind.DNS, text, "NODATA")
    if guard is not None:
        refusals = [guard.refusal(one) for one in addresses]
        permitted = tuple(one for one, why in zip(addresses, refusals, strict=True) if why is None)
        if not permitted:
            return (), Error(ErrorKind.BLOCKED_ADDRESS, str(refusals[0]))
        addresses = permitted if len(permitted) < len(addresses) else addresses
    return addresses, None
