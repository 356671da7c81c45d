"""Detects input files whose content does not match their name."""

from pathlib import Path

import msgspec

from yelpaze.model.errors import InputError

_HEAD = 64 << 10
_PACKED = (".gz", ".zst", ".zstd")
# What begins like that, and what to do.
_MAGIC = (
    (b"\x1f\x8b", "is a gzip file: give it the ending .gz"),
    (b"\x28\xb5\x2f\xfd", "is a Zstandard file: give it the ending .zst"),
    (b"PAR1", "is a Parquet file: give it the ending .parquet"),
    (b"SQLite format 3\0", "is an SQLite database: name a table in it, as sqlite:///PATH?table=NAME"),
    (b"PK\x03\x04", "is a ZIP archive or an office document: unpack it, or save its sheet as CSV"),
    (b"%PDF-", "is a PDF document: rows come from JSON Lines, CSV, Parquet or a database"),
)
_ONE_VALUE = "holds one JSON value over several lines: write one row a line, as `jq -c '.[]'` does"
_ONE_ARRAY = "holds one JSON array: write one row a line, as `jq -c '.[]'` does"


def check_text(path: str) -> None:
    """Raise InputError for a file that is no text."""
    if not path.lower().endswith(_PACKED):
        head = _head_of(path)
        for magic, what in _MAGIC:
            if head.startswith(magic):
                raise InputError(f"{path}: {what}")


def check_json_lines(path: str) -> None:
    """Raise InputError for a file that is no text, or JSON but not a value a line."""
    check_text(path)
    if path.lower().endswith(_PACKED):
        return
    head = _head_of(path).removeprefix(b"\xef\xbb\xbf").strip()
    first = head.split(b"\n", 1)[0].strip()
    if not first.startswith((b"[", b"{")):
        return
    if _decoded(first) is None:
        if first in (b"[", b"{", b"[{") or _decoded(head) is not None:
            raise InputError(f"{path}: {_ONE_VALUE}")
    elif Path(path).suffix.lower() == ".json" and first == head and _is_table(_decoded(first)):
        raise InputError(f"{path}: {_ONE_ARRAY}")


def _decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _head_of(path: str) -> bytes:
    """The first bytes of a file; nothing of a pipe, which could not be read again."""
    if path == "-" or not Path(path).is_file():
        return b""
    with Path(path).open("rb") as file:
        return file.read(_HEAD)
