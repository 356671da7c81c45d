"""W3C Trace Context (Level 2): one trace id a call, one span id an attempt.

    traceparent: 00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>
    tracestate: <vendor>=<opaque value>,…

A request that already carries a valid traceparent keeps its trace id, flags and tracestate.
"""

import random
import re
from collections.abc import Iterable

import msgspec

from yelpaze.model.request import Request

# Sampled, and random trace id; all others must go out as 0 (§3.2.2.5.3).
_KNOWN_FLAGS = 0x03
# A new trace is sampled, and its id is random, which is said by the second bit (§3.2.2.5.2).
_NEW_FLAGS = "03"
_BLANKS = " \t"  # not part of a field's value or a list's member (RFC 9110 §5.6.3)
_CONTEXT = frozenset({"traceparent", "tracestate"})
# Version 00 has exactly these fields; a later one may have more, ff is none (§3.2.2).
_PARENT = re.compile(
    r"(?:00(?!.{54})|(?!ff|00)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class TraceContext(msgspec.Struct, frozen=True):
    """What an attempt sends of its trace: the values of `traceparent` and `tracestate`; no state is empty."""

    parent: str
    state: str = ""


class Tracer:
    """Makes ids from the engine's random source.

    `extra` is a second header for the trace id; `sends=False` sends no trace context.
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

    def header_lines(
        self, request: Request, trace_id: str, context: TraceContext | None = None
    ) -> list[str | bytes]:
        """The request's header fields as libcurl takes them.

        Its trace context is `context`, or the incoming one with a new span id, or a new one.
        """
        lines: list[str | bytes] = []
        states: tuple[str, ...] = ()
        extra = self._extra
        for name, value in request.headers:
            folded = name.lower()
            if folded in _CONTEXT:
                if folded == "tracestate":
                    states = (*states, value)
                continue
            if extra is not None and folded == extra.lower():
                extra = None
            line = f"{name}: {value}" if value else f"{name};"
            lines.append(line if line.isascii() else line.encode(errors="surrogateescape"))
        if self._sends:
            flags, state = _NEW_FLAGS, ""
            # The incoming context is carried on only within its own trace. A broken traceparent goes no
            # further, nor does its tracestate (§3.3).
            if context is not None:
                state = context.state
            elif request.headers and (found := _parent_of(request)) is not None and found[1] == trace_id:
                flags, state = f"{int(found[3], 16) & _KNOWN_FLAGS:02x}", _joined(states)
            parent = context.parent if context else f"00-{trace_id}-{self._bits(64) or 1:016x}-{flags}"
            lines.append(f"traceparent: {parent}")
            if state:
                line = f"tracestate: {state}"
                lines.append(line if line.isascii() else line.encode(errors="surrogateescape"))
        if extra is not None:
            lines.append(f"{extra}: {trace_id}")
        return lines


def incoming_context(request: Request) -> TraceContext | None:
    """The context in the request's own headers, as version 00; None if there is none or it is broken."""
    found = _parent_of(request) if request.headers else None
    if found is None:
        return None
    states = [value for name, value in request.headers if name.lower() == "tracestate"]
    flags = int(found[3], 16) & _KNOWN_FLAGS
    return TraceContext(f"00-{found[1]}-{found[2]}-{flags:02x}", _joined(states))


def _parent_of(request: Request) -> re.Match[str] | None:
    """The request's own traceparent, if it has exactly one and that is well formed."""
    values = [value for name, value in request.headers if name.lower() == "traceparent"]
    return _PARENT.fullmatch(values[0].strip(_BLANKS)) if len(values) == 1 else None


def _joined(states: Iterable[str]) -> str:
    """Several fields are one list (RFC 9110 §5.3), and empty members should not be sent (§3.3.1.1)."""
    members = (member.strip(_BLANKS) for state in states for member in state.split(","))
    return ",".join(filter(None, members))
