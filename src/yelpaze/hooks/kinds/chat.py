"""The text of chat messages, made from a template."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from yelpaze.hooks.kinds.protocol import Content, Settings
from yelpaze.hooks.template import check, filled


class ChatOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`template` is the text of a message."""

    template: str = "{{ text }}"


def check_template(_settings: Settings, options: Any) -> Iterator[tuple[str, str]]:
    """Find mistakes in the template."""
    wrong = check(options.template)
    if wrong:
        yield "options.template", wrong


def text_of(template: str, content: Content, escape: Callable[[str], str] = str) -> str:
    """The text of a message. `escape` is applied to the values, so that none of them is markup."""
    return filled(template, _escaped(content.values(), escape))


def _escaped(value: Any, escape: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(name): _escaped(item, escape) for name, item in value.items()}
    return [_escaped(item, escape) for item in value] if isinstance(value, list) else value
