"""Whether a process that has ended is started again, and after what pause.

    how it ended                           failures in a row    before all served    once all have served
    ─────────────────────────────────────  ───────────────────  ───────────────────  ───────────────────
    it had served for `sound` seconds      0                    restart              restart
    it had served for less                 + 1                  restart              restart
    it never served, and gave no reason    + 1                  restart, then stop   restart, or stop
    it never served, and said why          + 1                  stop                 restart, or stop

"Restart, then stop": it is tried `starts` times. Once all processes have served, a rule that keeps trying
always restarts (what the start needs may come back), and one that does not stops as before.
The first failure is followed by a restart at once; the pause then doubles from `pause` up to `cap`.
"""

from enum import Enum

import msgspec

_MOST_DOUBLINGS = 30


class Ending(Enum):
    """How a process ended without being told to."""

    SOUND = "sound"
    EARLY = "early"
    SILENT = "silent"
    EXPLAINED = "explained"


class _Action(Enum):
    RESTART = "restart"
    TRY = "try"  # as often as `starts` says
    STOP = "stop"


_ACTIONS = {
    # (how it ended, whether the rule may give up)
    (Ending.SOUND, False): _Action.RESTART,
    (Ending.SOUND, True): _Action.RESTART,
    (Ending.EARLY, False): _Action.RESTART,
    (Ending.EARLY, True): _Action.RESTART,
    (Ending.SILENT, False): _Action.RESTART,
    (Ending.SILENT, True): _Action.TRY,
    (Ending.EXPLAINED, False): _Action.RESTART,
    (Ending.EXPLAINED, True): _Action.STOP,
}


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters. `pause`, `cap` and `sound` are in seconds."""

    pause: float = 0.2
    cap: float = 10.0
    sound: float = 1.0
    starts: int = 3
    keeps_trying: bool = True

    def ending(self, served: float | None, *, is_explained: bool) -> Ending:
        """Classify an end. `served`: seconds for which it has served; None if it never did."""
        if served is not None:
            return Ending.SOUND if served >= self.sound else Ending.EARLY
        return Ending.EXPLAINED if is_explained else Ending.SILENT

    def failures_after(self, ending: Ending, failures: int) -> int:
        """Failures in a row, this end included."""
        return 0 if ending is Ending.SOUND else failures + 1

    def pause_after(self, ending: Ending, failures: int, *, has_served: bool) -> float | None:
        """Seconds until it is started again; None to give up.

        `failures`: failures in a row, this end included. `has_served`: whether all processes have once.

        >>> rule = Restart()
        >>> [rule.pause_after(Ending.EARLY, n, has_served=True) for n in (1, 2, 3, 20)]
        [0.0, 0.2, 0.4, 10.0]
        >>> [rule.pause_after(Ending.SILENT, n, has_served=False) for n in (1, 2, 3)]
        [0.0, 0.2, None]
        """
        may_give_up = not (has_served and self.keeps_trying)
        action = _ACTIONS[ending, may_give_up]
        if action is _Action.STOP or (action is _Action.TRY and failures >= self.starts):
            return None
        if failures <= 1:
            return 0.0
        return min(self.cap, self.pause * 2.0 ** min(failures - 2, _MOST_DOUBLINGS))
