"""A child process in one of a supervisor's places."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, Self

from yelpaze.process.child import Child
from yelpaze.process.frames import encode
from yelpaze.process.messages import Drain, Failed, Ready

State = Literal["starting", "serving", "draining"]


class Supervised(Child):
    """One process.

        starting ──Ready──→ serving ──drain()──→ draining ──→ gone
            └──────────────────┴── ended by itself: the supervisor's restart rule decides

    `since`: when it was started or, once it serves, since when it does. `failed`: why it could not start.
    Those who inherit say in `open` how it is started, and override `on_message` for messages of their own.
    """

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place
        self.state: State = "starting"
        self.since = asyncio.get_running_loop().time()
        self.failed: Failed | None = None
        self.replaced_by: Self | None = None
        self.on_ready: Callable[[Supervised, Ready], None] = lambda _process, _message: None
        self.on_lost: Callable[[Supervised], None] = lambda _process: None

    async def open(self) -> None:
        """Start it. Raises OSError."""
        raise NotImplementedError

    def received(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Ready):
                self.on_ready(self, message)
            elif isinstance(message, Failed):
                self.failed = message
            else:
                self.on_message(message)

    def on_message(self, message: Any) -> None:
        """A message that is not the supervisor's."""

    def lost(self) -> None:
        self.on_lost(self)

    def drain(self) -> None:
        """Tell it to take no more work, end what is under way, and exit."""
        self.send(encode(Drain()))
