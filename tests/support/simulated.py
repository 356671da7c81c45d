"""The real engine in simulated time against a server that is a function of the URL and the time."""

import random
from collections.abc import Callable

from yelpaze import Engine
from yelpaze.testing import MockTransport, NetworkFault, Reply, SentRequest, SimulatedLoop

START = 1000.0  # of the loop's time
_KINDS = {6: "dns", 7: "connect", 56: "protocol"}  # libcurl's numbers

Server = Callable[[str, float], Reply | NetworkFault]


def Answer(status=200, seconds=0.01, headers="", body=b"{}", code=0):  # noqa: N802  as a class
    """An answer after `seconds`, with header lines as they are sent; or a libcurl error `code`."""
    if code:
        return NetworkFault(_KINDS[code], delay=seconds)
    pairs = [tuple(line.split(": ", 1)) for line in headers.split("\r\n") if line]
    return Reply(status, body=body, headers=pairs, delay=seconds)


class Simulation:
    """One simulated run: `Simulation(server).run(main)`, with `main(engine)` a coroutine function."""

    def __init__(self, server: Server, **options: object) -> None:
        self.loop = SimulatedLoop()
        self.transport = MockTransport({"*": lambda sent: server(sent.url, sent.at)})
        self.events: list = []
        self.options = {
            "rng": random.Random(1),
            "transport": self.transport,
            "on_event": self.events.append,
            **options,
        }

    @property
    def requests(self) -> list[SentRequest]:
        """All attempts, in order."""
        return self.transport.requests

    @property
    def attempts(self) -> int:
        return len(self.requests)

    @property
    def times(self) -> list[float]:
        """Of all attempts, from the start."""
        return [sent.at - START for sent in self.requests]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def run(self, main: Callable):
        async def inside():
            async with Engine(**self.options) as engine:
                self.engine = engine
                return await main(engine)

        try:
            return self.loop.run_until_complete(inside())
        finally:
            self.loop.close()
