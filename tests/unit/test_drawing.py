"""Drawings of graphs: every step and arrow once, names that Mermaid and XML take."""

import re
import xml.etree.ElementTree as ET

import pytest

from yelpaze import Failure, Flow, get
from yelpaze.flow.checking import description, warnings
from yelpaze.flow.drawing import edges_of, mermaid, ranks_of, svg
from yelpaze.flow.graph import ROW

# Of flowcharts: github.com/mermaid-js/mermaid, flow.jison.
WORDS = {
    "row", "result", "end", "graph", "flowchart", "subgraph", "style", "linkStyle", "classDef", "class", "click",
    "default", "interpolate",
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def diamond() -> Flow:
    flow = Flow("diamond")

    @flow.request
    def base(row: dict):
        return get("http://a.test/")

    @flow.request(optional=True)
    def left(base: dict):
        return get("http://a.test/")

    @flow.request
    def right(base: dict, row: dict):
        return get("http://a.test/")

    @flow.compute
    def constant():
        return 1

    @flow.compute
    def total(left: dict | Failure, right: dict, constant: int) -> int:
        return 1

    return flow


def chain(*names: str) -> Flow:
    """Steps of these names, each needing the one before."""
    flow, before = Flow("chain"), "row"
    for name in names:
        space: dict = {}
        exec(f"def {name}({before}): return None", space)
        flow.compute(space[name])
        before = name
    return flow


def test_edges_and_columns():
    graph = diamond().graph()
    names = [node.step.name for node in graph.nodes]
    edges = {("row" if source == ROW else names[source], names[target]) for source, target in edges_of(graph)}
    assert edges == {
        ("row", "base"),
        ("row", "right"),
        ("row", "constant"),  # it needs nothing, but runs for each row
        ("base", "left"),
        ("base", "right"),
        ("left", "total"),
        ("right", "total"),
        ("constant", "total"),
    }
    assert dict(zip(names, ranks_of(graph), strict=True)) == {
        "base": 1, "left": 2, "right": 2, "constant": 1, "total": 3,
    }  # fmt: skip


def test_mermaid():
    lines = [line.strip() for line in mermaid(diamond().plan).splitlines()]
    assert lines[:2] == ["flowchart LR", "row([row])"]
    assert set(lines[2:7]) == {
        's_base("base")', 's_left("left")', 's_right("right")', 's_constant["constant"]', 's_total["total"]',
    }  # fmt: skip
    assert "s_left -.-> s_total" in lines
    assert "s_right --> s_total" in lines
    assert lines[-1] == "s_total --> result([result])"
    assert sum(">" in line for line in lines) == 9


@pytest.mark.parametrize(
    "names",
    [
        ("end", "end_", "last"),
        ("result", "result_"),
        ("graph", "subgraph", "style", "click", "default"),
        ("linkStyle", "classDef", "interpolate"),
        ("ürün", "価格"),
    ],
)
def test_mermaid_names_are_each_ones_own_and_no_words_of_its_language(names):
    text = mermaid(chain(*names).plan)
    found = dict(re.findall(r'^ {4}(\w+)\["(\w+)"\]$', text, re.MULTILINE))
    assert sorted(found.values()) == sorted(names)
    assert not set(found) & WORDS
    arrows = re.findall(r"^ {4}(\w+) --> (\w+)", text, re.MULTILINE)
    shown = found | {"row": "row", "result": "result"}
    assert [(shown[source], shown[target]) for source, target in arrows if target != "result"] == [
        *zip(("row", *names), names, strict=False)
    ]


def boxes(drawing: ET.Element) -> list[tuple[float, float, float, float]]:
    found = []
    for rect in drawing.iter(f"{SVG}rect"):
        if rect.get("width") != "100%":
            x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def test_svg_has_every_step_and_arrow_within_its_bounds():
    flow = diamond()
    drawing = ET.fromstring(svg(flow.plan))
    width, height = float(drawing.get("width")), float(drawing.get("height"))
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    for name in ("row", *flow.plan.steps):
        assert texts.count(name) == 1
    assert "request, optional" in texts
    paths = [path for path in drawing.iter(f"{SVG}path") if path.get("marker-end")]
    assert len(paths) == 8
    assert sum(path.get("stroke-dasharray") is not None for path in paths) == 1
    found = boxes(drawing)
    assert len(found) == 6
    for x1, y1, x2, y2 in found:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    for number, (x1, y1, x2, y2) in enumerate(found):
        for a1, b1, a2, b2 in found[number + 1 :]:
            assert x2 <= a1 or a2 <= x1 or y2 <= b1 or b2 <= y1, "boxes lie on each other"


def test_a_long_name_stays_within_its_box():
    name = "prices_of_all_competitors_in_this_market"
    drawing = ET.fromstring(svg(chain(name).plan))
    x1, _, x2, _ = boxes(drawing)[1]
    (text,) = [text for text in drawing.iter(f"{SVG}text") if name.startswith((text.text or "").rstrip("…"))]
    # A bold letter of 13 px is 7 px wide or so.
    assert len(text.text) * 7 <= x2 - x1 or text.get("textLength")


def test_drawing_is_steady_and_needs_nothing_else():
    assert svg(diamond().plan) == svg(diamond())
    assert mermaid(diamond().plan) == mermaid(diamond())
    source = svg(diamond().plan)
    assert re.findall(r"https?://[^\"']+", source) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in source


def test_description():
    lines = description(diamond().plan)
    assert lines[0].startswith("diamond (")
    assert "stage 1, at the same time:" in lines
    assert "  constant()  [compute, 60 s at the most]" in lines
    assert "  total(left: dict | Failure, right: dict, constant: int)  [compute, 60 s at the most]" in lines
    assert lines[-1] == "result: total → int"
    flow = chain("one")
    assert description(flow.plan)[-1] == "result: one → anything that JSON can carry (no annotation)"


def test_a_parameter_used_like_what_it_is_not_is_warned_of():
    flow = Flow("f")

    @flow.request
    def base(row):
        return get(row["url"])

    @flow.request
    def details(base):
        return get(base["url"])

    @flow.request
    def fine(base):
        return get(base.json()["url"])

    @flow.compute
    def last(base, details, fine: dict):
        return base["x"], details.status, fine["x"]

    first, second = warnings(flow.plan)
    assert first.startswith(details_place := flow.plan.steps["details"].where)
    assert first == (
        f"{details_place}: details gets the response as 'base', and uses it like decoded JSON ([…]): "
        "annotate it `base: dict`"
    )
    assert second.endswith(
        "last gets the decoded JSON body as 'details', and uses it like a response (.status): "
        "annotate it `details: Response`"
    )
