"""`discord`: a channel's webhook (discord.com/developers/docs/resources/webhook)."""

import msgspec

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import (
    UNREADABLE,
    Builder,
    Content,
    HttpCall,
    Kind,
    Secret,
    Settings,
    cut,
    json_call,
)

_MOST = 2000


class _RateLimited(msgspec.Struct):
    retry_after: float


def _prepare(settings: Settings, options: ChatOptions, _secrets: tuple[Secret, ...]) -> Builder:
    def build(content: Content) -> HttpCall:
        text = cut(text_of(options.template, content), _MOST)
        # Nobody is notified because a payload has @everyone in it.
        return json_call(settings, settings.url, {"content": text, "allowed_mentions": {"parse": []}})

    return build


def _retry_after(body: bytes) -> float | None:
    try:
        return msgspec.json.decode(body, type=_RateLimited).retry_after
    except UNREADABLE:
        return None


DISCORD = Kind(
    name="discord",
    is_url_secret=True,
    options=ChatOptions,
    prepare=_prepare,
    check=check_template,
    retry_after=_retry_after,
)
