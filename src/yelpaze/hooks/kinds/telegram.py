"""`telegram`: a bot's message to a chat (core.telegram.org/bots/api#sendmessage)."""

import re
from collections.abc import Iterator

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

_MOST = 4096
_TOKEN = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")


class TelegramOptions(ChatOptions, frozen=True, forbid_unknown_fields=True):
    """The token of a bot, and the chat that it writes to."""

    token: str = ""
    chat_id: str = ""


class _Parameters(msgspec.Struct, frozen=True):
    retry_after: float | None = None


class _Answer(msgspec.Struct):
    ok: bool
    description: str = ""
    parameters: _Parameters = _Parameters()


def _check(settings: Settings, options: TelegramOptions) -> Iterator[tuple[str, str]]:
    if not _TOKEN.fullmatch(options.token):
        yield "options.token", "takes a bot's token, as 123456:ABC-DEF"
    if not options.chat_id:
        yield "options.chat_id", "takes the id of a chat, as -1001234567890 or @channel"
    yield from check_template(settings, options)


def _prepare(settings: Settings, options: TelegramOptions, _secrets: tuple[Secret, ...]) -> Builder:
    url = f"{settings.url.rstrip('/')}/bot{options.token}/sendMessage"

    def build(content: Content) -> HttpCall:
        text = cut(text_of(options.template, content), _MOST)
        return json_call(settings, url, {"chat_id": options.chat_id, "text": text})

    return build


def _answer(body: bytes) -> _Answer | None:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except UNREADABLE:
        return None


def _refusal(_status: int, body: bytes) -> str | None:
    answer = _answer(body)
    return f"Telegram refused: {answer.description}" if answer is not None and not answer.ok else None


def _retry_after(body: bytes) -> float | None:
    answer = _answer(body)
    return answer.parameters.retry_after if answer is not None else None


TELEGRAM = Kind(
    name="telegram",
    options=TelegramOptions,
    prepare=_prepare,
    check=_check,
    url="https://api.telegram.org",
    secret_options=frozenset({"token"}),
    refusal=_refusal,
    retry_after=_retry_after,
)
