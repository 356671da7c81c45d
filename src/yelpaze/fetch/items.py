"""What to fetch: URLs of the command line, or lines of a file, taken lazily."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from yelpaze.fetch.globs import count, expand
from yelpaze.fetch.paths import Template, inside, name_of
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import Request, request

REMOTE_NAME = "\0remote-name"
STDOUT = "-"
_BLOCK = 256


class Item(msgspec.Struct, frozen=True):
    """One thing to fetch: its number from 1, its request, its file (None: stdout).

    `bad` says why there is no request.
    """

    number: int
    url: str
    request: Request | None
    path: str | None = None
    bad: str = ""


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of JSONL input."""

    url: str
    method: str | None = None
    headers: dict[str, str] | None = None
    json: Any = msgspec.UNSET
    data: str | None = None
    output: str | None = None


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags say of every request."""

    method: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    query: str = ""

    def made(self, url: str, line: Line | None = None) -> Request:
        """The request for a URL. Raises MisuseError."""
        if self.query:
            base, hash_, fragment = url.partition("#")
            url = f"{base}{'&' if '?' in base else '?'}{self.query}{hash_}{fragment}"
        method, headers, body = self.method, self.headers, self.body
        json: Any = msgspec.UNSET
        if line is not None:
            own = {name.lower() for name in line.headers or {}}
            kept = (pair for pair in headers if pair[0].lower() not in own)
            headers = (*kept, *(line.headers or {}).items())
            json = line.json
            if line.data is not None or json is not msgspec.UNSET:
                body = line.data.encode() if line.data is not None else None
            method = line.method or method
        if method is None:
            method = "GET" if body is None and json is msgspec.UNSET else "POST"
        return request(method, url, headers=headers, body=body, json=json)


def from_arguments(
    urls: Iterable[str], outputs: list[str], shape: Shape, *, folder: str, globbing: bool, name_all: bool
) -> Iterator[Item]:
    """URLs with curl's pairing: the nth -o belongs to the nth URL, and the rest go to stdout.

    A single -o with a variable in it names the files of all URLs. Raises MisuseError at once,
    for what is wrong with a flag or a glob.
    """
    urls = list(urls)
    for pattern in urls:
        count(pattern, globbing=globbing)
    if len(outputs) > len(urls):
        raise MisuseError(f"there are {len(outputs)} outputs (-o, -O) for {len(urls)} URLs")
    templates = [_template(output, folder) for output in outputs]
    rest = _template(REMOTE_NAME, folder) if name_all else None
    if len(templates) == 1 and isinstance(templates[0], Template) and templates[0].varies:
        rest = templates[0]
    return _numbered(urls, templates, rest, shape, globbing=globbing)


def _numbered(
    urls: list[str], templates: list["Where"], rest: "Where", shape: Shape, *, globbing: bool
) -> Iterator[Item]:
    number = 0
    for index, pattern in enumerate(urls):
        where = templates[index] if index < len(templates) else rest
        guessed = pattern if "://" in pattern else f"http://{pattern}"
        for url, values in expand(guessed, globbing=globbing):
            number += 1
            yield _item(number, url, lambda url=url: shape.made(url), where, values)  # type: ignore[misc]


def line_reader(outputs: list[str], shape: Shape, *, folder: str) -> Callable[[int, bytes], Item | None]:
    """Reads lines: a URL each, or a JSON object with url, method, headers, json, data, output."""
    if len(outputs) > 1:
        raise MisuseError("with --input one -o (or -O) names the files of all URLs")
    where = _template(outputs[0], folder) if outputs else None

    def read(number: int, raw: bytes) -> Item | None:
        text = raw.strip()
        if text.startswith(b"#"):
            return None
        if text.startswith(b"{"):
            return _json_item(number, text, shape, where, folder)
        url = text.decode("utf-8", "replace")
        return _item(number, url, lambda: shape.made(url), where, ())

    return read


async def blocks_of(items: Iterator[Item]) -> AsyncIterator[list[Item]]:
    """Some at a time."""
    while block := list(islice(items, _BLOCK)):
        yield block


Where = Callable[[str], str] | Template | None


def _template(output: str, folder: str) -> Where:
    if output == STDOUT:
        return None
    if output != REMOTE_NAME:
        return Template(output, folder)

    def remote(url: str) -> str:
        name = name_of(url)
        if not name:
            raise MisuseError(f"-O: the URL has no file name: {url}; use -o")
        return inside(name, folder)

    return remote


def _item(number: int, url: str, make: Callable[[], Request], where: Where, values: tuple[str, ...]) -> Item:
    try:
        made = make()
        if where is None:
            path = None
        else:
            path = where.path(made.url, number, values) if isinstance(where, Template) else where(made.url)
    except MisuseError as error:
        return Item(number, url, None, bad=str(error))
    return Item(number, made.url, made, path)


def _json_item(number: int, text: bytes, shape: Shape, where: Where, folder: str) -> Item:
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Item(number, text[:200].decode("utf-8", "replace"), None, bad=f"not a request: {error}")
    item = _item(number, line.url, lambda: shape.made(line.url, line), where, ())
    if item.request is None or line.output is None:
        return item
    try:
        return msgspec.structs.replace(item, path=inside(line.output, folder))
    except MisuseError as error:
        return Item(number, line.url, None, bad=str(error))
