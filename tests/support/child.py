"""A child process that does what a file says: `ready`, `fail`, `exit`, or nothing; read at its start."""

import asyncio
import os
from pathlib import Path

from yelpaze.process.frames import encode
from yelpaze.process.messages import Drain, Failed, Ready
from yelpaze.process.parenthood import Parent
from yelpaze.process.supervised import Supervised


class Obedient(Supervised):
    """The child as its supervisor sees it."""

    def __init__(self, place: int, orders: Path) -> None:
        super().__init__(place)
        self._orders = orders
        self.said: list[object] = []

    async def open(self) -> None:
        await self.start("support.child:main", encode(str(self._orders)))

    def on_message(self, message: object) -> None:
        self.said.append(message)


def main(channel_fd: int, lifeline_fd: int) -> None:
    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    orders = Path(next(messages)).read_text().split()
    if "fail" in orders:
        parent.send(Failed("the orders say so", "a traceback"))
        return
    if "exit" in orders:
        os._exit(3)
    if "ready" in orders:
        parent.send(Ready())
    if "deaf" in orders:  # drains for ever
        parent.send("deaf")
        asyncio.run(asyncio.Event().wait())
    for message in messages:
        if isinstance(message, Drain):
            parent.send("drained")
            return
