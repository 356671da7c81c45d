"""The seam between sessions and sockets: a connection, as the session on it sees it."""

from typing import Protocol

from yelpaze.live.core.stream import Member
from yelpaze.live.protocol.codes import Ending


class ClientConnection(Member, Protocol):
    """A connection after its handshake. It calls its session by the Protocol `Session`."""

    def send(self, message: bytes) -> None:
        """Send one message, as text."""

    def ponged(self) -> None:
        """The client has answered a ping."""

    def hold(self) -> None:
        """Hold publications back until `release`; what is sent goes before them."""

    def release(self) -> None:
        """Send what was held back."""

    def greeted(self) -> None:
        """The client is connected: pings may begin."""

    def end(self, ending: Ending) -> None:
        """Close it. The client's `closed` is called."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Continue reading."""
