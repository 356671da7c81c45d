"""The gateway's settings, laid out and named as in Centrifugo v6's configuration file.

    client:   who may connect, and how much each may do       http_api: the key of the server API
    channel:  what each namespace's channels can              websocket, sse, shutdown
    broker:   memory, or the Redis between nodes

What Centrifugo does not have is marked `ours` below. Durations are written as Go writes them: 300s, 5m,
1h30m.
"""

from typing import Literal

from yelpaze.config.values import Duration, Secret, Settings, Size

SlowConsumer = Literal["close", "drop_oldest", "latest"]


class Token(Settings, frozen=True, kw_only=True):
    """How JSON web tokens are checked. A token's algorithm must be of a kind that has a key here."""

    hmac_secret_key: Secret = Secret()  # for HS256, HS384, HS512; 32 bytes or more
    hmac_previous_secret_key: Secret = Secret()  # taken beside it while a key is changed
    rsa_public_key: str = ""  # in PEM, for RS256, …
    ecdsa_public_key: str = ""  # in PEM, for ES256, …
    ed25519_public_key: str = ""  # ours: in PEM, for EdDSA
    jwks_public_endpoint: str = ""  # URL of a key set
    audience: str = ""  # what `aud` must be, if given
    issuer: str = ""  # what `iss` must be, if given
    user_id_claim: str = "sub"  # the claim that names the user


class SubscriptionToken(Token, frozen=True, kw_only=True):
    """Keys of their own for the tokens of subscriptions, if enabled; otherwise `client.token`'s are used."""

    enabled: bool = False  # otherwise those of client.token


class PersonalChannel(Settings, frozen=True, kw_only=True):
    """Subscribe each user to `#user` when it connects."""

    enabled: bool = False  # for users who connect
    personal_channel_namespace: str = ""  # `#user` is in this namespace


class Client(Settings, frozen=True, kw_only=True):
    """Who may connect, and how much each may do. A limit of 0 is none."""

    token: Token = Token()
    subscription_token: SubscriptionToken = SubscriptionToken()
    allowed_origins: tuple[str, ...] = ()  # pages of other hosts that may connect; `*` for any text
    insecure: bool = False  # everybody may do everything
    allow_anonymous_connect_without_token: bool = False  # connect without a token, as nobody
    disallow_anonymous_connection_tokens: bool = False  # refuse tokens without a user
    ping_interval: Duration = Duration(25)  # between two pings; 0 for none
    pong_timeout: Duration = Duration(8)  # for the answer, or 3012
    stale_close_delay: Duration = Duration(10)  # to say who it is, or 3502
    expired_close_delay: Duration = Duration(25)  # after a token's end, for a new one
    expired_sub_close_delay: Duration = Duration(25)  # the same for subscriptions
    presence_update_interval: Duration = Duration(27)  # of what Redis knows of who is there
    channel_position_check_delay: Duration = Duration(40)  # in silence, until positions are compared
    channel_limit: int = 128  # channels of a client
    queue_max_size: Size = Size(1 << 20)  # bytes that wait for a slow reader
    connection_limit: int = 0  # connections of a process
    user_connection_limit: int = 0  # of a user, in a process
    ip_connection_limit: int = 0  # ours: of an address, in a process
    connection_rate_limit: int = 0  # new ones a second, in a process
    command_rate_limit: int = 0  # ours: commands a second of a client
    trusted_proxies: tuple[str, ...] = ()  # ours: addresses, networks
    history_max_publication_limit: int = 300  # given out at once
    recovery_max_publication_limit: int = 300  # given to one that comes back
    subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel()


class ChannelOptions(Settings, frozen=True, kw_only=True):
    """What the channels of a namespace can."""

    presence: bool = False  # who is there can be asked
    join_leave: bool = False  # coming and going is told, to those who ask
    force_push_join_leave: bool = False  # and to those who do not
    history_size: int = 0  # publications that are kept
    history_ttl: Duration = Duration(0)  # for how long
    history_meta_ttl: Duration = Duration(0)  # how long numbers go on; 0 for channel.history_meta_ttl
    force_positioning: bool = False  # gaps are noticed, for all
    allow_positioning: bool = False  # and for those who ask
    force_recovery: bool = False  # what was missed is sent, to all
    allow_recovery: bool = False  # and to those who ask
    allow_subscribe_for_anonymous: bool = False  # everybody
    allow_subscribe_for_client: bool = False  # whoever has a user
    allow_publish_for_anonymous: bool = False  # everybody
    allow_publish_for_client: bool = False  # whoever has a user
    allow_publish_for_subscriber: bool = False  # whoever listens to it
    allow_presence_for_anonymous: bool = False  # everybody
    allow_presence_for_client: bool = False  # whoever has a user
    allow_presence_for_subscriber: bool = False  # whoever listens to it
    allow_history_for_anonymous: bool = False  # everybody
    allow_history_for_client: bool = False  # whoever has a user
    allow_history_for_subscriber: bool = False  # whoever listens to it
    allow_user_limited_channels: bool = False  # `dialog#42,43` is for users 42 and 43
    channel_regex: str = ""  # what names must be, after the boundary
    allowed_delta_types: tuple[str, ...] = ()  # read, for files that have it: deltas are never sent
    delta_publish: bool = False  # read, for files that have it
    slow_consumer: SlowConsumer = "close"  # ours: when a queue is full
    publish_rate_limit: int = 0  # ours: a second and client; a faster one is read from more slowly

    @property
    def has_history(self) -> bool:
        """Whether publications are kept, so that they have offsets."""
        return self.history_size > 0 and self.history_ttl > 0


class Namespace(ChannelOptions, frozen=True, kw_only=True):
    """The options of channels named `name:…`."""

    name: str  # before the boundary


class Channel(Settings, frozen=True, kw_only=True):
    """Channels: their namespaces, and what their names mean."""

    without_namespace: ChannelOptions = ChannelOptions()
    namespaces: tuple[Namespace, ...] = ()  # options of channels `name:…`
    history_meta_ttl: Duration = Duration(720 * 3600)  # how long numbers go on without a publication
    max_length: int = 255  # of a channel's name
    private_prefix: str = "$"  # only with a token for the channel
    namespace_boundary: str = ":"  # after a namespace
    user_boundary: str = "#"  # before users
    user_separator: str = ","  # between users


class HttpApi(Settings, frozen=True, kw_only=True):
    """The server API. Without a key it is closed, unless it is called insecure."""

    disabled: bool = False  # there is no API
    key: Secret = Secret()  # of X-API-Key
    insecure: bool = False  # no key is needed
    message_size_limit: Size = Size(16 << 20)  # ours: bytes of a request


class WebSocket(Settings, frozen=True, kw_only=True):
    """Both kinds of WebSocket."""

    message_size_limit: Size = Size(65_536)  # bytes of a message
    plain_ping_interval: Duration = Duration(30)  # ours: for clients without Centrifugo's protocol
    plain_disabled: bool = False  # ours: no /ws/


class Sse(Settings, frozen=True, kw_only=True):
    """`/sse/{channel}`. Ours."""

    disabled: bool = False  # no /sse/
    ping_interval: Duration = Duration(25)  # between two comments


class Redis(Settings, frozen=True, kw_only=True):
    """Where it is, and what our keys begin with."""

    address: str = "redis://127.0.0.1:6379"  # redis://, rediss:// or unix://
    prefix: str = "yelpaze"  # of all keys
    connect_timeout: Duration = Duration(1)  # to connect
    io_timeout: Duration = Duration(4)  # for an answer


class Broker(Settings, frozen=True, kw_only=True):
    """What connects the nodes: nothing, or Redis."""

    type: Literal["memory", "redis"] = "memory"  # what connects the nodes
    redis: Redis = Redis()


class HttpServer(Settings, frozen=True, kw_only=True):
    """Where it listens."""

    address: str = "127.0.0.1"  # where it listens
    port: int = 8000  # 0 for a free one


class Shutdown(Settings, frozen=True, kw_only=True):
    """How long clients are given to go elsewhere."""

    timeout: Duration = Duration(30)  # over which clients are sent elsewhere


class Config(Settings, frozen=True, kw_only=True):
    """All settings of a gateway."""

    client: Client = Client()
    channel: Channel = Channel()
    http_api: HttpApi = HttpApi()
    http_server: HttpServer = HttpServer()
    websocket: WebSocket = WebSocket()
    sse: Sse = Sse()
    broker: Broker = Broker()
    shutdown: Shutdown = Shutdown()
