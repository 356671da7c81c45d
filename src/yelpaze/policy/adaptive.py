"""How many calls at once a host bears, found by its latency (Netflix concurrency-limits, Gradient2).

    short    = average latency of one round: as many answers as the limit allows at once
    long     = average of the last 600 rounds
    gradient = clamp(1.5 · long / short, 0.5, 1)
    limit    = limit · (1 - s) + s · (limit · gradient + 4)         s = 0.2

A round between two changes lets the last one show before the next: changed with every answer
the limit swings. It grows only while at least half of it is in use; a refusal or a time-out
takes a tenth off, once a round (AIMD's decrease).
"""

_TOLERANCE, _QUEUE, _SMOOTHING = 1.5, 4.0, 0.2
_LONG, _WARM_UP = 600, 10
_DROP = 0.9
_START = 20


class Adaptive:
    """The limit of one host as it stands: a whole number from 1 to `most`."""

    __slots__ = ("_answers", "_dropped", "_exact", "_long", "_most", "_peak", "_rounds", "_sum", "limit")

    def __init__(self, most: int) -> None:
        self._most = most
        self._exact = float(min(_START, most))
        self._long = 0.0
        self._rounds = 0
        self._new_round()
        self.limit = int(self._exact)

    def _new_round(self) -> None:
        self._sum = 0.0
        self._answers = self._peak = 0
        self._dropped = False

    def sample(self, seconds: float, under_way: int) -> bool:
        """Take in an answer's latency, with so many calls under way; whether the limit changed."""
        self._sum += seconds
        self._answers += 1
        self._peak = max(self._peak, under_way)
        return self._answers >= self.limit and self._end_round()

    def dropped(self) -> bool:
        """Take in that a call was refused or timed out; whether the limit changed."""
        self._answers += 1
        if self._dropped:
            return self._answers >= self.limit and self._end_round()
        self._dropped = True
        return self._set(self._exact * _DROP)

    def _end_round(self) -> bool:
        short, peak, dropped = self._sum / self._answers, self._peak, self._dropped
        self._new_round()
        if dropped:
            return False
        self._rounds += 1
        weight = 1 / self._rounds if self._rounds <= _WARM_UP else 2 / (_LONG + 1)
        self._long += (short - self._long) * weight
        if self._long > 2 * short:  # latency fell: forget the old average faster
            self._long *= 0.95
        if peak * 2 < self.limit:
            return False
        gradient = max(0.5, min(1.0, _TOLERANCE * self._long / max(short, 1e-9)))
        return self._set(self._exact * (1 - _SMOOTHING) + (self._exact * gradient + _QUEUE) * _SMOOTHING)

    def _set(self, exact: float) -> bool:
        before = self.limit
        self._exact = max(1.0, min(float(self._most), exact))
        self.limit = int(self._exact)
        return self.limit != before
