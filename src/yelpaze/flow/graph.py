"""The graph of a flow: found from the parameters' names, checked before the first call."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec

from yelpaze.flow.annotation import Want, want_of
from yelpaze.flow.step import Step
from yelpaze.model.errors import FlowError

Steps = Mapping[str, Step]

ROW = -1
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Parameter(msgspec.Struct, frozen=True):
    """One argument of a step: where it comes from (a step's number, or ROW), and as what."""

    name: str
    source: int
    want: Want


class Node(msgspec.Struct, frozen=True):
    """A step in its place: its parameters, how many steps it waits for, and who waits for it."""

    number: int
    step: Step
    parameters: tuple[Parameter, ...]
    waits_for: int
    needed_by: tuple[int, ...]


class Graph(msgspec.Struct, frozen=True):
    """Nodes in an order in which each stands after all that it needs."""

    nodes: tuple[Node, ...]
    first: tuple[int, ...]
    last: int

    @property
    def has_compute(self) -> bool:
        """Whether any step needs the compute backend."""
        return any(node.step.is_compute for node in self.nodes)

    @property
    def widest(self) -> int:
        """How many request steps one row may have under way at once, at most."""
        return max(1, sum(not node.step.is_compute for node in self.nodes))


def build(flow: str, where: str, steps: Steps) -> Graph:
    """Build and check the graph of the flow with that name. Raises FlowError, with file and line."""
    if not steps:
        raise FlowError(f"{where}: the flow {flow!r} has no steps: add one with @flow.request")
    wanted = {name: _parameters(step, steps) for name, step in steps.items()}
    needs = {
        name: [parameter for parameter, _, _ in parameters if parameter != "row"]
        for name, parameters in wanted.items()
    }
    order = _sorted(steps, needs)
    number = {name: position for position, name in enumerate(order)}
    needed_by: dict[str, list[int]] = {name: [] for name in order}
    for name in order:
        for source in needs[name]:
            needed_by[source].append(number[name])
    _check_one_end(flow, steps, needed_by)
    nodes = []
    for name in order:
        step = steps[name]
        parameters = tuple(
            Parameter(
                parameter,
                ROW if parameter == "row" else number[parameter],
                _want(steps, step, parameter, kind, given=given),
            )
            for parameter, kind, given in wanted[name]
        )
        _check_failures_wanted(steps, step, parameters, order)
        nodes.append(Node(number[name], step, parameters, len(needs[name]), tuple(needed_by[name])))
    first = tuple(node.number for node in nodes if not node.waits_for)
    return Graph(tuple(nodes), first, len(nodes) - 1)


def _want(steps: Steps, step: Step, name: str, kind: Any, *, given: bool) -> Want:
    decodes = name == "row" or not steps[name].is_compute
    try:
        return want_of(kind, given=given, decodes=decodes, is_compute=step.is_compute)
    except Exception as error:  # noqa: BLE001  msgspec evaluates the type's own annotations
        raise FlowError(
            f"{step.where}: step {step.name!r}: {name!r} can't be decoded from JSON to {kind}: {error}"
        ) from None


def _parameters(step: Step, steps: Steps) -> list[tuple[str, Any, bool]]:
    try:
        hints = get_type_hints(step.function)
        signature = inspect.signature(step.function)
    except Exception as error:  # noqa: BLE001  annotations are code
        raise FlowError(f"{step.where}: step {step.name!r}: an annotation can't be read: {error}") from None
    found = []
    for name, parameter in signature.parameters.items():
        if name != "row" and name not in steps and parameter.default is not parameter.empty:
            continue  # a plain default of the function's own
        if parameter.kind not in _BY_NAME:
            raise FlowError(
                f"{step.where}: step {step.name!r}: parameters name the steps it needs, "
                f"so `{parameter}` can't be used"
            )
        if name != "row" and name not in steps:
            raise FlowError(_unknown(step, name, steps))
        found.append((name, hints.get(name), name in hints))
    return found


def _unknown(step: Step, name: str, steps: Steps) -> str:
    close = difflib.get_close_matches(name, [*steps, "row"], n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"steps are: {', '.join(steps)}"
    return f"{step.where}: step {step.name!r} needs {name!r}, which is neither `row` nor a step; {hint}"


def _sorted(steps: Steps, needs: dict[str, list[str]]) -> list[str]:
    """Depth first, in the order of definition; a step met again on its own path is a cycle."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            circle = [*path[path.index(name) :], name]
            raise FlowError(
                f"{steps[name].where}: the steps need each other in a circle: {' → '.join(circle)}"
            )
        path.append(name)
        for source in needs[name]:
            visit(source)
        path.pop()
        order.append(name)

    for name in needs:
        visit(name)
    # The end last, whichever way the steps were written.
    ends = [name for name in order if all(name not in sources for sources in needs.values())]
    return [name for name in order if name not in ends] + ends


def _check_one_end(flow: str, steps: Steps, needed_by: dict[str, list[int]]) -> None:
    ends = [name for name, waiting in needed_by.items() if not waiting]
    if len(ends) != 1:
        places = ", ".join(f"{name!r} ({steps[name].where})" for name in ends)
        raise FlowError(
            f"{steps[ends[-1]].where}: the flow {flow!r} must end in one step, its result, "
            f"but nothing needs {places}: add a last step that takes them all"
        )


def _check_failures_wanted(
    steps: Steps, step: Step, parameters: tuple[Parameter, ...], order: list[str]
) -> None:
    for parameter in parameters:
        source = steps[order[parameter.source]] if parameter.source != ROW else None
        if source is not None and source.optional and not parameter.want.accepts_failure:
            raise FlowError(
                f"{step.where}: step {step.name!r} takes {parameter.name!r}, which is optional and may be "
                f"a Failure: annotate it `… | Failure`"
            )


def result_type(graph: Graph) -> Any:
    """The type that the last step declares to return; Any if it declares none."""
    step = graph.nodes[graph.last].step
    return get_type_hints(step.function).get("return", Any) if step.is_compute else Any
