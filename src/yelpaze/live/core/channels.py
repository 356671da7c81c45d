"""Names of channels: which options hold for one, and whom it is meant for.

news             without a namespace          chat:room1       the namespace "chat"
$private         only with a token            dialog#42,43     only users 42 and 43
"""

import re
from collections.abc import Callable
from functools import lru_cache

from yelpaze.live.config import Channel, ChannelOptions
from yelpaze.live.protocol.codes import BAD_REQUEST, UNKNOWN_CHANNEL, Refused

_REMEMBERED = 10_000


class ChannelRules:
    """What configuration says of channels."""

    def __init__(self, config: Channel) -> None:
        self._config = config
        self._namespaces: dict[str, ChannelOptions] = {one.name: one for one in config.namespaces}
        self._patterns = {
            options: re.compile(options.channel_regex)
            for options in (config.without_namespace, *config.namespaces)
            if options.channel_regex
        }
        self.options = lru_cache(_REMEMBERED)(self._options)

    def _options(self, channel: str) -> ChannelOptions:
        """The options of a channel. Raises Refused: no such namespace, or no name at all."""
        config = self._config
        if not channel or len(channel) > config.max_length or not channel.isprintable():
            raise Refused(BAD_REQUEST)
        bare = channel.removeprefix(config.private_prefix) if config.private_prefix else channel
        name, boundary, rest = bare.partition(config.namespace_boundary)
        if not boundary:
            options, rest = config.without_namespace, bare
        else:
            found = self._namespaces.get(name)
            if found is None:
                raise Refused(UNKNOWN_CHANNEL)
            options = found
        pattern = self._patterns.get(options)
        if pattern is not None and not pattern.fullmatch(rest):
            raise Refused(BAD_REQUEST)
        return options

    def is_private(self, channel: str) -> bool:
        """Whether a token is needed, whatever the namespace allows."""
        return bool(self._config.private_prefix) and channel.startswith(self._config.private_prefix)

    def users(self, channel: str) -> list[str] | None:
        """The users that a user-limited channel names; None if it is no such channel."""
        _, boundary, users = channel.partition(self._config.user_boundary)
        return users.split(self._config.user_separator) if boundary else None

    def may_subscribe(self, channel: str, options: ChannelOptions, user: str) -> bool:
        """Whether a user may listen to a channel without a token for it; "" is nobody in particular."""
        if self.is_private(channel):
            return False
        users = self.users(channel) if options.allow_user_limited_channels else None
        if users is not None:
            return bool(user) and user in users
        return may("subscribe", options, user)

    def personal(self, user: str, namespace: str) -> str:
        """The channel of one user."""
        prefix = f"{namespace}{self._config.namespace_boundary}" if namespace else ""
        return f"{prefix}{self._config.user_boundary}{user}"

    def meta_ttl(self, options: ChannelOptions) -> float:
        """How long offsets and epoch outlive the publications."""
        return options.history_meta_ttl or self._config.history_meta_ttl


# For each action: what is allowed to clients without a user, to those with one, and to subscribers.
_RIGHTS: dict[str, Callable[[ChannelOptions], tuple[bool, bool, bool]]] = {
    "subscribe": lambda one: (one.allow_subscribe_for_anonymous, one.allow_subscribe_for_client, False),
    "publish": lambda one: (
        one.allow_publish_for_anonymous,
        one.allow_publish_for_client,
        one.allow_publish_for_subscriber,
    ),
    "presence": lambda one: (
        one.allow_presence_for_anonymous,
        one.allow_presence_for_client,
        one.allow_presence_for_subscriber,
    ),
    "history": lambda one: (
        one.allow_history_for_anonymous,
        one.allow_history_for_client,
        one.allow_history_for_subscriber,
    ),
}


def may(what: str, options: ChannelOptions, user: str, *, is_in: bool = False) -> bool:
    """Whether the namespace allows something to a user who listens to the channel, or does not.

    `for_anonymous` alone allows nothing: it lets those without a name do what `for_client` and
    `for_subscriber` allow to others, as in Centrifugo.
    """
    for_anonymous, for_client, for_subscriber = _RIGHTS[what](options)
    return bool((user or for_anonymous) and (for_client or (is_in and for_subscriber)))
