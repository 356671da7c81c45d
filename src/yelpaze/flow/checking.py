"""A flow in words: its steps in the order in which they can run, what each takes and gives."""

from typing import Any, get_type_hints

from yelpaze.flow.drawing import ranks_of
from yelpaze.flow.graph import Node
from yelpaze.flow.plan import Plan
from yelpaze.flow.step import Step


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
