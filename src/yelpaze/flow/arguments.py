"""From answers to arguments, the same in this process and in a worker.

An argument travels *packed*: `bytes` are a JSON body still to be decoded, a one-tuple holds a value that is
passed as it is, a list or dict holds packed items. So a worker, not the event loop, decodes what only its
function reads.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

from yelpaze.compute.protocol import CallError
from yelpaze.flow.failure import Failure
from yelpaze.flow.graph import Node, Parameter
from yelpaze.model.json_errors import explained
from yelpaze.model.outcome import Outcome

Packed = bytes | tuple[Any] | list[Any] | dict[str, Any]


def pack(parameter: Parameter, value: Any) -> Packed:
    """Pack a step's value for this parameter."""
    want = parameter.want
    if type(value) is Outcome:
        return (value,) if want.whole else value.utf8
    if type(value) is list:
        return [_pack_item(item, whole=want.item_whole) for item in value]
    if type(value) is dict:
        return {name: _pack_item(item, whole=want.item_whole) for name, item in value.items()}
    return (value,)


def _pack_item(item: Any, *, whole: bool) -> Any:
    return item.utf8 if type(item) is Outcome and not whole else (item,)


def own(value: Any) -> Any:
    """A copy of JSON-like data: a step that changes what it was given changes it for no other step."""
    if type(value) not in (dict, list):
        return value
    try:
        return deepcopy(value)
    except Exception:  # noqa: BLE001  it holds something that can't be copied, such as a lock
        return value


def pack_row(parameter: Parameter, raw: bytes | None, value: Any, *, coerce: bool = False) -> Packed:
    """Pack the input record: its raw JSON if there is one, to be decoded where it is used.

    `coerce`: the values are texts, converted to the types that the flow asks for.
    """
    if raw is not None:
        return raw
    wanted = parameter.want.type
    if wanted is not Any and not isinstance(value, Failure):
        try:
            return (
                _coerce(value, wanted) if coerce else msgspec.convert(value, wanted, from_attributes=True),
            )
        except msgspec.ValidationError as error:
            raise CallError("input", f"the row does not fit: {error}") from None
    return (own(value),)


def _coerce(value: dict[str, Any], wanted: Any) -> Any:
    """Convert texts; an empty one that does not fit its field is None."""
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        takes_empty = _takes_empty_by_field(wanted)
        others = takes_empty.get("*", True)
        empty = {
            name: None for name, text in value.items() if text == "" and not takes_empty.get(name, others)
        }
        if not empty:
            raise
    return msgspec.convert(value | empty, wanted, strict=False)


@lru_cache(maxsize=64)
def _takes_empty_by_field(wanted: Any) -> Mapping[str, bool]:
    """Whether a record's fields take an empty text, by their names in the input; `*` stands for any name."""
    found: dict[str, bool] = {}
    pending = [inspect.type_info(wanted)]
    while pending:
        kind = pending.pop()
        if isinstance(kind, inspect.UnionType):
            pending.extend(kind.types)
        elif isinstance(kind, inspect.Metadata):
            pending.append(kind.type)
        elif isinstance(kind, inspect.DictType):
            found["*"] = _takes_empty(kind.value_type)
        for field in getattr(kind, "fields", ()):
            found[field.encode_name] = found.get(field.encode_name, True) and _takes_empty(field.type)
    return found


def _takes_empty(kind: inspect.Type) -> bool:
    match kind:
        case inspect.Metadata():
            return _takes_empty(kind.type)
        case inspect.UnionType():
            return any(map(_takes_empty, kind.types))
        case inspect.StrType():
            return not kind.min_length and (kind.pattern is None or re.search(kind.pattern, "") is not None)
        case inspect.BytesType() | inspect.ByteArrayType() | inspect.MemoryViewType():
            return not kind.min_length
    names = [member.value for member in kind.cls] if isinstance(kind, inspect.EnumType) else ()
    values = kind.values if isinstance(kind, inspect.LiteralType) else names
    return "" in values or isinstance(kind, inspect.AnyType | inspect.RawType | inspect.CustomType)


def size_of(packed: Packed) -> int:
    """The bytes of the answers in it."""
    if type(packed) is bytes:
        return len(packed)
    if type(packed) is tuple:
        return len(packed[0].body) if type(packed[0]) is Outcome else 0
    items = packed.values() if isinstance(packed, dict) else packed
    return sum(map(size_of, items))


def unpack(node: Node, packed: list[Packed]) -> dict[str, Any]:
    """Unpack all arguments of a step. Raises CallError for one that does not fit."""
    return {
        parameter.name: unpack_one(parameter, item)
        for parameter, item in zip(node.parameters, packed, strict=True)
    }


def unpack_one(parameter: Parameter, packed: Packed) -> Any:
    """Unpack one argument."""
    kind = type(packed)
    if kind is tuple:
        return packed[0]  # type: ignore[index]
    want = parameter.want
    try:
        if kind is bytes:
            return want.decode(packed)  # type: ignore[arg-type]
        decode = want.item_decode
        if kind is list:
            return [decode(item) if type(item) is bytes else item[0] for item in packed]  # type: ignore[index]
        return {
            name: decode(item) if type(item) is bytes else item[0]
            for name, item in packed.items()  # type: ignore[union-attr]
        }
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _mismatch(parameter, packed, error) from None


def _mismatch(parameter: Parameter, packed: Packed, error: Exception) -> CallError:
    is_json = isinstance(error, msgspec.ValidationError)
    what = "does not fit" if is_json else "is not JSON"
    why = str(error) if is_json else explained(_undecodable(parameter, packed), error)
    if parameter.source < 0:
        return CallError("input", f"the row {what}: {why}")
    hint = "" if parameter.want.is_given else "; annotate it `Response` to get the answer as it is"
    return CallError("validation", f"the answer of {parameter.name!r} {what}: {why}{hint}", parameter.name)


def _undecodable(parameter: Parameter, packed: Packed) -> bytes:
    """The body that could not be decoded."""
    if isinstance(packed, bytes):
        return packed
    items = packed.values() if isinstance(packed, dict) else packed
    for item in items:
        if isinstance(item, bytes):
            try:
                parameter.want.item_decode(item)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return item
    return b""


def encoded(value: Any) -> bytes:
    """The value as one line of JSON. Raises CallError if it has none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise CallError("result", f"the result cannot be written as JSON: {error}") from None
