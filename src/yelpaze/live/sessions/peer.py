"""A connection, as the client behind it sees it: the seam between sessions and sockets."""

from typing import Protocol

from yelpaze.live.core.stream import Member
from yelpaze.live.protocol.codes import Ending


class Peer(Member, Protocol):
    """A connection, as its client sees it."""

    def send(self, message: bytes) -> None:
        """Send one message, as text."""

    def ponged(self) -> None:
        """The client has answered the ping."""

    def hold(self) -> None:
        """Keep publications until `release`; what is sent goes before them."""

    def release(self) -> None:
        """Send what was kept."""

    def greeted(self) -> None:
        """The client has said who it is: pings may begin."""

    def end(self, ending: Ending) -> None:
        """Close it. Its client is told by `closed`."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""
