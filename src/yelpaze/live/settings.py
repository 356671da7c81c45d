"""Settings as they are read: to `Config`, or to the place of the first mistake."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from yelpaze.live.config import ChannelOptions, Client, Config, Duration, Token
from yelpaze.live.protocol.handshake import networks
from yelpaze.model.errors import InputError

_PREFIX = "YELPAZE_LIVE__"
_NEARLY = "YELPAZE_LIVE_"
_SPLIT = "__"
_LAST_PORT = 65_535
_LISTS = ("allowed_origins", "trusted_proxies", "allowed_delta_types")
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


class SettingError(InputError):
    """A setting that can't be; `path` is its place: names, and numbers in lists."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        super().__init__(f"{path}: {text}" if path else text)


def config_of(settings: Mapping[str, Any]) -> Config:
    """Settings as read from a file or the environment. Raises SettingError."""
    try:
        config = msgspec.convert(settings, Config, strict=False, dec_hook=_duration)
    except msgspec.ValidationError as error:
        raise _error_of(str(error)) from None
    _check(config)
    return config


def _duration(kind: type, value: Any) -> Any:
    if kind is not Duration:
        raise NotImplementedError
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a duration is written 300s, 5m or 1h30m, not {value!r}")  # noqa: TRY004  msgspec takes it so
    return Duration.parse(str(value))


def _error_of(message: str) -> SettingError:
    """Msgspec's words, with the field's name as it stands in the file, and the nearest known name."""
    text, _, place = message.partition(" - at `$")
    path = place.rstrip("`").strip(".")
    unknown = re.search(r"unknown field `(.*)`\Z", text, re.DOTALL)
    section = _kind_at(path)
    if unknown is None:
        values = get_args(section) if get_origin(section) is Literal else ()
        return SettingError(path, f"takes {', '.join(values)}: {text.lower()}" if values else text)
    if unknown[1] in _ELSEWHERE:
        return SettingError(f"{path}.{unknown[1]}".strip("."), f"not here: {_ELSEWHERE[unknown[1]]}")
    names = [field.name for field in msgspec.structs.fields(section)]
    near = get_close_matches(unknown[1], names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
    name = unknown[1] if re.fullmatch(r"[\w-]+", unknown[1]) else repr(unknown[1])
    return SettingError(f"{path}.{name}" if path else name, f"there is no such setting{hint}")


def _kind_at(path: str) -> Any:
    """The type of a setting."""
    kind: Any = Config
    for name in re.findall(r"[a-z_]\w*", path):
        kind = next((field.type for field in msgspec.structs.fields(kind) if field.name == name), None)
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
    return kind


def _check(config: Config) -> None:
    """What types can't say."""
    namespaces = config.channel.namespaces
    _check_names([namespace.name for namespace in namespaces])
    _check_numbers(config, "")
    _check_options(config.channel.without_namespace, "channel.without_namespace")
    for number, options in enumerate(namespaces):
        _check_options(options, f"channel.namespaces[{number}]")
    _check_client(config.client)
    for place, value, least in (
        ("client.channel_limit", config.client.channel_limit, 1),
        ("client.queue_max_size", config.client.queue_max_size, 1024),
        ("websocket.message_size_limit", config.websocket.message_size_limit, 128),
        ("channel.max_length", config.channel.max_length, 1),
    ):
        if value < least:
            raise SettingError(place, f"is at least {least}")
    if config.http_server.port > _LAST_PORT:
        raise SettingError("http_server.port", f"is at most {_LAST_PORT}")
    for name in ("namespace_boundary", "user_boundary", "user_separator"):
        if not getattr(config.channel, name):
            raise SettingError(f"channel.{name}", "is a character or more")


def _check_names(names: list[str]) -> None:
    for number, name in enumerate(names):
        place = f"channel.namespaces[{number}].name"
        if not re.fullmatch(r"[-a-zA-Z0-9_.]{2,}", name):
            raise SettingError(place, f"{name!r} is no name: letters, digits, -, _ and ., at least two")
        if name in names[:number]:
            raise SettingError(place, f"{name!r} is there twice")


def _check_numbers(section: msgspec.Struct, place: str) -> None:
    for name in section.__struct_fields__:
        value, path = getattr(section, name), f"{place}{name}"
        if isinstance(value, int | float) and value < 0:
            raise SettingError(path, "is 0 or more")
        if isinstance(value, msgspec.Struct):
            _check_numbers(value, f"{path}.")
        elif isinstance(value, tuple):
            for number, one in enumerate(value):
                if isinstance(one, msgspec.Struct):
                    _check_numbers(one, f"{path}[{number}].")


def _check_client(client: Client) -> None:
    if client.pong_timeout >= client.ping_interval > 0:
        raise SettingError("client.pong_timeout", "must be below client.ping_interval")
    try:
        networks(client.trusted_proxies)
    except ValueError as error:
        raise SettingError("client.trusted_proxies", f"takes addresses and networks: {error}") from None
    for number, origin in enumerate(client.allowed_origins):
        if origin != "*" and "://" not in origin and origin != "null":
            text = f"{origin!r} is no origin: write https://{origin.removeprefix('*.')}, or * for all"
            raise SettingError(f"client.allowed_origins[{number}]", text)
    _check_token(client.token, "client.token")
    _check_token(client.subscription_token, "client.subscription_token")


def _check_token(token: Token, place: str) -> None:
    url = urlsplit(token.jwks_public_endpoint)
    if token.jwks_public_endpoint and not (url.scheme in ("http", "https") and url.hostname):
        raise SettingError(f"{place}.jwks_public_endpoint", "is no address: write https://…")


def _check_options(options: ChannelOptions, place: str) -> None:
    if (options.history_size > 0) != (options.history_ttl > 0):
        raise SettingError(place, "history_size and history_ttl need each other")
    for name in ("force_recovery", "allow_recovery", "force_positioning", "allow_positioning"):
        if getattr(options, name) and not options.has_history:
            raise SettingError(f"{place}.{name}", "needs history_size and history_ttl")
    try:
        re.compile(options.channel_regex)
    except re.error as error:
        raise SettingError(f"{place}.channel_regex", str(error)) from None


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings from YELPAZE_LIVE__SECTION__NAME; lists are separated by commas, or JSON.

    >>> from_environment({"YELPAZE_LIVE__CLIENT__TOKEN__HMAC_SECRET_KEY": "s"})
    {'client': {'token': {'hmac_secret_key': 's'}}}
    """
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX):
            if variable.startswith(_NEARLY):
                raise SettingError(
                    "", f"{variable}: two underscores part sections: YELPAZE_LIVE__SECTION__NAME"
                )
            continue
        *sections, name = variable.removeprefix(_PREFIX).lower().split(_SPLIT)
        place = found
        for number, section in enumerate(sections, 1):
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingError(".".join(sections[:number]), "is a section, and has no value of its own")
        place[name] = _value(variable, name, value)
    return found


def _value(variable: str, name: str, text: str) -> Any:
    """A list of words, JSON, or text."""
    if text.startswith(("[", "{")):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise SettingError("", f"{variable}: is no JSON: {error}") from None
    return [item for item in re.split(r"[ ,]+", text) if item] if name in _LISTS else text


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings: sections are merged, values and lists replaced."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result
