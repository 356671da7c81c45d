"""What a parameter's annotation says that a step wants.

    no annotation, Response     the whole answer
    any other type              the JSON body, decoded and validated to it (msgspec)
    list[T], dict[str, T]       of a step that makes many requests: each answer's body as T
    … | Failure                 accepts the failure of an optional step
    … | None                    accepts a skipped step
"""

import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import msgspec

from yelpaze.flow.failure import Failure
from yelpaze.model.outcome import Outcome


class Want(msgspec.Struct, frozen=True):
    """An annotation, taken apart. `whole` and `item_whole`: an answer is passed as it is."""

    whole: bool
    decode: Callable[[bytes], Any]
    item_whole: bool
    item_decode: Callable[[bytes], Any]
    accepts_none: bool
    accepts_failure: bool
    type: Any


def want_of(annotation: Any, *, given: bool) -> Want:
    """Read an annotation; `given` is false for a parameter without one."""
    if not given:
        whole = msgspec.json.decode
        return Want(True, whole, True, whole, False, True, Any)
    kept, accepts_none, accepts_failure = _split(annotation)
    item = _item_of(kept)
    item_kept, _, item_failure = _split(item)
    return Want(
        _is_answer(kept),
        _decoder(kept),
        _is_answer(item_kept),
        _decoder(item_kept),
        accepts_none or kept in (Any, object),
        accepts_failure or item_failure or kept in (Any, object),
        kept,
    )


def _split(annotation: Any) -> tuple[Any, bool, bool]:
    """Take None and Failure out of a union."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, annotation is type(None), annotation is Failure
    members = get_args(annotation)
    kept = [member for member in members if member not in (type(None), Failure)]
    joined: Any = Union[tuple(kept)] if kept else Any  # noqa: UP007  built at run time
    return joined, type(None) in members, Failure in members


def _item_of(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list and arguments:
        return arguments[0]
    if origin is dict and len(arguments) == 2:  # noqa: PLR2004
        return arguments[1]
    return Any


def _is_answer(annotation: Any) -> bool:
    return annotation is Outcome


def _decoder(annotation: Any) -> Callable[[bytes], Any]:
    if annotation in (Any, object, Outcome, type(None), Failure):
        return msgspec.json.Decoder().decode
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(annotation).decode
    return decode
