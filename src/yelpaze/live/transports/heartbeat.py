"""Pings and pongs of one connection, as a state machine.

    state      event    next       what is due then
    greeting   greeted  quiet      the first ping, spread over the interval
    greeting   due      (end)      the client did not connect in time: STALE
    quiet      due      pinged     a ping is sent; the pong within the timeout
    pinged     ponged   answered   the rest of the interval
    pinged     due      (end)      no pong: NO_PONG
    answered   due      quiet      the next ping

The pings of an event stream are comments, which nothing answers: it stays quiet.

A connection keeps only the state, one small integer; the rest is here once.
"""

from typing import Final, NamedTuple

from yelpaze.live.protocol.codes import NO_PONG, STALE, Ending

GREETING: Final = 0
QUIET: Final = 1
PINGED: Final = 2
ANSWERED: Final = 3
OVER: Final = 10  # from here on: closing or closed, nothing is due


class Due(NamedTuple):
    """What happens when a connection's time has come: the next state, and a ping or the end."""

    state: int
    sends_ping: bool = False
    ending: Ending | None = None


_DUE: Final = {
    GREETING: Due(GREETING, ending=STALE),
    QUIET: Due(PINGED, sends_ping=True),
    PINGED: Due(PINGED, ending=NO_PONG),
    ANSWERED: Due(QUIET),
}
_DUE_UNANSWERED: Final = {GREETING: _DUE[GREETING], QUIET: Due(QUIET, sends_ping=True)}
_PONGED: Final = {PINGED: ANSWERED}


def due(state: int, *, is_answered: bool = True) -> Due:
    """The step of a connection in that state, whose client answers pings or not.

    >>> due(QUIET)
    Due(state=2, sends_ping=True, ending=None)
    """
    return _DUE[state] if is_answered else _DUE_UNANSWERED[state]


def ponged(state: int) -> int:
    """The state after a pong; one that was not asked for changes nothing."""
    return _PONGED.get(state, state)


def delay(state: int, interval: float, timeout: float, *, is_answered: bool = True) -> float:
    """Seconds until the state is due."""
    if not is_answered:
        return interval
    return timeout if state == PINGED else max(0.0, interval - timeout)
