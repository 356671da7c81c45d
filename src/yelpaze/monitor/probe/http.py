"""HTTP and HTTPS checks, through the engine: a fresh connection each, with the time of each phase."""

import time
import zlib
from collections.abc import Callable

from yelpaze.http.engine import Engine
from yelpaze.http.options import Pending
from yelpaze.http.resolver import AsyncResolver
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Connect, Request, Timeout, request
from yelpaze.model.tls import Tls
from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.schedule import Entry
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.host import HostPolicy
from yelpaze.policy.limit import Limit
from yelpaze.version import __version__

# A share for the first one only: a post-quantum one costs 100 µs of CPU a handshake, and nothing here is
# secret for long. Servers that want another group ask for it.
GROUPS = "X25519:prime256v1:secp384r1:X25519MLKEM768"
_MOST_BODY = 1 << 20
_CONNECT = 5.0
_MOST_NAMES = 200_000
_LOOK_UPS = 500
_HOUR = 3600.0
_CERTIFICATE = "[CERTIFICATE_EXPIRATION]"


def new_engine(concurrency: int, resolver: str = "", guard: AddressGuard | None = None) -> Engine:
    """An engine whose calls are checks: no connection, session or decision is shared between them."""
    servers = [resolver] if resolver else None
    return Engine(
        concurrency=concurrency,
        limit=Limit(concurrency=concurrency),
        connections=0,
        retry=None,
        budget=None,
        breaker=None,
        hosts={"*": HostPolicy(pauses=False)},
        max_body=_MOST_BODY,
        truncate=True,
        compressed=False,
        tls_groups=GROUPS,
        tls_sessions=False,
        resolver=lambda: AsyncResolver(servers, names=_MOST_NAMES, at_once=_LOOK_UPS),
        address_guard=guard,
        guard_at="look_up" if guard is not None else "connect",
        user_agent=f"yelpaze-monitor/{__version__}",
        omit_headers=("traceparent",),
    )


class HttpChecks:
    """Starts HTTP checks. `others`: engines that ask other name servers; all are open."""

    def __init__(
        self, engine: Engine, others: dict[str, Engine], wall: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._others = others
        self._wall = wall

    def start(self, entry: Entry, done: Callable[[Reply], None]) -> Pending:
        """Begin; `done` gets the reply, later. Raises MisuseError for what cannot be sent."""
        check = entry.check
        if self._wants_certificate(entry, self._wall()):
            asked = _request_of(check, certificate=True)
        else:
            found = entry.request
            asked = found if isinstance(found, Request) else _request_of(check)
            entry.request = asked
        engine = self._others.get(check.options.resolver, self._engine)
        return engine.submit(asked, lambda outcome: done(self._reply(entry, outcome)))

    def _wants_certificate(self, entry: Entry, now: float) -> bool:
        # Reading it costs 150 µs: at first, then hourly, after a TLS error, and while its condition fails.
        check = entry.check
        if not (check.url.startswith("https:") or _CERTIFICATE in check.options.names):
            return False
        return entry.certificate is None or now - entry.looked_at > _HOUR

    def _reply(self, entry: Entry, outcome: Outcome) -> Reply:
        error, timings, now = outcome.error, outcome.timings, self._wall()
        if outcome.certificate_expires is not None:
            entry.certificate, entry.looked_at = outcome.certificate_expires, now
        elif error is not None and error.kind == "tls":
            entry.certificate = None
        certificate = entry.certificate
        left = 0 if certificate is None else int((certificate - now) * 1000)
        milliseconds = timings.total * 1000
        if len(outcome.attempts) > 1:  # redirects
            milliseconds = sum(one.seconds for one in outcome.attempts) * 1000
        answer = Answer(
            status=outcome.status,
            ip=outcome.remote_ip,
            body=_decoded(outcome),
            response_time=int(milliseconds),
            connected=outcome.status > 0,
            certificate=left,
        )
        phases = (timings.dns * 1e3, timings.connect * 1e3, timings.tls * 1e3, timings.first_byte * 1e3)
        if error is None or error.kind == "status":
            return Reply(answer, "", "", milliseconds, phases, certificate)
        code = f" ({error.code})" if error.code else ""
        return Reply(answer, str(error.kind), f"{error.message}{code}", milliseconds, phases, certificate)


def _decoded(outcome: Outcome) -> bytes:
    """The body, without the gzip coding that some servers use unasked; up to the cap."""
    if outcome.headers.get("content-encoding", "").strip().lower() not in ("gzip", "x-gzip"):
        return outcome.body
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(outcome.body, _MOST_BODY)
    except zlib.error:
        return outcome.body


def _request_of(check: Check, *, certificate: bool = False) -> Request:
    options = check.options
    connect = None
    if certificate or options.ip_family is not None:
        connect = Connect(ip_family=options.ip_family, certificate=certificate)
    tls = None
    if not options.verify or options.certificate is not None or options.ca_file:
        tls = Tls(options.ca_file or None, options.certificate, options.verify, GROUPS)
    timeout = options.timeout
    return request(
        options.method,
        check.url,
        headers=options.headers,
        body=options.body or None,
        timeout=Timeout(connect=min(_CONNECT, timeout), first_byte=timeout, attempt=timeout),
        deadline=2 * timeout,  # redirects and what they ask to wait for are bounded, too
        redirects=None if options.follow_redirects else 0,
        connect=connect,
        tls=tls,
    )
