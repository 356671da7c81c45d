"""What the rows of one run share: graph, engine, compute backend, counters."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from yelpaze.compute.inline import Inline
from yelpaze.compute.processes import Processes
from yelpaze.compute.protocol import Compute, Target
from yelpaze.flow.flow import Flow
from yelpaze.flow.graph import Node
from yelpaze.flow.loading import reference
from yelpaze.http.engine import Engine
from yelpaze.http.options import Aside, Defaults, Pending
from yelpaze.model.errors import FlowError, MisuseError
from yelpaze.model.histogram import Histogram
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request


class Machine:
    """Made once a run, for all its rows. `as_json`: the last value is wanted encoded."""

    def __init__(self, flow: Flow, engine: Engine, compute: Compute, *, as_json: bool) -> None:
        self.graph = flow.graph()
        self.waits = tuple(node.waits_for for node in self.graph.nodes)
        self.engine = engine
        self.compute = compute
        self.as_json = as_json
        self.latency = Histogram()
        self._deadline = flow.deadline
        self._defaults = [
            Defaults(node.step.idempotent, node.step.limits, node.step.retry) for node in self.graph.nodes
        ]
        self._bits = random.Random().getrandbits  # noqa: S311  ids need no secrecy

    def submit(
        self,
        node: Node,
        request: Request,
        on_done: Callable[[Outcome], None],
        *,
        trace_id: str,
        aside: Aside,
        deadline_at: float,
    ) -> Pending:
        """Make a call of that step as part of a row."""
        return self.engine.submit(
            request,
            on_done,
            trace_id=trace_id,
            defaults=self._defaults[node.number],
            aside=aside,
            deadline_at=deadline_at,
        )

    def deadline_of_row(self) -> float:
        """The time by which a row that starts now must be done."""
        return self.engine.clock() + self._deadline if self._deadline else float("inf")

    def new_trace_id(self) -> str:
        """A row's trace id."""
        return "%032x" % (self._bits(128) or 1)


def engine_for(flow: Flow, *, concurrency: int, overrides: Mapping[str, Any] | None = None) -> Engine:
    """The engine that the flow asks for, wide enough for `concurrency` rows; not yet open.

    `overrides` are engine options from the command line, which win. Raises FlowError for
    options that make no sense.
    """
    calls = concurrency * flow.graph().widest
    options: dict[str, Any] = {"concurrency": calls, **flow.engine_options, **(overrides or {})}
    if "limit" not in options:
        options.setdefault("per_host", calls)
    try:
        return Engine(**options)
    except (TypeError, MisuseError) as error:
        reason = str(error).replace("Engine.__init__() got an ", "")
        raise FlowError(f"{flow.where}: Flow(engine=…): {reason}") from None


@asynccontextmanager
async def machine_for(
    flow: Flow, engine: Engine, *, workers: int, batch: int, as_json: bool
) -> AsyncIterator[Machine]:
    """Open the engine and the compute backend for a flow, and close them after it."""
    compute = _compute_for(flow, workers=workers, batch=batch)
    try:
        await compute.start()
        async with engine:
            yield Machine(flow, engine, compute, as_json=as_json)
    finally:
        await compute.close()


def _compute_for(flow: Flow, *, workers: int, batch: int) -> Compute:
    if not workers or not flow.graph().has_compute:
        return Inline(Target("yelpaze.flow.loading:handler_of", (flow,)))
    target = Target("yelpaze.flow.loading:build_handler", (reference(flow),))
    return Processes(target, workers=workers, batch=batch)
