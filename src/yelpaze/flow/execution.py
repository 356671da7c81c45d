"""One row on its way through the graph: no task, only callbacks.

    start ─→ each step whose needs are met ─→ its calls ─→ its value ─→ the steps that waited
                                   │                         │
                                   └── a failure ends the row (or is the value, if optional)

The row is over once the last step has a value or a step has failed; calls that are still
under way then are cancelled.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from yelpaze.compute.handler import fault_of
from yelpaze.compute.protocol import CallError, Fault
from yelpaze.flow.arguments import encoded, own, pack, pack_row, size_of, unpack
from yelpaze.flow.context import RunContext
from yelpaze.flow.failure import Failure, is_transient, of_fault, of_outcome
from yelpaze.flow.graph import ROW, Graph, Node
from yelpaze.http.timers import Timer
from yelpaze.io.protocol import BadRow
from yelpaze.model.errors import MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request

OnEnd = Callable[["RowExecution", Any, Failure | None], None]
SKIPPED = object()
_NONE_YET = object()
_NEVER = float("inf")
_NOT_NEEDED = 1 << 30
_LARGE = 64 << 10  # bytes of a result
_LEAST = 0.001  # seconds for a CPU step of a row that is past its deadline: it fails as too slow


class RowExecution:
    """The state of one row; `context` holds all that rows share."""

    __slots__ = (
        "_calls",
        "_context",
        "_deadline_at",
        "_held",
        "_left",
        "_on_end",
        "_on_parked",
        "_order",
        "_parked",
        "_pause",
        "_tries",
        "_values",
        "began",
        "number",
        "over",
        "raw",
        "trace_id",
        "value",
    )

    def __init__(
        self,
        context: RunContext,
        number: int,
        raw: bytes | None,
        value: Any,
        on_end: OnEnd,
        on_parked: Callable[[int], None],
    ) -> None:
        self._context = context
        self._on_end = on_end
        self._on_parked = on_parked
        self.number = number
        self.raw = raw
        self.value = value
        self.trace_id = context.new_trace_id()
        self.over = False
        self._values: list[Any] = [_NONE_YET] * len(context.graph.nodes)
        self._left = list(context.waits)
        self._calls: dict[Any, None] = {}
        self._parked = 0
        self._held = 0
        self._tries = 0
        self._pause: Timer | None = None
        self._order = context.engine.next_order()
        self.began = context.engine.clock()
        self._deadline_at = self.began + context.deadline

    @property
    def graph(self) -> Graph:
        """The flow's."""
        return self._context.graph

    def start(self) -> None:
        """Begin with the steps that need no other."""
        if type(self.value) is BadRow:
            self._finish(None, Failure(step=None, kind="input", message=self.value.message))
            return
        for number in self._context.graph.first:
            if not self.over:
                self._run(self._context.graph.nodes[number])

    def start_with(self, answers: Mapping[int, Any]) -> None:
        """Begin where these answers of steps (by number) are known; only what still needs to run does."""
        graph = self._context.graph
        self._values = [answers.get(number, _NONE_YET) for number in range(len(graph.nodes))]
        needed, ahead = set(), [graph.last]
        while ahead:
            number = ahead.pop()
            if number not in needed and number not in answers:
                needed.add(number)
                ahead += [p.source for p in graph.nodes[number].parameters if p.source != ROW]
        self._left = [
            sum(p.source != ROW and p.source not in answers for p in node.parameters)
            if node.number in needed
            else _NOT_NEEDED
            for node in graph.nodes
        ]
        for number in sorted(needed):
            if not self._left[number] and not self.over and self._values[number] is _NONE_YET:
                self._run(graph.nodes[number])

    def answers(self) -> dict[int, Any]:
        """What the request steps that succeeded have got, by the step's number."""
        return {
            node.number: value
            for node, value in zip(self._context.graph.nodes, self._values, strict=True)
            if not node.step.is_compute and value is not _NONE_YET and not _has_failure(value)
        }

    def on_parked(self, change: int) -> None:
        """Some call of the row waits for its host, or no longer does."""
        before, self._parked = self._parked, self._parked + change
        if bool(before) != bool(self._parked):
            self._on_parked(change)

    def cancel(self) -> None:
        """Stop without an end."""
        self.over = True
        self._drop_calls()
        if self._pause is not None:
            self._pause.cancel()
        self.let_go()

    def let_go(self) -> None:
        """The row holds no answers, and no result, any more."""
        if self._held:
            self._context.engine.hold(self._order, 0)
            self._held = 0

    def _drop_calls(self) -> None:
        for call in self._calls:
            call.cancel()
        self._calls.clear()

    # ── steps ───────────────────────────────────────────────────────────────────

    def _run(self, node: Node) -> None:
        for parameter in node.parameters:
            if parameter.source != ROW:
                value = self._values[parameter.source]
                if value is SKIPPED and not parameter.want.accepts_none:
                    self._settle(node, SKIPPED)
                    return
        try:
            packed = [
                pack_row(parameter, self.raw, self.value, coerce=self._context.coerce)
                if parameter.source == ROW
                else pack(parameter, self._value(parameter.source))
                for parameter in node.parameters
            ]
            if node.step.is_compute:
                self._compute(node, packed)
                return
            self._request(node, node.step.function(**unpack(node, packed)))
        except CallError as error:
            failure = self._failure(node, error.kind, str(error), answer_of=error.source or None)
            self._failed(node, failure)
        except MisuseError as error:
            self._failed(node, self._failure(node, "misuse", str(error)))
        except BaseException as error:  # noqa: BLE001  the user's own code
            self._failed(node, of_fault(node.step.name, fault_of(error), self.trace_id))

    def _value(self, number: int) -> Any:
        value, node = self._values[number], self._context.graph.nodes[number]
        if value is SKIPPED:
            return None
        return own(value) if node.step.is_compute and len(node.needed_by) > 1 else value

    def _failure(self, node: Node, kind: str, message: str, answer_of: str | None = None) -> Failure:
        step = None if kind == "input" else node.step.name
        return Failure(step=step, kind=kind, message=message, trace_id=self.trace_id, answer_of=answer_of)

    def _request(self, node: Node, made: Any) -> None:
        if type(made) is Request:
            self._send(node, made, 0, lambda outcome: self._answered(node, outcome))
        elif made is None:
            self._settle(node, SKIPPED)
        elif isinstance(made, list | tuple):
            self._request_many(node, list(range(len(made))), list(made), list)
        elif isinstance(made, dict):
            self._request_many(node, list(made), list(made.values()), dict)
        else:
            wanted = "a request step returns a request, a list or dict of requests, or None"
            self._failed(node, self._failure(node, "exception", f"{wanted}, not {type(made).__name__}"))

    def _send(self, node: Node, request: Request, item: Any, on_done: Callable[[Outcome], None]) -> None:
        call: Any = None
        context = self._context
        if node.step.idempotency_key:
            request = context.keyed(request, f"{self.number}/{node.step.name}/{item}")

        def done(outcome: Outcome) -> None:
            self._calls.pop(call, None)
            for attempt in outcome.attempts:
                if attempt.status:
                    context.latency[node.number].add(attempt.seconds)
            if outcome.body:
                self._held += len(outcome.body)
                context.engine.hold(self._order, self._held)
            if not self.over:
                on_done(outcome)

        call = context.submit(
            node,
            request,
            done,
            trace_id=self.trace_id,
            park_listener=self,
            deadline_at=self._deadline_at,
            order=self._order,
        )
        if not call.abandoned:
            self._calls[call] = None

    def _value_of(self, node: Node, outcome: Outcome) -> Outcome | Failure:
        accept = node.step.accept
        good = accept(outcome) if accept and outcome.status else outcome.error is None
        return outcome if good else of_outcome(node.step.name, outcome, self._context.secrets)

    def _answered(self, node: Node, outcome: Outcome) -> None:
        try:
            value = self._value_of(node, outcome)
        except BaseException as error:  # noqa: BLE001  the user's predicate
            value = of_fault(node.step.name, fault_of(error), self.trace_id)
        if type(value) is Failure:
            self._failed(node, value)
        else:
            self._settle(node, value)

    def _request_many(self, node: Node, names: list[Any], made: list[Any], kind: type[Any]) -> None:
        wrong = [item for item in made if type(item) is not Request]
        if wrong:
            message = f"a list or dict of requests holds a {type(wrong[0]).__name__}"
            self._failed(node, self._failure(node, "exception", message))
            return
        if not made:
            self._settle(node, kind())
            return
        arrived: dict[Any, Any] = {}

        def done(name: Any, outcome: Outcome) -> None:
            try:
                value: Any = self._value_of(node, outcome)
            except BaseException as error:  # noqa: BLE001  the user's predicate
                value = of_fault(node.step.name, fault_of(error), self.trace_id)
            if type(value) is Failure and not node.step.optional:
                self._failed(node, value)
                return
            arrived[name] = value
            if len(arrived) == len(names):
                ordered = {name: arrived[name] for name in names}
                self._settle(node, ordered if kind is dict else list(ordered.values()))

        for name, request in zip(names, made, strict=True):
            if self.over:
                return
            self._send(node, request, name, lambda outcome, name=name: done(name, outcome))  # type: ignore[misc]

    def _compute(self, node: Node, packed: list[Any]) -> None:
        context = self._context
        as_json = context.as_json and node.number == context.graph.last
        tries = self._tries

        def done(value: Any, fault: Fault | None) -> None:
            if self.over or tries != self._tries:
                return
            if fault is None:
                self._settle(node, value)
            else:
                step = None if fault.kind == "input" else node.step.name
                self._failed(node, of_fault(step, fault, self.trace_id))

        timeout = node.step.timeout
        if self._deadline_at < _NEVER:
            timeout = max(_LEAST, min(timeout or _NEVER, self._deadline_at - context.engine.clock()))
        size = sum(map(size_of, packed))
        context.compute.submit(node.number, (packed, as_json), done, timeout=timeout, size=size)

    # ── ends ────────────────────────────────────────────────────────────────────

    def _settle(self, node: Node, value: Any) -> None:
        """The step has its value: start what waited for it."""
        if node.number == self._context.graph.last:
            self._end(None if value is SKIPPED else value, node)
            return
        self._values[node.number] = value
        left, nodes = self._left, self._context.graph.nodes
        for number in node.needed_by:
            left[number] -= 1
            if not left[number] and not self.over:
                self._run(nodes[number])

    def _failed(self, node: Node, failure: Failure) -> None:
        if self.over:
            return
        passed_on = node.step.optional and node.number != self._context.graph.last
        if node.step.is_compute and self._context.compute.broken:
            passed_on = False  # that is not the row's failure
        if passed_on and failure.kind != "input":
            self._settle(node, failure)
        else:
            self._finish(None, failure)

    def _end(self, value: Any, node: Node) -> None:
        if self._context.as_json and not (node.step.is_compute and type(value) is bytes):
            try:
                value = encoded(_plain(value))
            except CallError as error:
                self._finish(None, self._failure(node, error.kind, str(error)))
                return
            except BaseException as error:  # noqa: BLE001  encoding runs user code
                self._finish(None, self._failure(node, "result", f"{type(error).__name__}: {error}"))
                return
        self._finish(value, None)

    def _finish(self, value: Any, failure: Failure | None) -> None:
        context = self._context
        if failure is not None and self._tries < context.row_retries and is_transient(failure):
            self._tries += 1
            self.over = True  # until then
            self._drop_calls()
            self.on_parked(1)
            pause = context.row_pause(self._tries)
            self._pause = context.engine.call_later(pause, self._again)
            return
        self.cancel()
        if type(value) is bytes and len(value) > _LARGE:  # it counts until it is written
            self._held = len(value)
            context.engine.hold(self._order, self._held)
        self._on_end(self, value, failure)

    def _again(self) -> None:
        """The row failed and is run again: its failed branches only."""
        self._pause = None
        self.over = False
        self.on_parked(-1)
        self._deadline_at = self._context.engine.clock() + self._context.deadline
        self.start_with(self.answers())


def _has_failure(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
    return any(isinstance(item, Failure) for item in items)


def _plain(value: Any) -> Any:
    """A last step's answers as JSON: the body itself where it is JSON, else its text."""
    if isinstance(value, Outcome):
        try:
            return value.json()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
