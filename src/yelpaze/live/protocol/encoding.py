"""Publications in the form that each kind of connection takes, made once for all that take it.

    CENTRIFUGO        a WebSocket text frame with Centrifugo's pushes in JSON, one a line
    PLAIN             WebSocket text frames with the bare data, one a publication
    EVENTS            server-sent events with the bare data; their id says where to go on
    CENTRIFUGO_TEXT   as CENTRIFUGO, without the frame: behind ASGI the server makes it
    PLAIN_TEXT        as PLAIN, likewise

Another encoding is another kind: a line in `_FORMS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from yelpaze.live.protocol.frames import TEXT, frame
from yelpaze.live.protocol.values import ClientInfo, Publication, on_one_line

CENTRIFUGO: Final = 0
PLAIN: Final = 1
EVENTS: Final = 2
CENTRIFUGO_TEXT: Final = 3
PLAIN_TEXT: Final = 4

_json = msgspec.json.encode


def publications(kind: int, channel: str, found: Sequence[Publication], epoch: str) -> Any:
    """What is written for publications of a channel."""
    return _FORMS[kind](channel, found, epoch)


def push(kind: int, channel: str, name: str, value: Any) -> Any:
    """What is written for another push; only Centrifugo's clients know any."""
    data = pushed(channel, name, value)
    return frame(TEXT, data) if kind == CENTRIFUGO else data.decode()


def join_leave(kind: int, channel: str, info: ClientInfo, *, is_join: bool) -> Any:
    """A client has come or gone."""
    return push(kind, channel, "join" if is_join else "leave", {"info": info})


def pushed(channel: str, name: str, value: Any) -> bytes:
    """A push of Centrifugo's protocol, without a frame."""
    return _push(_json(channel), name, _json(value))


def _push(channel: bytes, name: str, value: bytes) -> bytes:
    return b'{"push":{"channel":%b,"%b":%b}}' % (channel, name.encode(), value)


def _centrifugo(channel: str, found: Sequence[Publication]) -> bytes:
    name = _json(channel)
    return b"\n".join([_push(name, "pub", _json(one)) for one in found])


def text_of(publication: Publication) -> bytes:
    """The bare data: the text of a JSON string, other JSON as it is."""
    data = bytes(publication.data)
    return msgspec.json.decode(data, type=str).encode() if data.startswith(b'"') else data


def data_of(text: bytes) -> msgspec.Raw:
    """A plain client's text as data, so that `text_of` gives the same text again."""
    if not text.lstrip().startswith(b'"'):
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass
        else:
            return on_one_line(msgspec.Raw(text))
    return msgspec.Raw(_json(text.decode()))


def event(publication: Publication, epoch: str) -> bytes:
    """A server-sent event (WHATWG HTML, section 9.2). A line break begins another `data` line."""
    text = text_of(publication).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = b"data: " + text.replace(b"\n", b"\ndata: ")
    if publication.offset:
        return b"id: %d:%b\n%b\n\n" % (publication.offset, epoch.encode(), lines)
    return lines + b"\n\n"


_FORMS: dict[int, Callable[[str, Sequence[Publication], str], Any]] = {
    CENTRIFUGO: lambda channel, found, _: frame(TEXT, _centrifugo(channel, found)),
    PLAIN: lambda _, found, __: b"".join([frame(TEXT, text_of(one)) for one in found]),
    EVENTS: lambda _, found, epoch: b"".join([event(one, epoch) for one in found]),
    CENTRIFUGO_TEXT: lambda channel, found, _: _centrifugo(channel, found).decode(),
    PLAIN_TEXT: lambda _, found, __: [text_of(one).decode() for one in found],
}
WITH_PUSHES: Final = (CENTRIFUGO, CENTRIFUGO_TEXT)  # the others know publications only
KINDS: Final = len(_FORMS)
