"""The messages that every supervisor and its processes exchange; others are defined by who uses them."""

import msgspec


class Ready(msgspec.Struct, frozen=True):
    """A process reports that it serves. `port` is its own port, if it has one."""

    port: int = 0


class Failed(msgspec.Struct, frozen=True):
    """A process reports why it cannot start."""

    message: str
    traceback: str = ""


class Drain(msgspec.Struct, frozen=True):
    """Tells a process to take no more work, end what is under way, and exit."""
