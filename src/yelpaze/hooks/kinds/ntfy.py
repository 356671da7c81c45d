"""`ntfy`: a push notification to a topic (docs.ntfy.sh/publish, "Publish as JSON")."""

import re
from collections.abc import Iterator
from typing import Any

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import Builder, Content, HttpCall, Kind, Secret, Settings, cut, json_call
from yelpaze.hooks.template import filled

_MOST = 4000  # bytes; what is longer becomes an attachment
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_PRIORITIES = range(1, 6)


class NtfyOptions(ChatOptions, frozen=True, forbid_unknown_fields=True):
    """A topic; `priority` is 1 to 5, `token` an access token if the server asks for one."""

    topic: str = ""
    priority: int = 3
    token: str = ""
    tags: tuple[str, ...] = ()


def _check(settings: Settings, options: NtfyOptions) -> Iterator[tuple[str, str]]:
    if not _TOPIC.fullmatch(options.topic):
        yield "options.topic", "takes the name of a topic: letters, digits, - and _"
    if options.priority not in _PRIORITIES:
        yield "options.priority", "takes 1 to 5"
    if not (options.token.isascii() and (options.token.isprintable() or not options.token)):
        yield "options.token", "takes an access token"
    yield from check_template(settings, options)


def _prepare(settings: Settings, options: NtfyOptions, _secrets: tuple[Secret, ...]) -> Builder:
    own = (("Authorization", f"Bearer {options.token}"),) if options.token else ()

    def build(content: Content) -> HttpCall:
        text = text_of(options.template, content).encode()[:_MOST].decode(errors="ignore")
        value: dict[str, Any] = {
            "topic": options.topic,
            "title": cut(filled("{{ title }}", content.values()), 250),
            "message": text,
            "priority": options.priority,
        }
        if options.tags:
            value["tags"] = options.tags
        return json_call(settings, settings.url, value, *own)

    return build


NTFY = Kind(
    name="ntfy",
    options=NtfyOptions,
    prepare=_prepare,
    check=_check,
    url="https://ntfy.sh/",
    secret_options=frozenset({"token"}),
)
