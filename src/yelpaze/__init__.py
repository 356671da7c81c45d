"""Yelpaze: talk to very many things at once. Call, compute, carry, deliver.

Everything public is here; each name is imported when it is first used, so that a CPU
worker process does not load an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from yelpaze.version import __version__

if TYPE_CHECKING:
    from yelpaze.blocking import run
    from yelpaze.flow.failure import Failure
    from yelpaze.flow.flow import Flow
    from yelpaze.flow.result import Result
    from yelpaze.hooks.hooks import Hooks
    from yelpaze.http.engine import Engine
    from yelpaze.jobs.job import Job
    from yelpaze.jobs.options import Summary
    from yelpaze.model.errors import (
        Error,
        ErrorKind,
        FlowError,
        InputError,
        MisuseError,
        StoppedError,
        YelpazeError,
    )
    from yelpaze.model.event import HostEvent
    from yelpaze.model.headers import Headers
    from yelpaze.model.outcome import Attempt, FanOutError, Outcome, Response, Timings
    from yelpaze.model.request import Connect, Request, Timeout, delete, get, head, patch, post, put, request
    from yelpaze.model.statistics import HostStatistics, Statistics
    from yelpaze.model.tls import Tls
    from yelpaze.observe.log import log_events
    from yelpaze.observe.metrics import EngineCollector
    from yelpaze.observe.timed import timed
    from yelpaze.observe.traces import open_telemetry
    from yelpaze.policy.address_guard import AddressGuard
    from yelpaze.policy.breaker import Breaker
    from yelpaze.policy.budget import Budget
    from yelpaze.policy.hedge import Hedge
    from yelpaze.policy.host import HostPolicy
    from yelpaze.policy.limit import Limit
    from yelpaze.policy.retry import Retry

_HOME = {
    "yelpaze.blocking": ("run",),
    "yelpaze.flow.failure": ("Failure",),
    "yelpaze.flow.flow": ("Flow",),
    "yelpaze.flow.result": ("Result",),
    "yelpaze.hooks.hooks": ("Hooks",),
    "yelpaze.http.engine": ("Engine",),
    "yelpaze.jobs.job": ("Job",),
    "yelpaze.jobs.options": ("Summary",),
    "yelpaze.model.errors": (
        "Error",
        "ErrorKind",
        "FlowError",
        "InputError",
        "MisuseError",
        "StoppedError",
        "YelpazeError",
    ),
    "yelpaze.app.live_object": ("Live",),
    "yelpaze.model.event": ("HostEvent",),
    "yelpaze.model.headers": ("Headers",),
    "yelpaze.model.outcome": ("Attempt", "FanOutError", "Outcome", "Response", "Timings"),
    "yelpaze.model.request": (
        "Connect",
        "Request",
        "Timeout",
        "delete",
        "get",
        "head",
        "patch",
        "post",
        "put",
        "request",
    ),
    "yelpaze.model.statistics": ("HostStatistics", "Statistics"),
    "yelpaze.observe.log": ("log_events",),
    "yelpaze.observe.metrics": ("EngineCollector",),
    "yelpaze.observe.timed": ("timed",),
    "yelpaze.observe.traces": ("open_telemetry",),
    "yelpaze.model.tls": ("Tls",),
    "yelpaze.policy.address_guard": ("AddressGuard",),
    "yelpaze.policy.breaker": ("Breaker",),
    "yelpaze.policy.budget": ("Budget",),
    "yelpaze.policy.hedge": ("Hedge",),
    "yelpaze.policy.host": ("HostPolicy",),
    "yelpaze.policy.limit": ("Limit",),
    "yelpaze.policy.retry": ("Retry",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AddressGuard",
    "Attempt",
    "Breaker",
    "Budget",
    "Connect",
    "Engine",
    "EngineCollector",
    "Error",
    "ErrorKind",
    "Failure",
    "FanOutError",
    "Flow",
    "FlowError",
    "Headers",
    "Hedge",
    "Hooks",
    "HostEvent",
    "HostPolicy",
    "HostStatistics",
    "InputError",
    "Job",
    "Limit",
    "Live",
    "MisuseError",
    "Outcome",
    "Request",
    "Response",
    "Result",
    "Retry",
    "Statistics",
    "StoppedError",
    "Summary",
    "Timeout",
    "Timings",
    "Tls",
    "YelpazeError",
    "__version__",
    "delete",
    "get",
    "head",
    "log_events",
    "open_telemetry",
    "patch",
    "post",
    "put",
    "request",
    "run",
    "timed",
]


def __getattr__(name: str) -> Any:
    if name in ("blocking", "rpc", "testing"):
        return import_module(f"yelpaze.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'yelpaze' has no attribute {name!r}")
    if name in ("Hooks", "Live"):
        import_module("yelpaze.model.extras").require(name.lower(), f"yelpaze.{name}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
