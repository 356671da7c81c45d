"""`http`: any service that takes a request, with a method, headers and a body of one's own."""

import json
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from yelpaze.hooks.kinds.protocol import Builder, Content, HttpCall, Kind, Secret, Settings, headers_of
from yelpaze.hooks.template import check, filled, filled_json

# A backslash that is not escaped itself, and a placeholder in what it begins.
_IN_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?:u[0-9a-fA-F]{0,3})?\{\{")


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`body` is a template; with a `content_type` of JSON its values are JSON."""

    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = "POST"
    body: str = "{{ payload }}"
    content_type: str = "application/json"


def _check(_settings: Settings, options: HttpOptions) -> Iterator[tuple[str, str]]:
    wrong = check(options.body)
    if wrong:
        yield "options.body", wrong
    elif _is_json(options) and _IN_ESCAPE.search(options.body):
        yield "options.body", "has a placeholder within an escape"
    elif _is_json(options):
        try:
            json.loads(filled_json(options.body, {}))
        except ValueError as error:
            yield "options.body", f"is no JSON when its placeholders are filled: {error}"
    if not options.content_type.isascii() or not options.content_type.isprintable():
        yield "options.content_type", "is no media type"


def _is_json(options: HttpOptions) -> bool:
    return options.content_type.partition(";")[0].strip().endswith("json")


def _prepare(settings: Settings, options: HttpOptions, _secrets: tuple[Secret, ...]) -> Builder:
    fill = filled_json if _is_json(options) else filled
    has_body = options.method not in ("GET", "DELETE")
    own = (("Content-Type", options.content_type),) if has_body else ()
    headers = headers_of(settings, *own)

    def build(content: Content) -> HttpCall:
        body = fill(options.body, content.values()).encode() if has_body else b""
        return HttpCall(options.method, settings.url, headers, body)

    return build


HTTP = Kind(name="http", options=HttpOptions, prepare=_prepare, check=_check)
