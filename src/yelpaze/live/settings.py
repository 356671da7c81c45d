"""The gateway's settings: what is wrong with them beyond what types can say."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from yelpaze.config.convert import Mistake
from yelpaze.config.loader import Schema
from yelpaze.live.config import ChannelOptions, Client, Config, Token
from yelpaze.live.protocol.handshake import networks
from yelpaze.model.errors import InputError

_LAST_PORT = 65_535
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
# What Centrifugo's file has elsewhere, or not at all here.
_ELSEWHERE = {
    "engine": "Redis is at broker: {type: redis, redis: {address: …}}",
    "admin": "there is no admin interface",
    "consumers": "there are none yet",
    "grpc_api": "there is none: use the HTTP API",
    "health": "/health is always there",
    "http_stream": "there is none yet",
    "log": "notes and warnings go to stderr",
    "prometheus": "--metrics serves them",
    "proxy": "there are none yet",
    "rpc": "there is none yet",
    "uni_sse": "plain readers are at /sse/CHANNEL",
    "uni_websocket": "plain clients are at /ws/CHANNEL",
}


def mistakes_of(config: Config) -> Iterator[Mistake]:
    """What types can't say."""
    namespaces = config.channel.namespaces
    yield from _names([namespace.name for namespace in namespaces])
    yield from _numbers(config, "")
    yield from _options(config.channel.without_namespace, "channel.without_namespace")
    for number, options in enumerate(namespaces):
        yield from _options(options, f"channel.namespaces[{number}]")
    yield from _client(config.client)
    for place, value, least in (
        ("client.channel_limit", config.client.channel_limit, 1),
        ("client.queue_max_size", config.client.queue_max_size, 1024),
        ("websocket.message_size_limit", config.websocket.message_size_limit, 128),
        ("channel.max_length", config.channel.max_length, 1),
    ):
        if 0 <= value < least:
            yield Mistake(place, f"is at least {least}")
    if config.http_server.port > _LAST_PORT:
        yield Mistake("http_server.port", f"is at most {_LAST_PORT}")
    for name in ("namespace_boundary", "user_boundary", "user_separator"):
        if not getattr(config.channel, name):
            yield Mistake(f"channel.{name}", "is a character or more")


def _names(names: list[str]) -> Iterator[Mistake]:
    for number, name in enumerate(names):
        place = f"channel.namespaces[{number}].name"
        if not re.fullmatch(r"[-a-zA-Z0-9_.]{2,}", name):
            yield Mistake(place, f"{name!r} is no name: letters, digits, -, _ and ., at least two")
        if name in names[:number]:
            yield Mistake(place, f"{name!r} is there twice")


def _numbers(section: msgspec.Struct, place: str) -> Iterator[Mistake]:
    for name in section.__struct_fields__:
        value, path = getattr(section, name), f"{place}{name}"
        if isinstance(value, int | float) and value < 0:
            yield Mistake(path, "is 0 or more")
        if isinstance(value, msgspec.Struct):
            yield from _numbers(value, f"{path}.")
        elif isinstance(value, tuple):
            for number, one in enumerate(value):
                if isinstance(one, msgspec.Struct):
                    yield from _numbers(one, f"{path}[{number}].")


def _client(client: Client) -> Iterator[Mistake]:
    if client.pong_timeout >= client.ping_interval > 0:
        yield Mistake("client.pong_timeout", "must be below client.ping_interval")
    try:
        networks(client.trusted_proxies)
    except ValueError as error:
        yield Mistake("client.trusted_proxies", f"takes addresses and networks: {error}")
    for number, origin in enumerate(client.allowed_origins):
        text = _wrong_origin(origin)
        if text:
            yield Mistake(f"client.allowed_origins[{number}]", f"{origin!r} {text}")
    yield from _token(client.token, "client.token")
    yield from _token(client.subscription_token, "client.subscription_token")


def _wrong_origin(origin: str) -> str:
    """Why an origin can never be what a browser sends (RFC 6454, section 7); empty if it can."""
    if origin in ("*", "null"):
        return ""
    scheme, separator, rest = origin.partition("://")
    if not separator:
        return f"is no origin: write https://{origin.removeprefix('*.')}, or * for all"
    if any(character.isspace() or character == "," for character in origin):
        return "is several origins, or has a space in it: make it a list"
    host, slash, _ = rest.partition("/")
    if slash:
        return f"has a path, which browsers do not send: write {scheme}://{host}"
    if host.endswith(_DEFAULT_PORTS.get(scheme.lower(), "\0")):
        return f"has a port that browsers leave out: write {scheme}://{host.rpartition(':')[0]}"
    return ""


def _token(token: Token, place: str) -> Iterator[Mistake]:
    try:
        url = urlsplit(token.jwks_public_endpoint)
        is_url = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        is_url = False
    if token.jwks_public_endpoint and not is_url:
        yield Mistake(f"{place}.jwks_public_endpoint", "is no address: write https://…")


def _options(options: ChannelOptions, place: str) -> Iterator[Mistake]:
    size, ttl = options.history_size, options.history_ttl
    if size >= 0 and ttl >= 0 and (size > 0) != (ttl > 0):
        yield Mistake(place, "history_size and history_ttl need each other")
    for name in ("force_recovery", "allow_recovery", "force_positioning", "allow_positioning"):
        if getattr(options, name) and not options.has_history:
            yield Mistake(f"{place}.{name}", "needs history_size and history_ttl")
    try:
        re.compile(options.channel_regex)
    except re.error as error:
        yield Mistake(f"{place}.channel_regex", str(error))


LIVE = Schema("live", Config, mistakes_of, _ELSEWHERE)


def broker_setting(text: str, name: str) -> dict[str, Any]:
    """`memory` or the address of a Redis, as a setting; `name` is what it was given as. Raises InputError."""
    if text == "memory":
        return {"broker": {"type": "memory"}}
    if not text.startswith(("redis://", "rediss://", "unix://")):
        scheme, has_scheme, _ = text.partition("://")
        # More of it could be a password.
        shown = f"{scheme}://…" if has_scheme else text if text.isalnum() else "…"
        raise InputError(f"{name} takes memory or redis://host:port, not {shown!r}")
    return {"broker": {"type": "redis", "redis": {"address": text}}}
