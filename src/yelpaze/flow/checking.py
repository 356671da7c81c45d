"""A flow in words: its steps in the order in which they can run, what each takes and gives."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

from yelpaze.flow.drawing import ranks_of
from yelpaze.flow.graph import ROW, Node
from yelpaze.flow.plan import Plan
from yelpaze.flow.step import Step

_LIKE_JSON = frozenset({"[…]", ".get", ".items", ".keys", ".values"})
_LIKE_RESPONSE = frozenset({".status", ".json", ".body", ".text", ".headers", ".ok"})


def description(plan: Plan) -> list[str]:
    """Lines for people. Raises FlowError for a flow that cannot run."""
    graph = plan.graph()
    ranks = ranks_of(graph)
    lines = [f"{plan.name} ({plan.where})"]
    if plan.deadline is not None:
        lines.append(f"  a row has {plan.deadline:g} s")
    for rank in sorted(set(ranks)):
        nodes = [node for node in graph.nodes if ranks[node.number] == rank]
        together = ", at the same time" if len(nodes) > 1 else ""
        lines.append(f"stage {rank}{together}:")
        lines += [f"  {_signature(node)}{_options(node.step)}" for node in nodes]
    last = graph.nodes[graph.last].step
    return [*lines, f"result: {last.name} → {_returned(last)}"]


def warnings(plan: Plan) -> list[str]:
    """What can run, and looks like a mistake: a parameter without annotation, used like what it is not."""
    found = []
    for node in plan.graph().nodes:
        kinds = {True: _LIKE_RESPONSE, False: _LIKE_JSON}
        for name, use in _uses(node.step.function):
            parameter = next((one for one in node.parameters if one.name == name), None)
            if parameter is None or parameter.source == ROW or parameter.want.is_given:
                continue
            if plan.graph().nodes[parameter.source].step.is_compute or use not in kinds[node.step.is_compute]:
                continue
            is_json = not node.step.is_compute
            gets = "the response" if is_json else "the decoded JSON body"
            found.append(
                f"{node.step.where}: {node.step.name} gets {gets} as {name!r}, and uses it like "
                f"{'decoded JSON' if is_json else 'a response'} ({use}): annotate it "
                f"`{name}: {'dict' if is_json else 'Response'}`"
            )
    return list(dict.fromkeys(found))


def _uses(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Pairs of a name in the function's source and what is done with it: `[…]`, `.items` and so on."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source, as of a lambda in an expression
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            yield node.value.id, "[…]"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, f".{node.attr}"


def _signature(node: Node) -> str:
    hints = get_type_hints(node.step.function)
    parameters = ", ".join(
        f"{p.name}: {_name(hints[p.name])}" if p.name in hints else p.name for p in node.parameters
    )
    return f"{node.step.name}({parameters})"


def _options(step: Step) -> str:
    words = ["compute" if step.is_compute else "request"]
    if step.optional:
        words.append("optional")
    if step.idempotent is not None:
        words.append("idempotent" if step.idempotent else "not idempotent")
    if step.idempotency_key:
        words.append("with an Idempotency-Key")
    if step.accept is not None:
        words.append("with its own idea of failure")
    if step.is_compute:
        words.append(f"{step.timeout:g} s at the most")
    if step.retry is False:
        words.append("one attempt")
    return f"  [{', '.join(words)}]"


def _returned(step: Step) -> str:
    if not step.is_compute:
        return "the answer's JSON, or its text"
    hints = get_type_hints(step.function)
    return _name(hints["return"]) if "return" in hints else "anything that JSON can carry (no annotation)"


def _name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return (
        text.replace("typing.", "").replace("yelpaze.flow.failure.", "").replace("yelpaze.model.outcome.", "")
    )
