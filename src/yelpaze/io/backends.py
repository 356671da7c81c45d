"""From what the user calls an input or output to its backend: the registry of formats."""

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from yelpaze.io.file_sink import FileSink, Layout
from yelpaze.io.jsonl import JsonlLayout, JsonlSource
from yelpaze.io.kinds import check_json_lines, check_text
from yelpaze.io.protocol import Sink, Source
from yelpaze.io.reading import check_files, stem_of
from yelpaze.io.stdout import StdoutSink
from yelpaze.model.errors import InputError
from yelpaze.model.extras import require
from yelpaze.model.secrets import SECRETS


def _delimited_source(paths: list[str]) -> Source:
    from yelpaze.io.delimited import DelimitedSource  # noqa: PLC0415

    return DelimitedSource(paths)


def _delimited_layout(path: Path, annotation: object) -> Layout:
    from yelpaze.io.delimited import DelimitedLayout  # noqa: PLC0415

    return DelimitedLayout(path, annotation)


def _parquet_source(paths: list[str]) -> Source:
    require("parquet", "Parquet")
    from yelpaze.io.parquet import ParquetSource  # noqa: PLC0415

    return ParquetSource(paths)


def _parquet_layout(path: Path, annotation: object) -> Layout:
    require("parquet", "Parquet")
    from yelpaze.io.parquet import ParquetLayout  # noqa: PLC0415

    return ParquetLayout(path, annotation)


def _jsonl_layout(path: Path, annotation: object) -> Layout:  # noqa: ARG001  any result is a line
    return JsonlLayout(path)


def _sqlite_source(url: str) -> Source:
    from yelpaze.io.sqlite import sqlite_source  # noqa: PLC0415

    return sqlite_source(url)


def _sqlite_sink(url: str, annotation: object) -> Sink:
    from yelpaze.io.sqlite import sqlite_sink  # noqa: PLC0415

    return sqlite_sink(url, annotation)


def _postgres_source(url: str) -> Source:
    require("postgres", "PostgreSQL")
    from yelpaze.io.postgres import postgres_source  # noqa: PLC0415

    return postgres_source(url)


def _postgres_sink(url: str, annotation: object) -> Sink:
    require("postgres", "PostgreSQL")
    from yelpaze.io.postgres import postgres_sink  # noqa: PLC0415

    return postgres_sink(url, annotation)


# A new format is its file and a line here.
_FILE_SOURCES: dict[str, Callable[[list[str]], Source]] = {
    ".jsonl": JsonlSource,
    ".ndjson": JsonlSource,
    ".json": JsonlSource,
    ".csv": _delimited_source,
    ".tsv": _delimited_source,
    ".parquet": _parquet_source,
}
_URL_SOURCES: dict[str, Callable[[str], Source]] = {
    "sqlite": _sqlite_source,
    "postgresql": _postgres_source,
    "postgres": _postgres_source,
}
_LAYOUTS: dict[str, Callable[[Path, object], Layout]] = {
    "": _jsonl_layout,
    ".jsonl": _jsonl_layout,
    ".ndjson": _jsonl_layout,
    ".json": _jsonl_layout,
    ".csv": _delimited_layout,
    ".tsv": _delimited_layout,
    ".parquet": _parquet_layout,
}
_URL_SINKS: dict[str, Callable[[str, object], Sink]] = {
    "sqlite": _sqlite_sink,
    "postgresql": _postgres_sink,
    "postgres": _postgres_sink,
}
_OUTPUT = re.compile(r"\.(?:results|failures)(?:\.\d+)?\.[a-z]+$")
_DATABASES = (".db", ".sqlite", ".sqlite3")


def scheme_of(text: str) -> str:
    """`postgresql` for `postgresql://…`; empty for a path."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.isidentifier() else ""


def absolute(text: str) -> str:
    """An input or output by a name that is right in any working folder."""
    scheme = scheme_of(text)
    if text == "-" or (scheme and scheme != "sqlite"):
        return text
    if not scheme:
        return str(Path(text).resolve())
    parts = urlsplit(text)
    if parts.netloc or parts.path.startswith("//"):
        return text
    file = quote(os.fsencode(Path(unquote(parts.path[1:], errors="surrogateescape")).resolve()))
    return f"sqlite:///{file}" + (f"?{parts.query}" if parts.query else "")


def open_source(inputs: tuple[str, ...]) -> Source:
    """The source for these inputs: files and globs of one format, a URL, or `-`."""
    if not inputs:
        raise InputError("the rows came from an iterable in Python, which is not here")
    if any(scheme_of(text) for text in inputs):
        return _url_source(inputs)
    paths = _expanded(inputs)
    check_files(paths)
    for path in paths:
        if _ending(path) in _DATABASES:
            raise InputError(f"{path}: name a table in it: 'sqlite:///{path}?table=NAME'")
    kinds = {_FILE_SOURCES.get(_ending(path), JsonlSource) for path in paths}
    if len(kinds) > 1:
        raise InputError(
            f"the inputs have several formats: {', '.join(paths[:5])}; give files of one at a time"
        )
    kind = kinds.pop()
    for path in paths:
        if kind is JsonlSource:
            check_json_lines(path)
        elif kind is _delimited_source:
            check_text(path)
    return kind(paths)


def _url_source(inputs: tuple[str, ...]) -> Source:
    if len(inputs) > 1:
        raise InputError("one URL can be the input, or several files; not both")
    scheme = scheme_of(inputs[0])
    if scheme not in _URL_SOURCES:
        raise InputError(f"{SECRETS.url(inputs[0])}: rows come from files or from {_all(_URL_SOURCES)}")
    return _URL_SOURCES[scheme](inputs[0])


def _all(names: Iterable[str]) -> str:
    return ", ".join(f"{name}://" for name in names)


def _expanded(inputs: tuple[str, ...]) -> list[str]:
    paths: list[str] = []
    for text in inputs:
        if text == "-" and len(inputs) > 1:
            raise InputError("standard input is an input of its own: give no files beside it")
        if glob.has_magic(text) and not Path(text).exists():
            matches = glob.glob(text, recursive=True)  # noqa: PTH207  a pattern may be absolute
            found = sorted(path for path in matches if not _is_output(path))
            if not found:
                raise InputError(f"{text}: no file matches")
            paths += found
        elif text.lower().endswith(".parquet") and Path(text).is_dir():
            paths += sorted(str(part) for part in Path(text).glob("*.parquet"))
        else:
            paths.append(text)
    return paths


def _is_output(path: str) -> bool:
    """Whether a run wrote it: a pattern for inputs does not mean the results beside them."""
    return Path(f"{path}.journal").exists() or _OUTPUT.search(path) is not None


def _ending(path: str) -> str:
    name = Path(path).name.lower()
    for packed in (".gz", ".zst", ".zstd"):
        name = name.removesuffix(packed)
    return Path(name).suffix


def default_output(inputs: tuple[str, ...]) -> str:
    """`rows.results.jsonl` in the folder one is in, for `any/where/rows.csv.gz`."""
    first = inputs[0] if inputs else ""  # none: rows of an iterable
    if not first or scheme_of(first):
        return "results.jsonl"
    stem = "stdin" if first == "-" else stem_of(_expanded(inputs)[0])
    return f"{stem}.results.jsonl"


def open_sink(output: str, inputs: tuple[str, ...], annotation: object, *, stdout: int = 1) -> Sink:
    """The sink for that output: a path by its ending, a URL, or `-`, the descriptor `stdout`.

    Raises InputError.
    """
    scheme = scheme_of(output)
    if scheme:
        if scheme not in _URL_SINKS:
            raise InputError(f"{SECRETS.url(output)}: results go to files or to {_all(_URL_SINKS)}")
        return _URL_SINKS[scheme](output, annotation)
    path = Path(output)
    if path.is_symlink():
        path = path.resolve()  # one output has one journal, by whatever name it is called
    is_stream = path.exists() and not path.is_file() and not path.is_dir()  # a pipe, a device
    if output == "-" or is_stream:
        failures = Path(default_output(inputs)).with_suffix("").with_suffix(".failures.jsonl")
        _refuse_inputs(inputs, failures)
        return StdoutSink(failures.absolute(), path if is_stream else stdout)
    if path.suffix.lower() in _DATABASES:
        return _URL_SINKS["sqlite"](f"sqlite:///{quote(os.fsencode(output))}", annotation)
    if path.is_dir() and path.suffix.lower() != ".parquet":
        raise InputError(f"{path}: is a folder; give a file name with -o")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist: create it first")
    # results.failures.jsonl; results.csv.failures.jsonl, for there may be results of several formats.
    stem = path.stem if path.suffix.lower() in (".jsonl", "") else path.name
    failures = path.with_name(f"{stem}.failures.jsonl")
    _refuse_inputs(inputs, path, failures, path.with_name(f"{path.name}.journal"))
    if path.suffix.lower() in (".gz", ".zst"):
        raise InputError(
            f"{path}: results are not compressed while they are written: leave {path.suffix} out"
        )
    if path.suffix.lower() not in _LAYOUTS:
        known = ", ".join(filter(None, (*_LAYOUTS, *_DATABASES)))
        raise InputError(f"{path}: there is no format {path.suffix}: results are written as {known}")
    # Absolute, for a step may change the working folder; shown as they were given.
    layout = _LAYOUTS[path.suffix.lower()](path.absolute(), annotation)
    return FileSink(layout, failures.absolute(), shown=(str(path), str(failures)))


def _refuse_inputs(inputs: tuple[str, ...], *written: Path) -> None:
    for text in inputs:
        if scheme_of(text) or text == "-":
            continue
        for path in written:
            if path.exists() and Path(text).exists() and path.samefile(text):
                raise InputError(f"{path}: is the input itself, and would be overwritten; give another -o")
