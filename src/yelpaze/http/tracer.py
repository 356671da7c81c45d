"""W3C Trace Context: one trace id a call, one span id an attempt.

    traceparent: 00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>

A request that already carries a valid traceparent keeps its trace id and flags.
"""

import random
import re

from yelpaze.model.request import Request

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")


class Tracer:
    """Makes ids from the engine's random source."""

    __slots__ = ("_bits",)

    def __init__(self, rng: random.Random) -> None:
        self._bits = rng.getrandbits

    def trace_id_of(self, request: Request) -> str:
        """The incoming trace id, or a new one."""
        if request.headers:
            for name, value in request.headers:
                if name.lower() == "traceparent" and (found := _PARENT.fullmatch(value)):
                    return found[1]
        return "%032x" % (self._bits(128) or 1)

    def header_lines(self, request: Request, trace_id: str) -> list[str | bytes]:
        """The request's header fields as libcurl takes them, traceparent with a new span id."""
        lines: list[str | bytes] = []
        flags = "01"
        for name, value in request.headers:
            if name.lower() == "traceparent":
                if found := _PARENT.fullmatch(value):
                    flags = found[2]
                continue
            line = f"{name}: {value}" if value else f"{name};"
            lines.append(line if line.isascii() else line.encode())
        lines.append(f"traceparent: 00-{trace_id}-{self._bits(64) or 1:016x}-{flags}")
        return lines
