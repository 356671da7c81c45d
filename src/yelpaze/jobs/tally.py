"""The counts of a run's rows."""

from collections import Counter


class Tally:
    """Rows by their end.

    `succeeded`, `failed` and `kinds` (failures by kind) count the whole run; `started`, `ended`,
    `failures` (by kind) and `reasons` (by kind and status) only this session. A run that is stopped and
    continued has several sessions.
    """

    def __init__(self) -> None:
        self.succeeded = self.failed = 0
        self.kinds: Counter[str] = Counter()
        self.started = self.ended = 0
        self.failures: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows that have ended, of the whole run."""
        return self.succeeded + self.failed

    def resume(self, succeeded: int, failed: int, kinds: dict[str, int]) -> None:
        """Continue from the counts of a checkpoint."""
        self.succeeded, self.failed, self.kinds = succeeded, failed, Counter(kinds)

    def add_failure(self, kind: str, status: int | None) -> None:
        """Count a failure."""
        self.failures[kind] += 1
        self.kinds[kind] += 1
        self.reasons[f"status {status}" if kind == "status" and status else kind] += 1
