"""All kinds of endpoints by name: a new one is a file beside this, and a line here."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from yelpaze.hooks.kinds.discord import DISCORD
from yelpaze.hooks.kinds.email import EMAIL
from yelpaze.hooks.kinds.http import HTTP
from yelpaze.hooks.kinds.ntfy import NTFY
from yelpaze.hooks.kinds.pagerduty import PAGERDUTY
from yelpaze.hooks.kinds.protocol import Builder, Kind, Secret, Settings
from yelpaze.hooks.kinds.slack import SLACK
from yelpaze.hooks.kinds.teams import TEAMS
from yelpaze.hooks.kinds.telegram import TELEGRAM
from yelpaze.hooks.kinds.webhook import WEBHOOK

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (WEBHOOK, HTTP, SLACK, DISCORD, TELEGRAM, TEAMS, NTFY, PAGERDUTY, EMAIL)
}


def kind_of(settings: Settings) -> Kind:
    """The kind of an endpoint that has been checked."""
    return KINDS[settings.kind]


def options_of(settings: Settings) -> Any:
    """Its options, as the kind's struct."""
    return msgspec.convert(settings.options, kind_of(settings).options)


def builder_of(settings: Settings, secrets: tuple[Secret, ...]) -> Builder:
    """Return the builder of an endpoint's requests."""
    return kind_of(settings).prepare(settings, options_of(settings), secrets)


def mistakes_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """Find mistakes in the kind and its options: a field, and the reason."""
    kind = KINDS.get(settings.kind)
    if kind is None:
        near = get_close_matches(settings.kind, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"takes one of {', '.join(KINDS)}"
        yield "kind", f"unknown kind {settings.kind!r}: {hint}"
        return
    try:
        options = msgspec.convert(settings.options, kind.options)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        yield f"options{path.rstrip('`').replace('[', '.').replace(']', '')}", text
        return
    yield from kind.check(settings, options)


def shown_url(settings: Settings) -> str:
    """The URL for the log, without what is secret in it: for some services that is all but the host."""
    url = settings.url
    if not KINDS[settings.kind].is_url_secret:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/***"


def shown_options(settings: Settings) -> dict[str, Any]:
    """The options without their secrets."""
    secret = KINDS[settings.kind].secret_options
    return {name: "***" if name in secret and value else value for name, value in settings.options.items()}
