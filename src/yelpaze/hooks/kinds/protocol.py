"""A kind of endpoint: its options, and the requests that its attempts send.

Settings ──prepare, once──→ Builder ──(Content), each attempt──→ HttpCall or Email
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from yelpaze.hooks.values import EndpointTls

MOST_TEXT = 20_000
# What reading an answer's body as JSON may raise.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an endpoint that its deliveries need. The store has them encrypted as a whole.

    Attributes:
        timeout: Seconds for an attempt.
        concurrency: Attempts at once.
        rate: Attempts in a second at most; None for no limit.
        schedule: Seconds before each attempt; None for the service's.
        trusted: It comes from the operator's own settings: its address is not guarded.

    """

    kind: str = "webhook"
    url: str = ""
    options: dict[str, Any] = {}
    headers: dict[str, str] = {}
    timeout: float | None = None
    concurrency: int | None = None
    rate: int | None = None
    fifo: bool = False
    schedule: tuple[float, ...] | None = None
    tls: EndpointTls | None = None
    trusted: bool = False


class Secret(msgspec.Struct, frozen=True):
    """A signing secret, and when it ceases to hold, in milliseconds since 1970."""

    text: str
    expires: int | None = None


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an attempt. `created` and `now` are seconds since 1970."""

    message_id: str
    event_type: str
    payload: bytes
    created: float
    now: int
    order_key: str | None = None

    def values(self) -> dict[str, Any]:
        """The values that a template can name."""
        payload = msgspec.json.decode(self.payload)
        return {
            "id": self.message_id,
            "type": self.event_type,
            "timestamp": int(self.created),
            "order_key": self.order_key,
            "payload": payload,
            "title": _title(self.event_type, payload),
            "text": _text(self.event_type, payload),
        }


class HttpCall(msgspec.Struct, frozen=True):
    """A request to send."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Email(msgspec.Struct, frozen=True, kw_only=True):
    """A mail to send over SMTP."""

    host: str
    port: int
    security: str
    username: str
    password: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str
    message_id: str


Builder = Callable[[Content], HttpCall | Email]
Mistakes = Iterable[tuple[str, str]]  # a field, and what is wrong with it


def no_mistakes(_settings: Settings, _options: Any) -> Mistakes:
    """All is well."""
    return ()


def never(_status: int, _body: bytes) -> str | None:
    """A status of 200 to 299 is a success."""
    return None


def unknown(_body: bytes) -> float | None:
    """The body says nothing of when to try again."""
    return None


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of endpoint.

    Attributes:
        name: Its name in the API.
        options: The struct of its options; unknown names are refused.
        prepare: Makes the builder of an endpoint's attempts; options have been checked.
        check: What is wrong beyond types.
        url: The URL where none is given; None if one must be given.
        has_url: Whether it has a URL at all.
        is_url_secret: Whether who knows the URL may write to it.
        secret_options: Those that are never shown.
        signs: Whether it has a signing secret.
        refusal: Why an answer with a status of 200 to 299 is a failure all the same.
        retry_after: Seconds to wait that a refusal's body names.

    """

    name: str
    options: type[msgspec.Struct]
    prepare: Callable[[Settings, Any, tuple[Secret, ...]], Builder]
    check: Callable[[Settings, Any], Mistakes] = no_mistakes
    url: str | None = None
    has_url: bool = True
    is_url_secret: bool = False
    secret_options: frozenset[str] = frozenset()
    signs: bool = False
    refusal: Callable[[int, bytes], str | None] = never
    retry_after: Callable[[bytes], float | None] = unknown


# Headers that no endpoint sets for itself.
RESERVED = frozenset(
    {
        "host",
        "content-type",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "traceparent",
        "user-agent",
    }
)
JSON_HEADERS = (("Content-Type", "application/json"),)


def headers_of(settings: Settings, *own: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """An endpoint's headers, and those of the kind, which cannot be replaced."""
    taken = {name.lower() for name, _ in own}
    return (*own, *((name, value) for name, value in settings.headers.items() if name.lower() not in taken))


def json_call(settings: Settings, url: str, value: Any, *own: tuple[str, str]) -> HttpCall:
    """A POST of JSON."""
    headers = headers_of(settings, *JSON_HEADERS, *own)
    return HttpCall("POST", url, headers, msgspec.json.encode(value))


def cut(text: str, most: int) -> str:
    """The text, shortened to so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def cut_json(text: str, most: int) -> str:
    """The text, shortened until it takes so many bytes in JSON."""
    while (size := len(msgspec.json.encode(text))) > most:
        text = cut(text, min(len(text) - 1, len(text) * most // size))
    return text


def _title(event_type: str, payload: Any) -> str:
    given = payload.get("title") if isinstance(payload, Mapping) else None
    return given if isinstance(given, str) and given else event_type


def _text(event_type: str, payload: Any) -> str:
    """The text for people: the payload's `text` or `message`, else its type and content."""
    if isinstance(payload, Mapping):
        for name in ("text", "message", "description"):
            given = payload.get(name)
            if isinstance(given, str) and given:
                title = payload.get("title")
                return f"{title}\n{given}" if isinstance(title, str) and title else given
        if isinstance(payload.get("title"), str):
            return str(payload["title"])
    shown = msgspec.json.format(msgspec.json.encode(payload), indent=2).decode()
    return cut(f"{event_type}\n{textwrap.dedent(shown)}", MOST_TEXT)
