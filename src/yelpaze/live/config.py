"""The gateway's settings, laid out and named as in Centrifugo v6's configuration file.

    client:   who may connect, and how much each may do       http_api: the key of the server API
    channel:  what each namespace's channels can              websocket, sse, shutdown
    broker:   memory, or the Redis between nodes

What Centrifugo does not have is marked `ours` below. Durations are written as Go writes them: 300s, 5m,
1h30m.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from yelpaze.model.errors import InputError

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PREFIX = "YELPAZE_LIVE__"
_SPLIT = "__"
_LAST_PORT = (1 << 16) - 1

SlowConsumer = Literal["close", "drop_oldest", "latest"]


class Duration(float):
    """Seconds, written `300s`, `5m`, `1h30m`, `500ms` or as a number.

    >>> Duration.parse("1h30m")
    5400.0
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read it. Raises ValueError."""
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return cls(text)
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"a duration is written 300s, 5m or 1h30m, not {text!r}")
        return cls(sum(float(number) * _UNITS[unit] for number, unit in parts))


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section: a name that it does not know is a mistake, never ignored."""


class Token(Strict, frozen=True, kw_only=True):
    """How JSON web tokens are checked. A token's algorithm must be of a kind that has a key here."""

    hmac_secret_key: str = ""
    hmac_previous_secret_key: str = ""
    rsa_public_key: str = ""
    ecdsa_public_key: str = ""
    ed25519_public_key: str = ""  # ours
    jwks_public_endpoint: str = ""
    audience: str = ""
    issuer: str = ""
    user_id_claim: str = "sub"


class SubscriptionToken(Token, frozen=True, kw_only=True):
    """Keys of their own for the tokens of subscriptions, if enabled; otherwise `client.token`'s are used."""

    enabled: bool = False


class PersonalChannel(Strict, frozen=True, kw_only=True):
    """Subscribe each user to `#user` when it connects."""

    enabled: bool = False
    personal_channel_namespace: str = ""


class Client(Strict, frozen=True, kw_only=True):
    """Who may connect, and how much each may do. A limit of 0 is none."""

    token: Token = Token()
    subscription_token: SubscriptionToken = SubscriptionToken()
    allowed_origins: tuple[str, ...] = ()
    insecure: bool = False
    allow_anonymous_connect_without_token: bool = False
    disallow_anonymous_connection_tokens: bool = False
    ping_interval: Duration = Duration(25)
    pong_timeout: Duration = Duration(8)
    stale_close_delay: Duration = Duration(10)
    expired_close_delay: Duration = Duration(25)
    expired_sub_close_delay: Duration = Duration(25)
    presence_update_interval: Duration = Duration(27)
    channel_position_check_delay: Duration = Duration(40)
    channel_limit: int = 128
    queue_max_size: int = 1 << 20
    connection_limit: int = 0
    user_connection_limit: int = 0
    ip_connection_limit: int = 0  # ours
    connection_rate_limit: int = 0
    command_rate_limit: int = 0  # ours: commands a second
    trusted_proxies: tuple[str, ...] = ()  # ours: whose X-Forwarded-For is believed
    history_max_publication_limit: int = 300
    recovery_max_publication_limit: int = 300
    subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel()


class ChannelOptions(Strict, frozen=True, kw_only=True):
    """What the channels of a namespace can."""

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    history_size: int = 0
    history_ttl: Duration = Duration(0)
    history_meta_ttl: Duration = Duration(0)
    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_subscribe_for_client: bool = False
    allow_publish_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_user_limited_channels: bool = False
    channel_regex: str = ""
    allowed_delta_types: tuple[str, ...] = ()  # read, for files that have them: deltas are never sent
    delta_publish: bool = False  # likewise
    slow_consumer: SlowConsumer = "close"  # ours
    publish_rate_limit: int = 0  # ours: a second and client; a faster one is read from more slowly

    @property
    def has_history(self) -> bool:
        """Whether publications are kept, so that they have offsets."""
        return self.history_size > 0 and self.history_ttl > 0


class Namespace(ChannelOptions, frozen=True, kw_only=True):
    """The options of channels named `name:…`."""

    name: str


class Channel(Strict, frozen=True, kw_only=True):
    """Channels: their namespaces, and what their names mean."""

    without_namespace: ChannelOptions = ChannelOptions()
    namespaces: tuple[Namespace, ...] = ()
    history_meta_ttl: Duration = Duration(720 * 3600)
    max_length: int = 255
    private_prefix: str = "$"
    namespace_boundary: str = ":"
    user_boundary: str = "#"
    user_separator: str = ","


class HttpApi(Strict, frozen=True, kw_only=True):
    """The server API. Without a key it is closed, unless it is called insecure."""

    disabled: bool = False
    key: str = ""
    insecure: bool = False
    message_size_limit: int = 16 << 20  # ours


class WebSocket(Strict, frozen=True, kw_only=True):
    """Both kinds of WebSocket."""

    message_size_limit: int = 65_536
    plain_ping_interval: Duration = Duration(30)  # ours: clients without Centrifugo's protocol
    plain_disabled: bool = False  # ours


class Sse(Strict, frozen=True, kw_only=True):
    """`/sse/{channel}`. Ours."""

    disabled: bool = False
    ping_interval: Duration = Duration(25)


class Redis(Strict, frozen=True, kw_only=True):
    """Where it is, and what our keys begin with."""

    address: str = "redis://127.0.0.1:6379"
    prefix: str = "yelpaze"
    connect_timeout: Duration = Duration(1)
    io_timeout: Duration = Duration(4)


class Broker(Strict, frozen=True, kw_only=True):
    """What connects the nodes: nothing, or Redis."""

    type: Literal["memory", "redis"] = "memory"
    redis: Redis = Redis()


class HttpServer(Strict, frozen=True, kw_only=True):
    """Where it listens."""

    address: str = "127.0.0.1"
    port: int = 8000


class Shutdown(Strict, frozen=True, kw_only=True):
    """How long clients are given to go elsewhere."""

    timeout: Duration = Duration(30)


class Config(Strict, frozen=True, kw_only=True):
    """All settings of a gateway."""

    client: Client = Client()
    channel: Channel = Channel()
    http_api: HttpApi = HttpApi()
    http_server: HttpServer = HttpServer()
    websocket: WebSocket = WebSocket()
    sse: Sse = Sse()
    broker: Broker = Broker()
    shutdown: Shutdown = Shutdown()


S = TypeVar("S", bound=msgspec.Struct)


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
        raise _told(str(error)) from None
    _check(config)
    return config


def _duration(kind: type, value: Any) -> Any:
    if kind is not Duration:
        raise NotImplementedError
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a duration is written 300s, 5m or 1h30m, not {value!r}")  # noqa: TRY004  msgspec takes it so
    return Duration.parse(str(value))


def _told(message: str) -> SettingError:
    """Msgspec's words, with the field's name as it stands in the file, and the nearest known name."""
    from difflib import get_close_matches  # noqa: PLC0415  only for mistakes

    text, _, place = message.partition(" - at `$")
    path = place.rstrip("`").strip(".")
    unknown = re.search(r"unknown field `(\w+)`", text)
    if unknown is None:
        return SettingError(path, text)
    section: Any = Config
    for name in re.findall(r"[a-z_]\w*", path):
        section = _section(section, name)
    names = [field.name for field in msgspec.structs.fields(section)]
    near = get_close_matches(unknown[1], names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
    return SettingError(f"{path}.{unknown[1]}" if path else unknown[1], f"there is no such setting{hint}")


def _section(struct: Any, name: str) -> Any:
    field = next(field for field in msgspec.structs.fields(struct) if field.name == name)
    arguments = getattr(field.type, "__args__", None)
    return arguments[0] if arguments else field.type


def _check(config: Config) -> None:
    """What types can't say."""
    namespaces = config.channel.namespaces
    _check_names([namespace.name for namespace in namespaces])
    _check_numbers(config, "")
    _check_options(config.channel.without_namespace, "channel.without_namespace")
    for number, options in enumerate(namespaces):
        _check_options(options, f"channel.namespaces[{number}]")
    client = config.client
    if client.pong_timeout >= client.ping_interval > 0:
        raise SettingError("client.pong_timeout", "must be below client.ping_interval")
    for place, value, least in (
        ("client.channel_limit", client.channel_limit, 1),
        ("client.queue_max_size", client.queue_max_size, 1024),
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
    """Settings from YELPAZE_LIVE__SECTION__NAME; lists are separated by commas.

    >>> from_environment({"YELPAZE_LIVE__CLIENT__TOKEN__HMAC_SECRET_KEY": "s"})
    {'client': {'token': {'hmac_secret_key': 's'}}}
    """
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX):
            continue
        *sections, name = variable.removeprefix(_PREFIX).lower().split(_SPLIT)
        place = found
        for number, section in enumerate(sections, 1):
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingError(".".join(sections[:number]), "is a section, and has no value of its own")
        is_list = name in ("allowed_origins", "trusted_proxies", "allowed_delta_types")
        place[name] = [item for item in re.split(r"[ ,]+", value) if item] if is_list else value
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings: sections are merged, values and lists replaced."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result
