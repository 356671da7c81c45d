"""W3C Trace Context: one trace id a call, one span id an attempt.

    traceparent: 00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>

A request that already carries a valid traceparent keeps its trace id and flags.
"""

import random
import re

from yelpaze.model.request import Request

# Sampled, and random trace id; all others must go out as 0 (§3.2.2.5).
_KNOWN_FLAGS = 0x03
_CONTEXT = frozenset({"traceparent", "tracestate"})
# Version 00 has exactly these fields; a later one may have more, ff is none (§3.2.2).
_PARENT = re.compile(
    r"(?:00(?!.{54})|(?!ff|00)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)


class Tracer:
    """Makes ids from the engine's random source.

    `extra` is a second header for the trace id; `sends=False` sends no traceparent.
    """

    __slots__ = ("_bits", "_extra", "_sends")

    def __init__(self, rng: random.Random, extra: str | None = None, *, sends: bool = True) -> None:
        self._bits = rng.getrandbits
        self._extra = extra
        self._sends = sends

    def trace_id_of(self, request: Request) -> str:
        """The incoming trace id, or a new one."""
        found = _parent_of(request) if request.headers else None
        return found[1] if found else "%032x" % (self._bits(128) or 1)

    def header_lines(self, request: Request, trace_id: str, parent: str | None = None) -> list[str | bytes]:
        """The request's header fields as libcurl takes them.

        Its traceparent is `parent`, or one with a new span id.
        """
        lines: list[str | bytes] = []
        flags, extra = "01", self._extra
        # The incoming context is carried on only within its own trace.
        found = _parent_of(request) if parent is None and request.headers else None
        if found is not None and found[1] != trace_id:
            found = None
        for name, value in request.headers:
            folded = name.lower()
            if folded in _CONTEXT:
                if found is None or folded == "traceparent":
                    continue  # a broken traceparent, and then its tracestate, go no further (§3.3)
            elif extra is not None and folded == extra.lower():
                extra = None
            line = f"{name}: {value}" if value else f"{name};"
            lines.append(line if line.isascii() else line.encode(errors="surrogateescape"))
        if found is not None:
            flags = f"{int(found[2], 16) & _KNOWN_FLAGS:02x}"
        if self._sends:
            lines.append(f"traceparent: {parent or f'00-{trace_id}-{self._bits(64) or 1:016x}-{flags}'}")
        if extra is not None:
            lines.append(f"{extra}: {trace_id}")
        return lines


def _parent_of(request: Request) -> re.Match[str] | None:
    """The request's own traceparent, if it has exactly one and that is well formed."""
    values = [value for name, value in request.headers if name.lower() == "traceparent"]
    return _PARENT.fullmatch(values[0]) if len(values) == 1 else None
