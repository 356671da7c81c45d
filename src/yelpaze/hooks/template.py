"""Templates of bodies and texts: `{{ name }}` stands for a value of the message, and nothing else happens.

    {{ type }} {{ id }} {{ timestamp }} {{ text }} {{ payload }} {{ payload.order.id }} {{ payload.items.0 }}

They come from customers: there are no loops, conditions or calls, so a template can do no harm. In JSON a
value that stands within quotes is escaped; one that stands alone is JSON itself.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_PLACE = re.compile(r"\{\{\s*([A-Za-z0-9_.\-]+)\s*\}\}")
_OPEN = re.compile(r"\{\{(?!\s*[A-Za-z0-9_.\-]+\s*\}\})")
_TOKEN = re.compile(r'\{\{\s*([A-Za-z0-9_.\-]+)\s*\}\}|\\.|"', re.DOTALL)
_MOST_DIGITS = 10
NAMES = ("type", "id", "timestamp", "text", "title", "payload", "order_key")


def check(template: str) -> str | None:
    """Return the reason why a template is not valid; None if it is.

    >>> check("{{ payload.id }} of {{ customer }}")
    'there is no {{ customer }}: it begins with type, id, timestamp, text, title, payload, order_key'
    """
    if _OPEN.search(template):
        return "a placeholder is written {{ payload.name }}"
    for name in _PLACE.findall(template):
        if name.split(".")[0] not in NAMES:
            return f"there is no {{{{ {name} }}}}: it begins with {', '.join(NAMES)}"
    return None


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The text with values in their places; what is not there is empty.

    >>> filled("order {{ payload.id }}: {{ payload.items }}", {"payload": {"id": 7, "items": ["a"]}})
    'order 7: ["a"]'
    """
    return _PLACE.sub(lambda found: as_text(_value(found[1], values)), template)


def filled_json(template: str, values: Mapping[str, Any]) -> str:
    r"""The JSON with values in their places: escaped within quotes, else as JSON.

    >>> filled_json('{"text": "on {{ text }}", "all": {{ payload }}}', {"text": "a\tb", "payload": [1]})
    '{"text": "on a\\tb", "all": [1]}'
    """
    is_quoted = False

    def put(found: re.Match[str]) -> str:
        nonlocal is_quoted
        if found[1] is not None:
            value = _value(found[1], values)
            return _json(as_text(value))[1:-1] if is_quoted else _json(value)
        if found[0] == '"':
            is_quoted = not is_quoted
        return found[0]

    return _TOKEN.sub(put, template)


def _value(path: str, values: Mapping[str, Any]) -> Any:
    place: Any = values
    for name in path.split("."):
        if isinstance(place, Mapping):
            place = place.get(name)
        elif isinstance(place, list) and name.isdecimal() and name.isascii() and len(name) < _MOST_DIGITS:
            place = place[int(name)] if int(name) < len(place) else None
        else:
            return None
    return place


def as_text(value: Any) -> str:
    """A value within a text: strings as they are, what is missing as nothing, others as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
