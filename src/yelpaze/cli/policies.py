"""The flags for policies that `run` and `fetch` share, and `--explain`."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from yelpaze.cli.seconds import Seconds
from yelpaze.http.engine import Engine
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import Timeout
from yelpaze.model.url import origin_of
from yelpaze.policy.breaker import Breaker
from yelpaze.policy.budget import Budget
from yelpaze.policy.explain import explained
from yelpaze.policy.hedge import Hedge
from yelpaze.policy.host import HostPolicy, Policy
from yelpaze.policy.limit import Limit
from yelpaze.policy.retry import Retry

F = TypeVar("F", bound=Callable[..., Any])
_HOST = re.compile(r"(?P<pattern>.+?):(?P<settings>[a-z_]+=.*)")
_KEYS = "concurrency, rate, burst, retries, timeout, deadline, breaker, hedge, budget, share"


class AtOnce(click.ParamType[int | str]):
    """A whole number, or `auto`."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto" or isinstance(value, int):
            return str(value) if value == "auto" else int(value)
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a whole number of at least 1 nor auto", param, ctx)
        return int(value)


_POLICY_OPTIONS = (
    click.option(
        "--per-host",
        metavar="N|auto",
        type=AtOnce(),
        help="Calls to one host at once; auto finds what it bears.",
    ),
    click.option(
        "--deadline",
        metavar="SECONDS",
        type=Seconds(),
        help="For each call with all its attempts and waiting.",
    ),
    click.option(
        "--park",
        metavar="SECONDS",
        type=Seconds(),
        help="How long calls wait for a host that is away. [default: 600; fetch: 60]",
    ),
    click.option(
        "--breaker/--no-breaker", default=True, help="Stop calling a host that fails.  [default: on]"
    ),
    click.option(
        "--host-policy",
        "host_policies",
        metavar="HOST:KEY=VALUE,…",
        multiple=True,
        help=f"What differs for a host or wildcard: {_KEYS}.",
    ),
    click.option(
        "--explain",
        "explain_only",
        is_flag=True,
        help="Print which policies hold for each host, and call nobody.",
    ),
    click.option("--metrics", metavar="[HOST:]PORT", help="Serve Prometheus metrics there while it runs."),
    click.option(
        "--log", metavar="FILE", help="Append failures and changes of hosts as JSON lines; - is stderr."
    ),
)


def with_options(function: F, options: Sequence[Callable[[F], F]]) -> F:
    """Add flags, listed in that order by --help."""
    for option in reversed(options):
        function = option(function)
    return function


def policy_options(function: F) -> F:
    """Add the shared flags."""
    return with_options(function, _POLICY_OPTIONS)


def engine_options(
    *,
    per_host: int | str | None = None,
    deadline: float | None = None,
    park: float | None = None,
    breaker: bool = True,
    hedge: bool = False,
    dedupe: bool = False,
    host_rate: str | None = None,
    retries: int | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Engine options for the flags that were given; MisuseError for values that make no sense."""
    options: dict[str, Any] = {}
    if per_host is not None or host_rate is not None:
        options["limit"] = Limit(**_given(concurrency=per_host, rate=host_rate))
    if timeout is not None:
        options["timeout"] = Timeout(attempt=timeout)
    if retries is not None:
        options["retry"] = Retry(attempts=retries + 1)
    if not breaker:
        options["breaker"] = None
    if hedge:
        options["hedge"] = Hedge()
    if dedupe:
        options["dedupe"] = True
    return options | _given(deadline=deadline, park=park)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def host_policies_of(texts: Iterable[str], options: dict[str, Any]) -> dict[str, HostPolicy]:
    """Read `api.example.com:rate=10/s,retries=5`; what it leaves out is as the other flags say."""
    return dict(_host_policy(text, options) for text in texts)


def _host_policy(text: str, options: dict[str, Any]) -> tuple[str, HostPolicy]:
    found = _HOST.fullmatch(text)
    if found is None:
        wanted = "write HOST:KEY=VALUE,…, such as api.example.com:rate=10/s"
        raise MisuseError(f"--host-policy {text!r}: {wanted}")
    settings: dict[str, str] = {}
    for setting in found["settings"].split(","):
        key, equals, value = setting.partition("=")
        if key not in _KEYS.split(", ") or not equals or not value:
            raise MisuseError(f"--host-policy {text!r}: {setting!r} is no setting; there are {_KEYS}")
        settings[key] = value
    try:
        return found["pattern"], _policy(settings, options)
    except (MisuseError, ValueError) as error:
        raise MisuseError(f"--host-policy {text!r}: {error}") from None


_SWITCHES: dict[str, Callable[[], Any]] = {"breaker": Breaker, "hedge": Hedge, "budget": Budget}


def _policy(settings: dict[str, str], options: dict[str, Any]) -> HostPolicy:
    given: dict[str, Any] = {}
    limit: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "rate":
            limit[key] = value
        elif key in ("concurrency", "burst"):
            limit[key] = value if value == "auto" else int(value)
        elif key == "retries":
            given["retry"] = msgspec.structs.replace(options.get("retry") or Retry(), attempts=int(value) + 1)
        elif key == "timeout":
            given[key] = msgspec.structs.replace(options.get("timeout") or Timeout(), attempt=float(value))
        elif key in _SWITCHES:
            given[key] = _SWITCHES[key]() if _is_on(value) else None
        else:
            given[key] = float(value)
    if limit:
        given["limit"] = msgspec.structs.replace(options.get("limit") or Limit(), **limit)
    return HostPolicy(**given)


def _is_on(value: str) -> bool:
    if value not in ("on", "off"):
        raise MisuseError(f"is on or off, not {value!r}")
    return value == "on"


def explain(engine: Engine, urls: Iterable[str] = ()) -> list[str]:
    """What holds for the hosts of those URLs, for each pattern, and for all other hosts."""
    lines: list[str] = []
    seen = set()
    for url in urls:
        origin = origin_of(url)
        if origin in seen:
            continue
        seen.add(origin)
        for policy in engine.policies.of(origin):
            share = "" if policy.share == 1 else f", {policy.share:.0%} of the requests"
            source = f"by {policy.pattern!r}{share}" if policy.pattern else "the default"
            lines += _paragraph(f"{origin}  ({source})", policy)
            if policy.share == 1:
                break
    if not seen:
        for policy in engine.policies.patterns():
            share = "" if policy.share == 1 else f"  ({policy.share:.0%} of the requests)"
            lines += _paragraph(f"{policy.pattern}{share}", policy)
        lines += _paragraph("any other host" if lines else "any host", engine.policies.default)
    return lines


def _paragraph(title: str, policy: Policy) -> list[str]:
    return [title, *(f"  {name:<9} {text}" for name, text in explained(policy))]
