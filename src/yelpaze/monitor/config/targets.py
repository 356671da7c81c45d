"""Endpoints from a file with very many lines: CSV with a header, or JSON Lines.

Columns are fields of an endpoint: `name`, `group`, `url`, `interval`, …; lists have commas in CSV. A
line that is wrong is left out, with a warning; the others are taken.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.config.convert import Mistake
from yelpaze.model.errors import InputError

_LISTS = frozenset({"locations", "parents"})
_PLAIN = frozenset({"name", "group", "url", "interval", "method", "body", "enabled", "quorum", "retries"})
_KNOWN = _LISTS | _PLAIN | {"headers", "extra-labels", "conditions"}


def read_targets(path: Path) -> Iterator[tuple[int, dict[str, Any] | Mistake]]:
    """The fields of each line with its number, or what is wrong with it. Raises InputError."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        try:
            yield from _jsonl(file) if path.suffix in (".jsonl", ".ndjson") else _csv(file, path)
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not text in UTF-8") from None


def _jsonl(file: Any) -> Iterator[tuple[int, dict[str, Any] | Mistake]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            yield number, Mistake("", f"is no JSON object: {error}")
            continue
        unknown = next((name for name in fields if name not in _KNOWN), None)
        yield number, fields if unknown is None else _unknown(unknown)


def _csv(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any] | Mistake]]:
    reader = csv.DictReader(file)
    for name in reader.fieldnames or ():
        if name not in _KNOWN:
            raise InputError(f"{path}:1: {_unknown(name)}")
    for row in reader:
        number = reader.line_num
        if None in row or None in row.values():
            yield number, Mistake("", f"has not {len(reader.fieldnames or ())} values, as the header says")
            continue
        fields: dict[str, Any] = {name: value for name, value in row.items() if value}
        for name in _LISTS & fields.keys():
            fields[name] = [one.strip() for one in fields[name].split(",")]
        yield number, fields


def _unknown(name: str) -> Mistake:
    return Mistake(name, f"there is no such field; there are {', '.join(sorted(_KNOWN))}")
