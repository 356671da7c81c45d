"""What people write: a `Flow` and its steps.

    flow = Flow("offers")

    @flow.request(idempotent=True)
    def base(row: Row):
        return post(row.url, json=row.json)

    @flow.compute(timeout=5)
    def offer(base: Base, row: Row) -> Offer:
        ...

A step's parameters name the steps that it needs; `row` is the input record. The functions
stay what they were and can be called and tested as such.
"""

import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, overload

from yelpaze.compute.workers import Who
from yelpaze.flow.graph import Graph
from yelpaze.flow.plan import Plan
from yelpaze.flow.result import Result
from yelpaze.flow.step import Accept, Step
from yelpaze.model.errors import FlowError, MisuseError
from yelpaze.model.request import Timeout
from yelpaze.policy.retry import Retry

F = TypeVar("F", bound=Callable[..., Any])


class Flow:
    """A graph of steps, built by decorators and checked before the first call.

    `engine` holds options for the Engine that runs it (`limit`, `timeout`, `retry`, `hosts`,
    `ca_file`, …) where the defaults don't fit. `deadline`: seconds for a whole row, its calls
    with their retries and waiting, and its CPU steps. `secrets`: names of fields and headers that
    must not be written into dead letters, beside those that everybody knows (Authorization, …).

    >>> from yelpaze import Flow
    >>> flow = Flow("squares")
    >>> @flow.compute
    ... def square(row: int) -> int:
    ...     return row * row
    >>> import yelpaze
    >>> [result.value for result in yelpaze.run(flow, [1, 2, 3])]
    [1, 4, 9]
    """

    def __init__(
        self,
        name: str,
        *,
        engine: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        if deadline is not None and not (isinstance(deadline, int | float) and deadline > 0):
            raise MisuseError(f"Flow(deadline=…) takes a positive number of seconds: {deadline!r}")
        caller = sys._getframe(1)  # noqa: SLF001  where the flow is defined, for workers and messages
        self.plan = Plan(
            name,
            where=f"{caller.f_code.co_filename}:{caller.f_lineno}",
            module=str(caller.f_globals.get("__name__", "")),
            owner=self,
            engine_options=engine or {},
            deadline=deadline,
            secrets=secrets,
        )

    def __repr__(self) -> str:
        return f"Flow({self.plan.name!r}, steps={list(self.plan.steps)})"

    # ── steps ───────────────────────────────────────────────────────────────────

    @overload
    def request(self, function: F, /) -> F: ...
    @overload
    def request(
        self,
        /,
        *,
        idempotent: bool | None = None,
        optional: bool = False,
        accept: Collection[int] | Accept | None = None,
        timeout: Timeout | float | None = None,
        retry: bool | Retry = True,
        idempotency_key: bool = False,
    ) -> Callable[[F], F]: ...
    def request(
        self,
        function: Any = None,
        /,
        *,
        idempotent: bool | None = None,
        optional: bool = False,
        accept: Collection[int] | Accept | None = None,
        timeout: Timeout | float | None = None,
        retry: bool | Retry = True,
        idempotency_key: bool = False,
    ) -> Any:
        """A step that makes calls: it returns a request, a list or dict of them, or None to skip.

        - `idempotent`: whether its requests may be sent twice (None: by method).
        - `optional`: its failure is passed on as a `Failure`, and the row goes on.
        - `accept`: statuses, or a predicate on the outcome, that are no failure; by
          default every status below 400.
        - `timeout`: seconds for each attempt, or a Timeout.
        - `retry`: a Retry instead of the host's; False makes one attempt.
        - `idempotency_key`: each request gets an Idempotency-Key of its own, which is the same in
          every attempt, when the row is run again, and when a run goes on after a crash.
        """
        limits = Timeout(attempt=timeout) if isinstance(timeout, int | float) else timeout
        options = {
            "is_compute": False,
            "optional": optional,
            "idempotent": idempotent,
            "accept": _predicate(accept),
            "limits": limits,
            "retry": retry,
            "idempotency_key": idempotency_key,
        }
        return self._register(function, options)

    @overload
    def compute(self, function: F, /) -> F: ...
    @overload
    def compute(self, /, *, timeout: float = 60.0, optional: bool = False) -> Callable[[F], F]: ...
    def compute(self, function: Any = None, /, *, timeout: float = 60.0, optional: bool = False) -> Any:
        """A CPU-bound step. In worker processes it is killed after `timeout` seconds."""
        if timeout <= 0:
            raise MisuseError(f"timeout takes a positive number of seconds: {timeout}")
        return self._register(function, {"is_compute": True, "optional": optional, "timeout": timeout})

    def _register(self, function: Any, options: dict[str, Any]) -> Any:
        def register(function: F) -> F:
            self._add(function, options)
            return function

        return register if function is None else register(function)

    def _add(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        code = getattr(inspect.unwrap(function), "__code__", None)
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else self.plan.where
        name = getattr(function, "__name__", "")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise FlowError(f"{where}: step {name!r} must be a plain function: it returns what to call")
        self.plan.add(Step(name=name, function=function, where=where, **options))

    # ── running ─────────────────────────────────────────────────────────────────

    def graph(self) -> Graph:
        """The checked graph. Raises FlowError, with file and line, for one that cannot run."""
        return self.plan.graph()

    async def run(self, rows: Iterable[Any] | AsyncIterable[Any], **options: Any) -> list[Result]:
        """Run all rows; their results in the rows' order. Options are those of `stream`."""
        results = [result async for result in self.stream(rows, **options)]
        results.sort(key=lambda result: result.row)
        return results

    def stream(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 256,
        workers: Who = 0,
        batch: int = 64,
        engine: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Result]:
        """Run rows taken lazily; results come as they complete, numbered from 1.

        At most `concurrency` rows are under way. `workers` processes run the CPU steps; 0 runs them
        in this process; `"grpc://host:port"` (several with commas), or `Workers(…)`, has them run by
        `yelpaze worker` there. `engine` are options of `Engine` that replace the flow's own. A failed
        row's result holds a `Failure`; nothing is raised for it.
        """
        from yelpaze.flow.streaming import stream  # noqa: PLC0415  loads the HTTP client

        return stream(
            self.plan, rows, concurrency=concurrency, workers=workers, batch=batch, engine=engine or {}
        )


def _predicate(accept: Collection[int] | Accept | None) -> Accept | None:
    if accept is None or callable(accept):
        return accept
    statuses = frozenset(accept)
    return lambda outcome: outcome.status in statuses
