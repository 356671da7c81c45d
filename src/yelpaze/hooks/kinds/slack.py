"""`slack`: an incoming webhook (api.slack.com/messaging/webhooks)."""

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import Builder, Content, HttpCall, Kind, Secret, Settings, cut, json_call

_MOST = 40_000


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _prepare(settings: Settings, options: ChatOptions, _secrets: tuple[Secret, ...]) -> Builder:
    def build(content: Content) -> HttpCall:
        text = cut(text_of(options.template, content, _escaped), _MOST)
        return json_call(settings, settings.url, {"text": text})

    return build


SLACK = Kind(name="slack", is_url_secret=True, options=ChatOptions, prepare=_prepare, check=check_template)
