"""What the rows of one run share: graph, engine, compute backend, counters."""

import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from typing import Any

import msgspec

from yelpaze.compute.inline import Inline
from yelpaze.compute.processes import Processes
from yelpaze.compute.protocol import Compute, EntryPoint
from yelpaze.compute.workers import LOCAL, Workers
from yelpaze.flow.codec import FlowCodec
from yelpaze.flow.graph import Node
from yelpaze.flow.handler import reference
from yelpaze.flow.plan import Plan
from yelpaze.http.engine import Engine
from yelpaze.http.options import Defaults, ParkListener, Pending
from yelpaze.model.errors import FlowError, MisuseError
from yelpaze.model.extras import require
from yelpaze.model.histogram import Histogram
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request
from yelpaze.model.secrets import Secrets

_PAUSE_BASE, _PAUSE_CAP = 1.0, 60.0  # seconds


class ExecutionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are run.

    - `as_json`: the last value is wanted encoded; `coerce`: rows are texts, as in CSV.
    - `row_retries`: how often a row that failed is run again; `row_deadline`: seconds for a row.
    - `key`: what makes the Idempotency-Keys of this run its own.
    """

    as_json: bool = False
    coerce: bool = False
    row_retries: int = 0
    row_deadline: float | None = None
    key: str = ""


class RunContext:
    """Made once a run, for all its rows."""

    def __init__(self, plan: Plan, engine: Engine, compute: Compute, options: ExecutionOptions) -> None:
        self.graph = plan.graph()
        self.waits = tuple(node.waits_for for node in self.graph.nodes)
        self.engine = engine
        self.compute = compute
        self.secrets = Secrets((*plan.secrets, *engine.secret_headers))
        self.as_json, self.coerce = options.as_json, options.coerce
        self.row_retries = options.row_retries
        self.latency = [Histogram() for _ in self.graph.nodes]
        self.deadline = options.row_deadline or plan.deadline or float("inf")
        self._key = uuid.UUID(bytes=blake2b(options.key.encode(), digest_size=16).digest())
        self._uniform = random.Random().uniform  # noqa: S311  pauses need no secrecy
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
        park_listener: ParkListener,
        deadline_at: float,
        order: int,
    ) -> Pending:
        """Make a call of that step as part of a row."""
        return self.engine.submit(
            request,
            on_done,
            trace_id=trace_id,
            defaults=self._defaults[node.number],
            park_listener=park_listener,
            deadline_at=deadline_at,
            order=order,
        )

    def row_pause(self, tries: int) -> float:
        """Seconds before a failed row is run again: full jitter, as for calls."""
        return self._uniform(0, min(_PAUSE_CAP, _PAUSE_BASE * 2**tries))

    def keyed(self, request: Request, place: str) -> Request:
        """The request with an Idempotency-Key that is the same whenever the run comes to that place."""
        if request.has_idempotency_key:
            return request
        key = uuid.uuid5(self._key, place)
        return msgspec.structs.replace(request, headers=(*request.headers, ("Idempotency-Key", f'"{key}"')))

    def new_trace_id(self) -> str:
        """A row's trace id."""
        return "%032x" % (self._bits(128) or 1)


def engine_for(plan: Plan, *, concurrency: int, overrides: Mapping[str, Any] | None = None) -> Engine:
    """The engine that the flow asks for, wide enough for `concurrency` rows; not yet open.

    `overrides` are engine options from the command line, which win. Raises FlowError for
    options that make no sense.
    """
    calls = concurrency * plan.graph().widest
    chosen: dict[str, Any] = {"concurrency": calls, **plan.engine_options, **(overrides or {})}
    if "limit" not in chosen:
        chosen.setdefault("per_host", calls)
    try:
        return Engine(**chosen)
    except (TypeError, MisuseError) as error:
        reason = str(error).replace("Engine.__init__() got an ", "")
        raise FlowError(f"{plan.where}: Flow(engine=…): {reason}") from None


@asynccontextmanager
async def open_context(
    plan: Plan, engine: Engine, *, workers: int | Workers, batch: int, options: ExecutionOptions
) -> AsyncIterator[RunContext]:
    """Open the engine and the compute backend for a flow, and close them after it."""
    async with AsyncExitStack() as stack:
        compute = await _compute_for(plan, stack, workers=workers, batch=batch)
        stack.push_async_callback(compute.close)
        await compute.start()
        await stack.enter_async_context(engine)
        yield RunContext(plan, engine, compute, options)


async def _compute_for(plan: Plan, stack: AsyncExitStack, *, workers: int | Workers, batch: int) -> Compute:
    if not workers or not plan.graph().has_compute:
        return Inline(EntryPoint("yelpaze.flow.handler:handler_of", (plan,)))
    if isinstance(workers, int):
        target = EntryPoint("yelpaze.flow.handler:build_handler", (reference(plan),))
        return Processes(target, workers=workers, batch=batch)
    require("grpc", "workers at an address")
    from yelpaze.compute.remote import Remote  # noqa: PLC0415  needs an extra

    codec = FlowCodec(plan)
    if LOCAL in workers.targets:
        from yelpaze.compute.local import with_local  # noqa: PLC0415  Unix only

        ref = reference(plan)
        workers = await with_local(workers, f"{ref.path}:{ref.variable}", codec.unit, stack)
    return Remote(workers, codec, batch=batch)
