"""For programs without an event loop: `Engine`, which lives on, and `run`, for one piece of work."""

import asyncio
from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping
from typing import Any, overload

from yelpaze.flow.flow import Flow
from yelpaze.flow.result import Result
from yelpaze.http.blocking_engine import BlockingEngine as Engine
from yelpaze.http.engine import Engine as AsyncEngine
from yelpaze.jobs.job import Job
from yelpaze.jobs.options import Summary
from yelpaze.model.errors import MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request
from yelpaze.process.parenthood import is_loading

__all__ = ["Engine", "run"]


@overload
def run(what: Flow, rows: Iterable[Any] | AsyncIterable[Any], **options: Any) -> list[Result]: ...
@overload
def run(what: Job, *, progress: bool = False) -> Summary: ...
@overload
def run(what: Mapping[str, Request], **options: Any) -> dict[str, Outcome]: ...
@overload
def run(what: Request, **options: Any) -> Outcome: ...
@overload
def run(what: Iterable[Request], **options: Any) -> list[Outcome]: ...
@overload
def run(what: Coroutine[Any, Any, Any], **options: Any) -> Any: ...
def run(what: Any, rows: Any = None, **options: Any) -> Any:
    """Run a flow over rows, or make calls, and wait for all of it.

    - `run(flow, rows, workers=2)`: a list of results in the rows' order.
    - `run({"user": get(...), "orders": get(...)})`: a dict of outcomes.
    - `run([get(...), get(...)])`: a list of outcomes in order; `run(get(...))`: one outcome.
    - `run(Job(flow, "rows.jsonl"), progress=True)`: its summary.
    - `run(coroutine)`: what it returns.

    Other options are those of `Flow.stream`, or of `Engine`. Not to be called from async code.
    """
    if is_loading():
        raise MisuseError(
            "run() would run this file's work while it is imported, by a command or a worker process: "
            'put the call under `if __name__ == "__main__":`'
        )
    _refuse_inside_a_loop(what)
    if isinstance(what, Job):
        return asyncio.run(what.run(**options))
    if isinstance(what, Flow):
        if rows is None:
            raise MisuseError("run(flow, rows): give the rows")
        return asyncio.run(what.run(rows, **options))
    if isinstance(what, Coroutine):
        return asyncio.run(what)
    return asyncio.run(_call(what, options))


def _refuse_inside_a_loop(what: Any) -> None:
    """Say what to write instead. Raises MisuseError."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if isinstance(what, Coroutine):
        what.close()
    instead = (
        "await flow.run(rows)"
        if isinstance(what, Flow)
        else "await job.run()"
        if isinstance(what, Job)
        else "await it"
        if isinstance(what, Coroutine)
        else "async with Engine() as engine: await engine.send(…), or engine.gather({…})"
    )
    raise MisuseError(f"yelpaze.run() blocks, and an event loop is running here: write `{instead}`")


async def _call(what: Any, options: dict[str, Any]) -> Any:
    async with AsyncEngine(**options) as engine:
        if isinstance(what, Request):
            return await engine.send(what)
        if isinstance(what, Mapping):
            return await engine.gather(what)
        if isinstance(what, Iterable) and not isinstance(what, str):
            return [outcome async for outcome in engine.stream(what, ordered=True)]
    raise MisuseError(f"run() takes a flow, requests or a coroutine, not {type(what).__name__}")
