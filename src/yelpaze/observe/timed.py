"""`timed`: duration and success of anyone's own work, to the same metrics and log."""

import inspect
import time
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

F = TypeVar("F", bound=Callable[..., Any])
_HISTOGRAMS: dict[CollectorRegistry, Histogram] = {}


@overload
def timed(name: F, /) -> F: ...
@overload
def timed(name: str, *, registry: CollectorRegistry | None = None, logger: Any = None) -> "Timed": ...
def timed(name: Any, *, registry: CollectorRegistry | None = None, logger: Any = None) -> Any:
    """Time a function, a coroutine function, or the block of a `with` or `async with`.

    Prometheus gets `yelpaze_timed_seconds{name, outcome}`, outcome being success or failure;
    structlog, once it is configured or with a `logger`, gets a `timed` event, at debug level
    where it succeeded. `registry` is Prometheus's own by default. Without a name, `@timed` alone,
    it is the function's.

    >>> import yelpaze
    >>> @yelpaze.timed("user_dashboard")
    ... async def dashboard(): ...
    >>> with yelpaze.timed("render"):
    ...     page = "<p>"
    """
    if callable(name):
        return Timed(name.__qualname__, registry=registry, logger=logger)(name)
    return Timed(name, registry=registry, logger=logger)


class Timed:
    """What `timed` gives: a decorator and a context manager."""

    def __init__(self, name: str, *, registry: CollectorRegistry | None = None, logger: Any = None) -> None:
        self._name = name
        self._registry = registry
        self._histogram = _histogram_in(REGISTRY if registry is None else registry)
        self._logger = logger
        self._log = structlog.get_logger("yelpaze") if logger is None else logger
        self._began: list[float] = []

    def __call__(self, function: F) -> F:
        """Decorate; each call is timed on its own."""
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"timed: {function.__name__} is a generator; time the work inside it with `with`")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def call_async(*arguments: Any, **named: Any) -> Any:
                with self._again():
                    return await function(*arguments, **named)

            return call_async  # type: ignore[return-value]

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with self._again():
                return function(*arguments, **named)

        return call  # type: ignore[return-value]

    def _again(self) -> "Timed":
        return Timed(self._name, registry=self._registry, logger=self._logger)

    def __enter__(self) -> Self:
        self._began.append(time.perf_counter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began.pop()
        outcome = "success" if kind is None else "failure"
        self._histogram.labels(self._name, outcome).observe(seconds)
        if self._logger is None and not structlog.is_configured():
            return  # unconfigured it prints to stdout, which is not ours
        if kind is None:
            self._log.debug("timed", name=self._name, outcome=outcome, seconds=round(seconds, 6))
        else:
            said = f"{kind.__name__}: {error}"
            self._log.warning(
                "timed", name=self._name, outcome=outcome, seconds=round(seconds, 6), error=said
            )

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _histogram_in(registry: CollectorRegistry) -> Histogram:
    """One histogram a registry, which refuses a second of the same name."""
    if registry not in _HISTOGRAMS:
        _HISTOGRAMS[registry] = Histogram(
            "yelpaze_timed_seconds",
            "Duration of work marked with yelpaze.timed.",
            ["name", "outcome"],
            registry=registry,
        )
    return _HISTOGRAMS[registry]
