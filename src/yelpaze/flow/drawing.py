"""A flow's graph as Mermaid, SVG, or plain text."""

from html import escape

from yelpaze.flow.graph import ROW, Graph, Node
from yelpaze.flow.plan import Plan

_LEAST_WIDTH, _LETTER, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 150, 9, 44, 60, 22, 20


def edges_of(graph: Graph) -> list[tuple[int, int]]:
    """Who needs whom: (source, step), ROW being the input record."""
    found = {(parameter.source, node.number) for node in graph.nodes for parameter in node.parameters}
    starts = {(ROW, node.number) for node in graph.nodes if not node.parameters}
    return sorted(found | starts)


def mermaid(plan: Plan) -> str:
    """A Mermaid flowchart: rounded boxes call, square ones compute, dashed ones are optional."""
    graph = plan.graph()
    lines = ["flowchart LR", "    row([row])"]
    for node in graph.nodes:
        name = node.step.name
        shape = f'["{name}"]' if node.step.is_compute else f'("{name}")'
        lines.append(f"    {_id(name)}{shape}")
    for source, target in edges_of(graph):
        begin = "row" if source == ROW else _id(graph.nodes[source].step.name)
        optional = source != ROW and graph.nodes[source].step.optional
        lines.append(f"    {begin} {'-.->' if optional else '-->'} {_id(graph.nodes[target].step.name)}")
    return "\n".join([*lines, f"    {_id(graph.nodes[graph.last].step.name)} --> result([result])"]) + "\n"


def _id(name: str) -> str:
    return f"s_{name}"  # no word of Mermaid's own, nor `row` or `result`


def ranks_of(graph: Graph) -> list[int]:
    """Each step's column: one after the last that it needs; the row stands in column 0."""
    ranks: list[int] = []
    for node in graph.nodes:
        sources = [ranks[p.source] for p in node.parameters if p.source != ROW]
        ranks.append(1 + max(sources, default=0))
    return ranks


def svg(plan: Plan) -> str:
    """The graph from left to right: what stands in one column runs at the same time."""
    graph = plan.graph()
    ranks = ranks_of(graph)
    wide = max(_LEAST_WIDTH, *(20 + _LETTER * len(node.step.name) for node in graph.nodes))
    columns: dict[int, list[int]] = {0: [ROW]}
    for node in graph.nodes:
        columns.setdefault(ranks[node.number], []).append(node.number)
    tallest = max(len(column) for column in columns.values())
    height = 2 * _EDGE + tallest * (_HEIGHT + _GAP_Y) - _GAP_Y
    width = 2 * _EDGE + len(columns) * (wide + _GAP_X) - _GAP_X
    places: dict[int, tuple[float, float]] = {}
    for rank, column in columns.items():
        top = (height - len(column) * (_HEIGHT + _GAP_Y) + _GAP_Y) / 2
        for place, number in enumerate(column):
            places[number] = (_EDGE + rank * (wide + _GAP_X), top + place * (_HEIGHT + _GAP_Y))
    arrows = [
        _arrow(
            places[source], places[target], wide, dashed=source != ROW and graph.nodes[source].step.optional
        )
        for source, target in edges_of(graph)
    ]
    boxes = [_box("row", "input", *places[ROW], wide, fill="#f3f4f6", round_=22)]
    boxes += [_node(node, *places[node.number], wide) for node in graph.nodes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2933">'
        '<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,1 L7,4 L0,7 z" fill="#6b7280"/></marker></defs>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(arrows)}{"".join(boxes)}</svg>\n'
    )


def _node(node: Node, x: float, y: float, wide: int) -> str:
    step = node.step
    what = "compute" if step.is_compute else "request"
    text = f"{what}, optional" if step.optional else what
    fill = "#fdf1dc" if step.is_compute else "#dcefef"
    return _box(
        step.name, text, x, y, wide, fill=fill, round_=4 if step.is_compute else 12, dashed=step.optional
    )


def _box(
    name: str, text: str, x: float, y: float, wide: int, *, fill: str, round_: int, dashed: bool = False
) -> str:
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    middle = x + wide / 2
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide}" height="{_HEIGHT}" rx="{round_}" fill="{fill}" '
        f'stroke="#6b7280"{dash}/>'
        f'<g text-anchor="middle"><text x="{middle:.0f}" y="{y + 19:.0f}" font-weight="600">{escape(name)}'
        f'</text><text x="{middle:.0f}" y="{y + 35:.0f}" font-size="11" fill="#52606d">{text}</text></g>'
    )


def _arrow(begin: tuple[float, float], end: tuple[float, float], wide: int, *, dashed: bool) -> str:
    x1, y1 = begin[0] + wide, begin[1] + _HEIGHT / 2
    x2, y2 = end[0] - 2, end[1] + _HEIGHT / 2
    bend = _GAP_X * 0.6
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return (
        f'<path d="M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}" '
        f'fill="none" stroke="#6b7280"{dash} marker-end="url(#arrow)"/>'
    )
