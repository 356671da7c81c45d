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
    hmac_previous_secret_key: Secret = Secret()  # previous key, accepted while a key is rotated
    rsa_public_key: str = ""  # in PEM, for RS256, …
    ecdsa_public_key: str = ""  # in PEM, for ES256, …
    ed25519_public_key: str = ""  # ours: in PEM, for EdDSA
    jwks_public_endpoint: str = ""  # URL of a key set
    audience: str = ""  # required value of `aud`, if set
    issuer: str = ""  # required value of `iss`, if set
    user_id_claim: str = "sub"  # claim with the user's id


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
    allowed_origins: tuple[str, ...] = ()  # origins of pages that may connect; `*` for any text
    insecure: bool = False  # every client may do everything
    allow_anonymous_connect_without_token: bool = False  # accept connections without a token, as anonymous
    disallow_anonymous_connection_tokens: bool = False  # refuse tokens without a user
    ping_interval: Duration = Duration(25)  # interval between pings; 0 for none
    pong_timeout: Duration = Duration(8)  # time to answer a ping, else 3012
    stale_close_delay: Duration = Duration(10)  # time to send `connect`, else 3502
    expired_close_delay: Duration = Duration(25)  # time to refresh an expired token
    expired_sub_close_delay: Duration = Duration(25)  # time to refresh an expired subscription token
    presence_update_interval: Duration = Duration(27)  # interval at which presence in Redis is renewed
    channel_position_check_delay: Duration = Duration(40)  # silence before positions are compared
    channel_limit: int = 128  # maximum channels per client
    queue_max_size: Size = Size(1 << 20)  # maximum bytes queued for a slow reader
    connection_limit: int = 0  # maximum connections per process
    user_connection_limit: int = 0  # maximum connections per user and process
    ip_connection_limit: int = 0  # ours: maximum connections per address and process
    connection_rate_limit: int = 0  # maximum new connections per second and process
    command_rate_limit: int = 0  # ours: maximum commands per second and client
    trusted_proxies: tuple[str, ...] = ()  # ours: addresses and networks whose X-Forwarded-For is trusted
    history_max_publication_limit: int = 300  # maximum publications per history call
    recovery_max_publication_limit: int = 300  # maximum publications sent on recovery
    subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel()


class ChannelOptions(Settings, frozen=True, kw_only=True):
    """Options for a namespace's channels."""

    presence: bool = False  # keep presence: who is subscribed
    join_leave: bool = False  # send join and leave messages to clients that ask for them
    force_push_join_leave: bool = False  # send them to all clients
    history_size: int = 0  # number of publications to keep
    history_ttl: Duration = Duration(0)  # time to keep them
    history_meta_ttl: Duration = Duration(0)  # time to keep offsets; 0 for channel.history_meta_ttl
    force_positioning: bool = False  # detect gaps for all clients
    allow_positioning: bool = False  # detect gaps for clients that ask
    force_recovery: bool = False  # send missed publications to all clients
    allow_recovery: bool = False  # send them to clients that ask
    allow_subscribe_for_anonymous: bool = False  # anonymous clients may subscribe
    allow_subscribe_for_client: bool = False  # clients with a user may subscribe
    allow_publish_for_anonymous: bool = False  # anonymous clients may publish
    allow_publish_for_client: bool = False  # clients with a user may publish
    allow_publish_for_subscriber: bool = False  # subscribers may publish
    allow_presence_for_anonymous: bool = False  # anonymous clients may read presence
    allow_presence_for_client: bool = False  # clients with a user may read presence
    allow_presence_for_subscriber: bool = False  # subscribers may read presence
    allow_history_for_anonymous: bool = False  # anonymous clients may read history
    allow_history_for_client: bool = False  # clients with a user may read history
    allow_history_for_subscriber: bool = False  # subscribers may read history
    allow_user_limited_channels: bool = False  # `dialog#42,43` is for users 42 and 43
    channel_regex: str = ""  # regular expression for names, after the boundary
    allowed_delta_types: tuple[str, ...] = ()  # accepted for compatibility; deltas are never sent
    delta_publish: bool = False  # accepted for compatibility; ignored
    slow_consumer: SlowConsumer = "close"  # ours: policy when a client's queue is full
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
    """Redis as a broker."""

    address: str = "redis://127.0.0.1:6379"  # redis://, rediss:// or unix://
    prefix: str = "yelpaze"  # prefix of all keys
    connect_timeout: Duration = Duration(1)  # timeout for connecting
    io_timeout: Duration = Duration(4)  # timeout for a reply


class Broker(Settings, frozen=True, kw_only=True):
    """Broker between nodes: none, or Redis."""

    type: Literal["memory", "redis"] = "memory"  # kind of broker
    redis: Redis = Redis()


class HttpServer(Settings, frozen=True, kw_only=True):
    """Address of the HTTP server."""

    address: str = "127.0.0.1"  # address to listen on
    port: int = 8000  # 0 for a free one


class Shutdown(Settings, frozen=True, kw_only=True):
    """Disconnecting clients at shutdown."""

    timeout: Duration = Duration(30)  # time over which clients are disconnected at shutdown


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
