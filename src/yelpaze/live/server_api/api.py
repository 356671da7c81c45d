"""The server API, as Centrifugo's: `POST /api/<method>` with a JSON object, answered by `result` or `error`.

What is wrong with the request itself is told by the HTTP status; what is refused, by an error with status
200.
"""

import base64
import hmac
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from yelpaze.live.brokers.broker import BrokerUnavailable, Query
from yelpaze.live.config import ChannelOptions
from yelpaze.live.core.cluster import ControlMessage, NodeInfo
from yelpaze.live.core.node import Node
from yelpaze.live.protocol.codes import (
    BAD_REQUEST,
    FORCE_DISCONNECT,
    INTERNAL,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    Ending,
    Failure,
    Refused,
)
from yelpaze.live.protocol.handshake import Rejected
from yelpaze.live.protocol.messages import HistoryResult, Nothing, PresenceResult, PresenceStatsResult
from yelpaze.live.protocol.values import (
    ClientInfo,
    History,
    Limit,
    MaybeRaw,
    Position,
    Publication,
    on_one_line,
)

_MOST_CHANNELS = 10_000
_MOST_COMMANDS = 1_000


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: str

    @classmethod
    def of(cls, failure: Failure) -> "_Error":
        return cls(failure.code, failure.message)


# ── requests ────────────────────────────────────────────────────────────────────


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    data: MaybeRaw = msgspec.UNSET
    b64data: str = ""
    skip_history: bool = False
    idempotency_key: str = ""

    def content(self) -> msgspec.Raw:
        """What is published. Raises Refused."""
        text = b"" if isinstance(self.data, msgspec.UnsetType) else bytes(self.data)
        if self.b64data:
            try:
                text = base64.b64decode(self.b64data, validate=True)
                msgspec.json.decode(text)
            except (ValueError, msgspec.DecodeError, RecursionError):
                raise Refused(BAD_REQUEST) from None
        if not text:
            raise Refused(BAD_REQUEST)
        return on_one_line(msgspec.Raw(text))


class _Publish(_Data, frozen=True, kw_only=True):
    channel: str


class _Broadcast(_Data, frozen=True, kw_only=True):
    channels: list[str]


class _Channel(msgspec.Struct, frozen=True, kw_only=True):
    channel: str


class _Someone(msgspec.Struct, frozen=True, kw_only=True):
    user: str = ""
    client: str = ""
    session: str = ""
    all_users: bool = False

    def command(self, do: str, **rest: Any) -> ControlMessage:
        """What all nodes do to them."""
        return ControlMessage(
            do=do, user=self.user, client=self.client or self.session, everyone=self.all_users, **rest
        )


class _Subscribe(_Someone, frozen=True, kw_only=True):
    channel: str
    info: MaybeRaw = msgspec.UNSET
    expire_at: int = 0
    recover_since: Position | None = None

    @property
    def seen_info(self) -> MaybeRaw:
        """What others see, in one line; null is nothing."""
        if isinstance(self.info, msgspec.UnsetType) or bytes(self.info) == b"null":
            return msgspec.UNSET
        return on_one_line(self.info)


class _Unsubscribe(_Someone, frozen=True, kw_only=True):
    channel: str


class _Disconnect(_Someone, frozen=True, kw_only=True):
    disconnect: Ending | None = None
    code: int = 0
    reason: str = ""
    whitelist: list[str] = []

    @property
    def ending(self) -> Ending:
        return self.disconnect or (Ending(self.code, self.reason) if self.code else FORCE_DISCONNECT)


class _History(msgspec.Struct, frozen=True, kw_only=True):
    channel: str
    limit: Limit = 0
    since: Position | None = None
    reverse: bool = False


class _Channels(msgspec.Struct, frozen=True, kw_only=True):
    pattern: str = ""


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    commands: list[dict[str, msgspec.Raw]]
    parallel: bool = False


# ── results ─────────────────────────────────────────────────────────────────────


class _Published(msgspec.Struct, frozen=True, omit_defaults=True):
    offset: int = 0
    epoch: str = ""


class _Response(msgspec.Struct, frozen=True, omit_defaults=True):
    error: _Error | None = None
    result: Any = None


class _Responses(msgspec.Struct, frozen=True):
    responses: list[_Response]


class _Count(msgspec.Struct, frozen=True):
    num_clients: int


class _ChannelList(msgspec.Struct, frozen=True):
    channels: dict[str, _Count]


class _Nodes(msgspec.Struct, frozen=True):
    nodes: list[NodeInfo]


class _Replies(msgspec.Struct, frozen=True):
    replies: list[dict[str, Any]]


class Api:
    """The methods, over one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Raise Rejected unless the caller may use the API."""
        settings = self._node.config.http_api
        if settings.disabled:
            raise Rejected(404, "the server API is switched off")
        if settings.insecure:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key", "") or (given.strip() if scheme.lower() == "apikey" else "")
        if not settings.key:
            raise Rejected(401, "the server API has no key yet: set http_api.key")
        if not hmac.compare_digest(key.encode(), settings.key.encode()):
            raise Rejected(401, "X-API-Key is missing or wrong")

    async def answer(self, method: str, body: bytes) -> bytes:
        """Do what a request asks for. Raises Rejected for a request that makes no sense."""
        known = METHODS.get(method)
        if known is None:
            raise Rejected(404, f"there is no method {method[:64]}")
        try:
            body.decode()  # what is passed on as it is, is not looked at otherwise
            request = msgspec.json.decode(body or b"{}", type=known.request)
        except msgspec.ValidationError as error:
            raise Rejected(400, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(400, f"the body is no JSON: {error}") from None
        if known.result is None:
            return msgspec.json.encode(await known.run(self, request))
        return msgspec.json.encode(await self._response(known, request))

    async def _response(self, method: "Method", request: Any) -> _Response:
        try:
            return _Response(result=await method.run(self, request))
        except Refused as error:
            return _Response(error=_Error.of(error.failure))
        except BrokerUnavailable:
            return _Response(error=_Error.of(INTERNAL))

    async def batch(self, request: _Batch) -> _Replies:
        """Run commands one after the other. `parallel` would only allow more."""
        if len(request.commands) > _MOST_COMMANDS:
            raise Rejected(413, f"a batch has at most {_MOST_COMMANDS} commands")
        return _Replies([await self._reply(command) for command in request.commands])

    async def _reply(self, command: dict[str, msgspec.Raw]) -> dict[str, Any]:
        named = [name for name in command if name in METHODS and METHODS[name].result is not None]
        if len(named) != 1:
            return {"error": _Error.of(METHOD_NOT_FOUND)}
        (name,) = named
        try:
            request = msgspec.json.decode(command[name], type=METHODS[name].request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {"error": _Error.of(BAD_REQUEST)}
        response = await self._response(METHODS[name], request)
        return {"error": response.error} if response.error else {name: response.result}

    # ── methods ─────────────────────────────────────────────────────────────────

    def _options(self, channel: str) -> ChannelOptions:
        return self._node.rules.options(channel)

    async def publish(self, asked: _Publish) -> _Published:
        """Publish to a channel."""
        return await self._publish_to(asked.channel, asked)

    async def _publish_to(self, channel: str, asked: _Data) -> _Published:
        position = await self._node.publish(
            channel,
            Publication(asked.content()),
            self._options(channel),
            skip_history=asked.skip_history,
            idempotency_key=asked.idempotency_key,
        )
        return _Published(position.offset, position.epoch)

    async def broadcast(self, asked: _Broadcast) -> _Responses:
        """Publish the same to several channels."""
        if not asked.channels or len(asked.channels) > _MOST_CHANNELS:
            raise Refused(BAD_REQUEST)
        asked.content()
        return _Responses([await self._one_of(channel, asked) for channel in asked.channels])

    async def _one_of(self, channel: str, asked: _Broadcast) -> _Response:
        try:
            return _Response(result=await self._publish_to(channel, asked))
        except Refused as error:
            return _Response(error=_Error.of(error.failure))

    async def _everywhere(self, asked: _Someone, command: ControlMessage) -> Nothing:
        if not (asked.user or asked.client or asked.session or asked.all_users):
            raise Refused(BAD_REQUEST)
        await self._node.cluster.send(command)
        return Nothing()

    async def subscribe(self, asked: _Subscribe) -> Nothing:
        """Subscribe a user's or client's connections to a channel."""
        self._options(asked.channel)
        command = asked.command(
            "subscribe",
            channel=asked.channel,
            info=asked.seen_info,
            expire_at=asked.expire_at,
            since=asked.recover_since,
        )
        return await self._everywhere(asked, command)

    async def unsubscribe(self, asked: _Unsubscribe) -> Nothing:
        """Unsubscribe them."""
        self._options(asked.channel)
        return await self._everywhere(asked, asked.command("unsubscribe", channel=asked.channel))

    async def disconnect(self, asked: _Disconnect) -> Nothing:
        """Close them."""
        if not 3000 <= asked.ending.code < 5000:  # noqa: PLR2004  RFC 6455, section 7.4.2: ours to use
            raise Refused(BAD_REQUEST)
        command = asked.command("disconnect", ending=asked.ending, whitelist=tuple(asked.whitelist))
        return await self._everywhere(asked, command)

    async def _there(self, channel: str) -> dict[str, ClientInfo]:
        if not self._options(channel).presence:
            raise Refused(NOT_AVAILABLE)
        return await self._node.broker.presence(channel)

    async def presence(self, asked: _Channel) -> PresenceResult:
        """The clients of a channel."""
        return PresenceResult(await self._there(asked.channel))

    async def presence_stats(self, asked: _Channel) -> PresenceStatsResult:
        """Their number, and that of their users."""
        return PresenceStatsResult.of(await self._there(asked.channel))

    async def history(self, asked: _History) -> HistoryResult:
        """Publications that a channel keeps."""
        options = self._options(asked.channel)
        if not options.has_history:
            raise Refused(NOT_AVAILABLE)
        found: History = await self._node.history(
            asked.channel, Query(asked.since, asked.limit, asked.reverse), options
        )
        return HistoryResult.of(found)

    async def history_remove(self, asked: _Channel) -> Nothing:
        """Remove them."""
        if not self._options(asked.channel).has_history:
            raise Refused(NOT_AVAILABLE)
        await self._node.broker.remove_history(asked.channel)
        return Nothing()

    async def channels(self, asked: _Channels) -> _ChannelList:
        """Channels with subscribers on any node."""
        found = await self._node.cluster.channels(asked.pattern)
        return _ChannelList({name: _Count(count) for name, count in sorted(found.items())})

    async def info(self, _: _Info) -> _Nodes:
        """The nodes."""
        return _Nodes(self._node.cluster.nodes())


class Method(NamedTuple):
    """A method: its request, its result (None: an answer of its own form), and what runs it."""

    request: type[msgspec.Struct]
    result: type[msgspec.Struct] | None
    run: Callable[[Api, Any], Coroutine[Any, Any, Any]]


METHODS: Final[Mapping[str, Method]] = {
    "publish": Method(_Publish, _Published, Api.publish),
    "broadcast": Method(_Broadcast, _Responses, Api.broadcast),
    "subscribe": Method(_Subscribe, Nothing, Api.subscribe),
    "unsubscribe": Method(_Unsubscribe, Nothing, Api.unsubscribe),
    "disconnect": Method(_Disconnect, Nothing, Api.disconnect),
    "presence": Method(_Channel, PresenceResult, Api.presence),
    "presence_stats": Method(_Channel, PresenceStatsResult, Api.presence_stats),
    "history": Method(_History, HistoryResult, Api.history),
    "history_remove": Method(_Channel, Nothing, Api.history_remove),
    "channels": Method(_Channels, _ChannelList, Api.channels),
    "info": Method(_Info, _Nodes, Api.info),
    "batch": Method(_Batch, None, Api.batch),
}
