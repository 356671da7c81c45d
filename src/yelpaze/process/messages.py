"""The messages that every supervisor and its processes exchange; others are defined by who uses them."""

import msgspec


class Ready(msgspec.Struct, frozen=True):
    """From a process: it serves, at that port of its own if it has one."""

    port: int = 0


class Failed(msgspec.Struct, frozen=True):
    """From a process: it cannot start."""

    message: str
    traceback: str = ""


class Drain(msgspec.Struct, frozen=True):
    """To a process: take no more work, end what is under way, and exit."""
