"""What a parameter's annotation says that a step wants.

Response                    the whole answer
no annotation               the whole answer in a request step, the decoded JSON body in a compute step
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

_DECODE_ANY = msgspec.json.Decoder().decode


class Want(msgspec.Struct, frozen=True):
    """An annotation, taken apart. `whole` and `item_whole`: an answer is passed as it is.

    `type`: what JSON is decoded to; `kept`: the annotation without None and Failure; `is_given`: whether
    there is one.
    """

    whole: bool
    decode: Callable[[bytes], Any]
    item_whole: bool
    item_decode: Callable[[bytes], Any]
    accepts_none: bool
    accepts_failure: bool
    type: Any
    kept: Any
    is_given: bool = True


def want_of(annotation: Any, *, given: bool, decodes: bool = True, is_compute: bool = False) -> Want:
    """Read an annotation; `given` is false for a parameter without one, `is_compute` tells of its step.

    `decodes` is false where the value comes from a CPU step: it is passed as it is, so any
    type will do. Raises TypeError for a type that JSON can't be decoded to.
    """
    if not given or not decodes:
        kept, accepts_none, accepts_failure = _split(annotation) if given else (Any, False, True)
        whole = given or not is_compute or not decodes
        return Want(whole, _DECODE_ANY, whole, _DECODE_ANY, accepts_none, accepts_failure, Any, kept, given)
    kept, accepts_none, accepts_failure = _split(annotation)
    item, item_failure = _item_of(kept)
    anything = kept in (Any, object)
    return Want(
        kept is Outcome,
        _decoder(_with_item(kept, item)),
        item is Outcome,
        _decoder(item),
        accepts_none or anything,
        accepts_failure or item_failure or anything,
        _with_item(kept, item),
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


def _item_of(annotation: Any) -> tuple[Any, bool]:
    """The item type of list[T] and dict[str, T] without Failure, and whether it had that."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin not in (list, dict) or not arguments:
        return Any, False
    kept, accepts_none, accepts_failure = _split(arguments[-1])
    return (kept | None if accepts_none and kept is not Any else kept), accepts_failure


def _with_item(annotation: Any, item: Any) -> Any:
    """The container's type, its item type replaced by one that JSON can be decoded to."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin not in (list, dict) or not arguments:
        return annotation
    return origin[(*arguments[:-1], Any if item is Outcome else item)]


def _decoder(annotation: Any) -> Callable[[bytes], Any]:
    if annotation in (Any, object, Outcome, type(None), Failure):
        return _DECODE_ANY
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(annotation).decode
    return decode
