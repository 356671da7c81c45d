"""Graph errors are found before the first call, with the line and what to do."""

import dataclasses
from typing import Any

import pytest

from yelpaze import Failure, Flow, FlowError, MisuseError, Response, get
from yelpaze.flow.annotation import want_of

URL = "http://a.test/"


def test_the_graph_follows_parameter_names():
    flow = Flow("f")

    @flow.compute
    def last(left, right, row):
        return left, right

    @flow.request
    def left(base):
        return get(URL)

    @flow.request
    def right(base):
        return get(URL)

    @flow.request
    def base(row):
        return get(URL)

    graph = flow.graph()
    assert [node.step.name for node in graph.nodes] == ["base", "left", "right", "last"]
    assert [node.waits_for for node in graph.nodes] == [0, 1, 1, 2]
    assert graph.nodes[0].needed_by == (1, 2)
    assert graph.first == (0,)
    assert graph.last == 3
    assert graph.has_compute
    assert graph.widest == 3
    assert last(1, 2, 3) == (1, 2)  # the functions stay what they were


def error_of(build) -> str:
    flow = Flow("f")
    with pytest.raises(FlowError) as caught:
        build(flow)
        flow.graph()
    message = str(caught.value)
    assert message.startswith(__file__ + ":")
    return message


def test_a_cycle_names_its_way():
    def build(flow):
        @flow.request
        def one(three): ...
        @flow.request
        def two(one): ...
        @flow.request
        def three(two): ...

    assert "one → three → two → one" in error_of(build)


def test_an_unknown_name_gets_a_hint():
    def build(flow):
        @flow.request
        def base(row): ...
        @flow.request
        def last(bsae): ...

    message = error_of(build)
    assert "'bsae'" in message
    assert "did you mean `base`?" in message


def test_two_ends_are_named():
    def build(flow):
        @flow.request
        def one(row): ...
        @flow.request
        def two(row): ...

    message = error_of(build)
    assert "'one'" in message
    assert "'two'" in message


def test_other_graph_errors():
    def empty(flow): ...

    def twice(flow):
        @flow.request
        def one(row): ...
        @flow.request
        def one(row): ...

    def named_row(flow):
        @flow.request
        def row(): ...

    def coroutine(flow):
        @flow.request
        async def one(row): ...

    def star(flow):
        @flow.request
        def one(*row): ...

    def unreadable(flow):
        @flow.request
        def one(row: "Nowhere"): ...  # noqa: F821

    def optional_unseen(flow):
        @flow.request(optional=True)
        def one(row): ...
        @flow.compute
        def two(one: dict): ...

    assert "no steps" in error_of(empty)
    assert "already" in error_of(twice)
    assert "can't be called `row`" in error_of(named_row)
    assert "plain function" in error_of(coroutine)
    assert "can't be used" in error_of(star)
    assert "Nowhere" in error_of(unreadable)
    assert "Failure" in error_of(optional_unseen)


def test_a_parameter_with_a_default_is_the_functions_own():
    flow = Flow("f")

    @flow.request
    def one(row, factor=2): ...

    assert [parameter.name for parameter in flow.graph().nodes[0].parameters] == ["row"]


def test_options_are_checked():
    flow = Flow("f")
    with pytest.raises(MisuseError):
        flow.compute(timeout=0)
    with pytest.raises(MisuseError):
        flow.request(timeout=-1)


@dataclasses.dataclass
class Item:
    id: int


@pytest.mark.parametrize(
    ("annotation", "whole", "item_whole", "none", "failure"),
    [
        (Response, True, False, False, False),
        (dict, False, False, False, False),
        (Item, False, False, False, False),
        (dict | None, False, False, True, False),
        (Item | Failure, False, False, False, True),
        (Item | Failure | None, False, False, True, True),
        (list[Item | Failure], False, False, False, True),
        (list[Response], False, True, False, False),
        (dict[str, Response | Failure], False, True, False, True),
        (Any, False, False, True, True),
        (Response | None, True, False, True, False),
    ],
)
def test_annotations_are_taken_apart(annotation, whole, item_whole, none, failure):
    want = want_of(annotation, given=True)
    assert (want.whole, want.item_whole, want.accepts_none, want.accepts_failure) == (
        whole,
        item_whole,
        none,
        failure,
    )
