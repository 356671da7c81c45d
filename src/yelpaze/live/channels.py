"""Names of channels: which options hold for one, and whom it is meant for.

news             without a namespace          chat:room1       the namespace "chat"
$private         only with a token            dialog#42,43     only users 42 and 43
"""

import re
from functools import lru_cache

from yelpaze.live.codes import BAD_REQUEST, UNKNOWN_CHANNEL, Refused
from yelpaze.live.config import Channel, ChannelOptions

_REMEMBERED = 10_000


class Rules:
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

    def personal(self, user: str, namespace: str) -> str:
        """The channel of one user."""
        prefix = f"{namespace}{self._config.namespace_boundary}" if namespace else ""
        return f"{prefix}{self._config.user_boundary}{user}"

    def meta_ttl(self, options: ChannelOptions) -> float:
        """How long offsets and epoch outlive the publications."""
        return options.history_meta_ttl or self._config.history_meta_ttl
