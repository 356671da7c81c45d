"""`teams`: a Workflows webhook of Microsoft Teams, which takes an adaptive card.

learn.microsoft.com/power-automate/teams/teams-app-create; Office connectors are retired.
"""

from collections.abc import Iterator

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import (
    Builder,
    Content,
    HttpCall,
    Kind,
    Secret,
    Settings,
    cut_json,
    json_call,
)

_MOST = 26_000  # bytes; a message has 28 KB at most


def _check(settings: Settings, options: ChatOptions) -> Iterator[tuple[str, str]]:
    if ".webhook.office.com" in settings.url.lower():
        yield "url", "is an Office connector, which Microsoft has retired: make a webhook in Workflows"
    yield from check_template(settings, options)


def _prepare(settings: Settings, options: ChatOptions, _secrets: tuple[Secret, ...]) -> Builder:
    def build(content: Content) -> HttpCall:
        text = cut_json(text_of(options.template, content), _MOST)
        block = {"type": "TextBlock", "text": text, "wrap": True}
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [block],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return json_call(settings, settings.url, {"type": "message", "attachments": [attachment]})

    return build


TEAMS = Kind(name="teams", is_url_secret=True, options=ChatOptions, prepare=_prepare, check=_check)
