"""From answers to arguments, the same in this process and in a worker.

An argument travels *packed*: `bytes` are a JSON body still to be decoded, a one-tuple holds a value that is
passed as it is, a list or dict holds packed items. So a worker, not the event loop, decodes what only its
function reads.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from yelpaze.compute.protocol import CallError
from yelpaze.flow.failure import Failure
from yelpaze.flow.graph import Node, Parameter
from yelpaze.model.outcome import Outcome

Packed = bytes | tuple[Any] | list[Any] | dict[str, Any]


def pack(parameter: Parameter, value: Any) -> Packed:
    """Pack a step's value for this parameter."""
    want = parameter.want
    if type(value) is Outcome:
        return (value,) if want.whole else value.body
    if type(value) is list:
        return [_pack_item(item, whole=want.item_whole) for item in value]
    if type(value) is dict:
        return {name: _pack_item(item, whole=want.item_whole) for name, item in value.items()}
    return (value,)


def _pack_item(item: Any, *, whole: bool) -> Any:
    return item.body if type(item) is Outcome and not whole else (item,)


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
    return (value,)


def _coerce(value: dict[str, Any], wanted: Any) -> Any:
    """Convert texts; an empty one that does not fit its field is None."""
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        kinds = _field_types(wanted, value)
        empty = {name: None for name, kind in kinds.items() if value.get(name) == "" and not _fits("", kind)}
        if not empty:
            raise
    return msgspec.convert(value | empty, wanted, strict=False)


def _field_types(wanted: Any, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The types of a record's fields, by their names in the input."""
    if get_origin(wanted) in (Union, UnionType):
        wanted = next((one for one in get_args(wanted) if one is not type(None)), Any)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(wanted)}
    if get_origin(wanted) is dict:
        return dict.fromkeys(value, get_args(wanted)[1])
    return get_type_hints(wanted) if isinstance(wanted, type) else {}


def _fits(text: str, kind: Any) -> bool:
    try:
        msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True


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
        raise _mismatch(parameter, error) from None


def _mismatch(parameter: Parameter, error: Exception) -> CallError:
    fits = isinstance(error, msgspec.ValidationError)
    if parameter.source < 0:
        return CallError("input", f"the row {'does not fit' if fits else 'is not JSON'}: {error}")
    what = "does not fit" if fits else "is not JSON"
    return CallError("validation", f"the answer of {parameter.name!r} {what}: {error}", parameter.name)


def encoded(value: Any) -> bytes:
    """The value as one line of JSON. Raises CallError if it has none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise CallError("result", f"the result cannot be written as JSON: {error}") from None
