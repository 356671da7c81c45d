"""Arguments and values as they travel to workers on other machines: MessagePack, never pickle.

What a worker decodes is decided by the flow's own annotations, which are the same on both sides. A call's
payload is `[whether the value is wanted as JSON, [argument, …]]`, and an argument is

    bin                a JSON body
    nil                nothing: a step that was skipped
    ["value", value]   a value of the parameter's type
    ["answer", map]    a whole answer, an Outcome
    ["failure", map]   a Failure
    ["list", [argument, …]]      ["dict", {name: argument, …}]

A value travels only if it is the same after the journey; else the row fails, with the reason.
"""

import datetime as dt
import marshal
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import msgspec

from yelpaze.compute.protocol import CallError, Handler, Unit
from yelpaze.compute.source import files_of
from yelpaze.flow.arguments import Packed, encoded, unpack
from yelpaze.flow.failure import Failure
from yelpaze.flow.graph import ROW, Node, Parameter
from yelpaze.flow.plan import Plan
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Outcome

_NO_REFERENCES = 2  # marshal's last version in which equal values give equal bytes
_PLAIN = (str, bytes, int, bool, type(None))


class _Tagged(msgspec.Struct, array_like=True):
    tag: str
    data: msgspec.Raw


_Item = _Tagged | bytes | None


class _Payload(msgspec.Struct, array_like=True):
    as_json: bool
    arguments: list[_Item]


def _encode_headers(value: Any) -> Any:
    if isinstance(value, Headers):
        return value.raw
    raise NotImplementedError(f"a {type(value).__name__} can't be sent")


def _decode_headers(_: type, value: Any) -> Headers:
    return Headers(value)


_pack = msgspec.msgpack.Encoder(enc_hook=_encode_headers).encode
_payload = msgspec.msgpack.Decoder(_Payload).decode
_items = msgspec.msgpack.Decoder(list[_Item]).decode
_named_items = msgspec.msgpack.Decoder(dict[str | int, _Item]).decode
_answer = msgspec.msgpack.Decoder(Outcome, dec_hook=_decode_headers).decode
_failure = msgspec.msgpack.Decoder(Failure, dec_hook=_decode_headers).decode
_anything = msgspec.msgpack.Decoder().decode


class Values:
    """Values of one type, in bytes. `what` names them in messages."""

    def __init__(self, annotation: Any, what: str) -> None:
        self._what = what
        try:
            self.decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.msgpack.Decoder(annotation).decode
        except Exception:  # noqa: BLE001  msgspec evaluates the type's own annotations
            self.decode = _anything  # only what is plain can travel

    def encode(self, value: Any) -> bytes:
        """Raises CallError unless decoding gives the same again."""
        try:
            data = msgspec.msgpack.encode(value)
            arrived = self.decode(data)
        except Exception as error:  # noqa: BLE001  encoding runs user code
            raise CallError("result", self._refusal(value, f"{type(error).__name__}: {error}")) from None
        if not _is_same(arrived, value):
            why = (
                "it would be something else there; annotate it with a type that JSON values have, or a Struct"
            )
            raise CallError("result", self._refusal(value, why))
        return data

    def _refusal(self, value: Any, why: str) -> str:
        return f"{self._what}, a {type(value).__name__}, can't travel between machines: {why}"


def _is_same(one: Any, other: Any) -> bool:
    try:
        # Fails for all but plain values of these very types; a tenth of the time.
        return marshal.dumps(one, _NO_REFERENCES) == marshal.dumps(other, _NO_REFERENCES)
    except ValueError:
        return _same(one, other)


def _same(one: Any, other: Any) -> bool:  # noqa: PLR0911  one for each kind
    """Equal and of the same types, all the way down; NaN is the same as NaN."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _PLAIN:
        return bool(one == other)
    if kind is float:
        return bool(one == other or (one != one and other != other))  # noqa: PLR0124  NaN
    if kind is dict:
        return len(one) == len(other) and all(
            _same(key, other_key) and _same(value, other_value)
            for (key, value), (other_key, other_value) in zip(one.items(), other.items(), strict=True)
        )
    if kind in (dt.datetime, dt.time):  # equal are those that stand for the same instant
        return bool(
            one == other and one.tzinfo == other.tzinfo and type(one.tzinfo) is type(other.tzinfo)
        ) and (one.replace(tzinfo=None) == other.replace(tzinfo=None))
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, msgspec.Struct):
        return all(_same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    if hasattr(kind, "__dataclass_fields__"):
        return all(_same(getattr(one, name), getattr(other, name)) for name in kind.__dataclass_fields__)
    return bool(one == other)


class _Arguments:
    """A step's arguments, in bytes."""

    def __init__(self, node: Node, nodes: Sequence[Node]) -> None:
        self._node = node
        # Values that no answer stands for: rows, and what CPU steps gave.
        self._values = [
            _values_of(node, parameter)
            if parameter.source == ROW or nodes[parameter.source].step.is_compute
            else None
            for parameter in node.parameters
        ]

    def pack(self, packed: list[Packed]) -> list[Any]:
        return [_encoded(item, values) for item, values in zip(packed, self._values, strict=True)]

    def unpack(self, items: list[_Item]) -> list[Packed]:
        if len(items) != len(self._values):
            raise CallError("misuse", f"it takes {len(self._values)} arguments, not {len(items)}")
        return [_decoded(item, values) for item, values in zip(items, self._values, strict=True)]


def _values_of(node: Node, parameter: Parameter) -> Values:
    what = f"{parameter.name!r} for {node.step.name!r}"
    return Values(parameter.want.type if parameter.source == ROW else parameter.want.kept, what)


def _encoded(packed: Any, values: Values | None) -> Any:
    kind = type(packed)
    if kind is bytes:
        return packed
    if kind is tuple:
        return _encoded_value(packed[0], values)
    if values is not None:  # a CPU step's list or dict, packed as its items
        whole = [item[0] for item in packed] if kind is list else {k: v[0] for k, v in packed.items()}
        return _encoded_value(whole, values)
    if kind is list:
        return ("list", [_encoded(item, None) for item in packed])
    return ("dict", {name: _encoded(item, None) for name, item in packed.items()})


def _encoded_value(value: Any, values: Values | None) -> Any:
    if value is None:
        return None
    if type(value) is Outcome:
        return ("answer", msgspec.Raw(_pack(_portable(value))))
    if type(value) is Failure:
        return ("failure", msgspec.Raw(_pack(value)))
    if values is None:
        raise CallError("result", f"a {type(value).__name__} can't travel between machines")
    return ("value", msgspec.Raw(values.encode(value)))


def _portable(outcome: Outcome) -> Outcome:
    """Without TLS settings: their paths are this machine's, and a password is nobody else's business."""
    request = outcome.request
    if request.tls is None:
        return outcome
    return msgspec.structs.replace(outcome, request=msgspec.structs.replace(request, tls=None))


def _decoded(item: _Item, values: Values | None) -> Any:  # noqa: PLR0911  one for each kind
    if item is None:
        return (None,)
    if isinstance(item, bytes):
        return item
    if item.tag == "value" and values is not None:
        return (values.decode(item.data),)
    if item.tag == "answer":
        return (_answer(item.data),)
    if item.tag == "failure":
        return (_failure(item.data),)
    if item.tag == "list":
        return [_decoded(one, None) for one in _items(item.data)]
    if item.tag == "dict":
        return {name: _decoded(one, None) for name, one in _named_items(item.data).items()}
    raise CallError("misuse", f"there is no argument of the kind {item.tag!r} here")


class _Steps:
    """Both ends' view of a flow's CPU steps."""

    def __init__(self, plan: Plan) -> None:
        nodes = plan.graph().nodes
        self.numbers = [node.number for node in nodes if node.step.is_compute]
        self.nodes = {number: nodes[number] for number in self.numbers}
        self.arguments = {number: _Arguments(nodes[number], nodes) for number in self.numbers}
        self.values = {number: _result_of(nodes[number]) for number in self.numbers}


def _result_of(node: Node) -> Values:
    annotation = get_type_hints(node.step.function).get("return", Any)
    return Values(annotation, f"the value of {node.step.name!r}")


def unit_of(plan: Plan) -> Unit:
    """What workers have of a flow."""
    names = tuple(node.step.name for node in plan.graph().nodes if node.step.is_compute)
    return Unit(f"flow:{plan.name}", names, files_of(plan.file))


class FlowCodec:
    """The client's side. Functions are nodes' numbers, payloads those of `handler.handler_of`."""

    def __init__(self, plan: Plan) -> None:
        self._steps = _Steps(plan)
        self.unit = unit_of(plan)

    def name_of(self, function: int) -> str:
        """How workers know it."""
        return self._steps.nodes[function].step.name

    def encode(self, function: int, payload: tuple[list[Packed], bool]) -> bytes:
        packed, as_json = payload
        return _pack((as_json, self._steps.arguments[function].pack(packed)))

    def decode(self, function: int, payload: tuple[list[Packed], bool], data: bytes) -> Any:
        if payload[1]:
            return data
        try:
            return self._steps.values[function].decode(data)
        except Exception as error:  # noqa: BLE001  decoding runs the types' own code
            raise CallError("result", f"the worker's value can't be read: {error}") from None


def bytes_handler_of(plan: Plan) -> Handler:
    """The worker's side: run CPU steps, counted from 0, from bytes to bytes."""
    steps = _Steps(plan)

    def handle(function: int, data: bytes) -> bytes:  # pragma: no cover  its process is killed
        number = steps.numbers[function]
        try:
            payload = _payload(data)
            packed = steps.arguments[number].unpack(payload.arguments)
        except msgspec.DecodeError as error:
            raise CallError("misuse", f"the arguments can't be read: {error}") from None
        node = steps.nodes[number]
        value = node.step.function(**unpack(node, packed))
        return encoded(value) if payload.as_json else steps.values[number].encode(value)

    return handle
