"""What travels: publications, positions and the clients that they tell of."""

from typing import Annotated, Any

import msgspec

# JSON that may be absent. msgspec reads nothing but null into `Raw | None`.
MaybeRaw = msgspec.Raw | msgspec.UnsetType


# What a client says is checked: a broker may not like other numbers.
Offset = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Limit = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a channel's stream. Offsets begin at 1 and mean nothing under another epoch."""

    offset: Offset = 0
    epoch: str = ""


class ClientInfo(msgspec.Struct, frozen=True):
    """Who is there: in presence, joins and leaves, and beside what a client published.

    `client` and `user` are always sent, as SDKs read them: an anonymous client has the user "".
    """

    client: str = ""
    user: str = ""
    conn_info: MaybeRaw = msgspec.UNSET
    chan_info: MaybeRaw = msgspec.UNSET


class Publication(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a channel; `data` is any JSON value, as text. Without history it has no offset."""

    data: msgspec.Raw
    info: ClientInfo | None = None
    offset: int = 0


class History(msgspec.Struct, frozen=True):
    """A stretch of a channel's stream, and where the stream stands."""

    publications: tuple[Publication, ...] = ()
    position: Position = Position()

    def has_all_since(self, since: Position) -> bool:
        """Whether nothing is missing between a position and the end of this stretch."""
        if since.epoch and since.epoch != self.position.epoch:
            return False
        missing = self.position.offset - since.offset
        if missing < 0:
            return False
        return [publication.offset for publication in self.publications] == list(
            range(since.offset + 1, self.position.offset + 1)
        )


def on_one_line(data: msgspec.Raw) -> msgspec.Raw:
    """JSON without line breaks: they part the messages of Centrifugo's protocol."""
    text = bytes(data)
    return msgspec.Raw(msgspec.json.format(text, indent=-1)) if b"\n" in text or b"\r" in text else data


def raw(value: Any) -> msgspec.Raw:
    """JSON of a value."""
    return msgspec.Raw(msgspec.json.encode(value))
