"""JSON for our own records, which hold file names and messages that may not be Unicode.

A file name is bytes. Python gives those that are no UTF-8 as lone surrogates (PEP 383), which JSON in UTF-8
cannot carry. Such a character is written as U+0000, which no file name holds, and its code in four hex
digits, and is read back.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WRITTEN = re.compile("\0(d[89a-f][0-9a-f]{2})")
_MARK = b"\\u0000d"


def encode_json(value: Any) -> bytes:
    r"""The value as JSON.

    >>> encode_json({"file": "sat\udcfdr.jsonl"})
    b'{"file":"sat\\u0000dcfdr.jsonl"}'
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_mapped(msgspec.to_builtins(value), _written))


def decode_json(data: bytes, type: type[T]) -> T:  # noqa: A002  msgspec's name
    """The value again. Raises msgspec.DecodeError."""
    if _MARK not in data:
        return msgspec.json.decode(data, type=type)
    return msgspec.convert(_mapped(msgspec.json.decode(data), _read), type)


def _written(text: str) -> str:
    return _SURROGATE.sub(lambda found: f"\0{ord(found[0]):04x}", text)


def _read(text: str) -> str:
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {_mapped(name, change): _mapped(item, change) for name, item in value.items()}
    return value
