"""Records of texts, as CSV has them, made into what a flow asks for."""

import dataclasses
from typing import Annotated, Any, Generic, NewType, TypedDict, TypeVar

import msgspec
import pytest

from yelpaze.compute.protocol import CallError
from yelpaze.flow.annotation import want_of
from yelpaze.flow.arguments import pack_row
from yelpaze.flow.graph import Parameter

T = TypeVar("T")
Filled = Annotated[str, msgspec.Meta(min_length=1)]


class Struct(msgspec.Struct):
    n: int | None
    s: str
    m: Filled | None = None


class Renamed(msgspec.Struct, rename={"count": "n"}):
    count: int | None
    s: str
    m: Filled | None = None


class Boxed(msgspec.Struct, Generic[T]):
    n: T | None
    s: str
    m: Filled | None = None


class Typed(TypedDict):
    n: int | None
    s: str
    m: Filled | None


@dataclasses.dataclass
class Data:
    n: float | None
    s: str
    m: Annotated[str, msgspec.Meta(pattern="^x")] | None = None


class Strict(msgspec.Struct):
    n: int


New = NewType("New", Struct)


def converted(wanted, **row):
    """The row of texts as that type."""
    parameter = Parameter("row", -1, want_of(wanted, given=True))
    return pack_row(parameter, None, row, coerce=True)[0]


@pytest.mark.parametrize(
    "wanted",
    [
        Struct, Renamed, Boxed[int], Typed, Data, New, Annotated[Struct, msgspec.Meta(title="x")],
        str | Struct, Struct | None, dict[str, Any],
    ],
    ids=str,
)  # fmt: skip
def test_an_empty_text_is_none_where_it_does_not_fit(wanted):
    found = msgspec.to_builtins(converted(wanted, n="", s="", m=""))
    if wanted == dict[str, Any]:
        assert found == {"n": "", "s": "", "m": ""}
    else:
        assert found == {"n": None, "s": "", "m": None}
    assert msgspec.to_builtins(converted(wanted, n="3", s="x", m="x"))["n"] in (3, "3")


def test_any_field_of_a_dict_may_be_empty():
    assert converted(dict[str, int | None], a="", b="3") == {"a": None, "b": 3}


@pytest.mark.parametrize(("text", "got"), [("", "null"), ("x", "str")])
def test_what_cannot_be_none_is_refused_by_its_place(text, got):
    with pytest.raises(CallError, match=rf"the row does not fit: Expected `int`, got `{got}` - at `\$.n`"):
        converted(Strict, n=text)


def test_tls_settings_do_not_travel_to_other_machines():
    from yelpaze import Headers, Outcome, Timings, Tls, get
    from yelpaze.flow.codec import _decoded, _encoded_value, _Tagged

    request = get("https://a.test/x", tls=Tls(verify=False))
    outcome = Outcome(
        request, 200, Headers(), b"{}", None, (), Timings(), 0.1, request.url, "2", "", "0" * 32
    )
    tag, data = _encoded_value(outcome, None)
    (found,) = _decoded(_Tagged(tag, data), None)
    assert found.request.tls is None
    assert (found.request.url, found.status) == (request.url, 200)
