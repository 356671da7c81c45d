"""Ports for servers that have to be told theirs."""

import random
import socket

_CHANCE = random.SystemRandom()  # tests and programs that run at once must not draw the same


def free_port(host: str = "127.0.0.1") -> int:
    """Not one that the system gives to clients, who come and go before the server listens."""
    while True:
        port = _CHANCE.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
