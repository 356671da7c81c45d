"""Results of attempts on their way into the store: the log, the deliveries, the endpoints."""

import msgspec

from yelpaze.hooks.delivery.decision import Answer, Decision
from yelpaze.hooks.delivery.queue import EndpointQueue, Task
from yelpaze.hooks.kinds.registry import shown_url
from yelpaze.hooks.tables import ATTEMPT, DELIVERY, FAILED, PENDING, SUCCEEDED
from yelpaze.model.outcome import Timings
from yelpaze.store.leases import Leases
from yelpaze.store.session import Row, Session, Table

_CHANGED = ("state", "due", "attempts", "step", "cause")
_RAISED = "version = delivery.version + 1"
_STATE = ("failures", "failing_since", "warned", "blocked_until")
_ENDPOINT_STATE = Table("endpoint", {"id": "text", **dict.fromkeys(_STATE, "bigint")})


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one attempt. `epoch` is that of the shard when it began, `began` milliseconds since 1970."""

    attempt_id: str
    queue: EndpointQueue
    task: Task
    answer: Answer
    decision: Decision
    began: int
    epoch: int


class Batch(msgspec.Struct, frozen=True):
    """The results that one unit of work writes."""

    results: list[Result]
    endpoints: list[tuple[int, Row]]  # shard, and the endpoint's state
    queues_disabled: dict[EndpointQueue, str]  # and why


class Results:
    """Results that wait for the writer."""

    def __init__(self) -> None:
        self._waiting: list[Result] = []
        self.endpoints: set[EndpointQueue] = set()
        self.disabled: dict[EndpointQueue, str] = {}

    @property
    def waiting(self) -> int:
        """The number of results."""
        return len(self._waiting)

    def shards(self) -> set[int]:
        """The shards that they are of."""
        return {result.queue.shard for result in self._waiting}

    def add(self, result: Result) -> None:
        """Add one."""
        self._waiting.append(result)

    def take(self, most: int) -> Batch:
        """Take the oldest out, and what they say of endpoints as it stands now."""
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        queues = {result.queue for result in taken}
        endpoints = [
            (queue.shard, (queue.failures, queue.failing_since, queue.warned, queue.blocked_until, queue.id))
            for queue in self.endpoints & queues
        ]
        disabled = {queue: why for queue, why in self.disabled.items() if queue in queues}
        self.endpoints -= queues
        for queue in disabled:
            del self.disabled[queue]
        return Batch(taken, endpoints, disabled)


def write_results(
    session: Session, leases: Leases, batch: Batch, now: int, max_response: int, version: int
) -> int:
    """Write them; return how many were refused because their shard has another owner now."""
    epochs: dict[int, int] = {}
    for result in batch.results:
        shard = result.queue.shard
        epochs[shard] = max(epochs.get(shard, -1), result.epoch)
    held = leases.held(session, epochs)
    kept = [
        result
        for result in batch.results
        if result.queue.shard in held and result.epoch == epochs[result.queue.shard]
    ]
    # A second time, if the connection was lost when the first was committed: the same ids.
    session.insert(ATTEMPT, [_attempt(result, max_response) for result in kept], ignore_known=True)
    succeeded = [result for result in kept if result.decision.state == SUCCEEDED]
    others = [result for result in kept if result.decision.state != SUCCEEDED]
    # What was sent again meanwhile has another version, and what was canceled stays so.
    session.update(DELIVERY, _CHANGED, [_delivery(result, now) for result in succeeded], also=_RAISED)
    rows = [_delivery(result, now) for result in others]
    session.update(DELIVERY, _CHANGED, rows, "delivery.state = 1", also=_RAISED)
    session.update(_ENDPOINT_STATE, _STATE, [row for shard, row in batch.endpoints if shard in held])
    for queue, why in batch.queues_disabled.items():
        if queue.shard in held:
            _disable(session, queue.id, why, now, version)
    return len(batch.results) - len(kept)


def _attempt(result: Result, max_response: int) -> Row:
    task, answer, decision = result.task, result.answer, result.decision
    return (
        result.attempt_id,
        task.app_id,
        result.queue.id,
        task.message_id,
        task.event_type,
        task.attempts + 1,
        result.began,
        SUCCEEDED if decision.state == SUCCEEDED else FAILED,
        answer.status,
        decision.reason,
        _text(answer.body[:max_response]),
        answer.duration,
        _phases(answer.timings),
        task.cause,
        shown_url(result.queue.settings),
        decision.due if decision.state == PENDING else None,
    )


def _phases(timings: Timings) -> str:
    """The end of each phase, in milliseconds from the start of the attempt."""
    dns, connect, tls, first_byte, total, queued = (1000 * one for one in msgspec.structs.astuple(timings))
    return (
        f'{{"dns":{dns:.1f},"connect":{connect:.1f},"tls":{tls:.1f},"firstByte":{first_byte:.1f},'
        f'"total":{total:.1f},"queued":{queued:.1f}}}'
    )


def _text(body: bytes) -> str:
    return body.decode(errors="replace").replace("\0", "\ufffd")  # PostgreSQL's texts have no NUL


def _delivery(result: Result, now: int) -> Row:
    task, decision = result.task, result.decision
    due = decision.due if decision.state == PENDING else now
    attempts = task.attempts + 1
    key = (result.queue.id, task.message_id, task.version)
    return (decision.state, due, attempts, decision.step, 0, *key)


def _disable(session: Session, endpoint_id: str, why: str, now: int, version: int) -> None:
    session.run(
        "UPDATE endpoint SET disabled = 1, disabled_reason = ?, version = ?, updated = ? WHERE id = ?",
        *(why, version, now, endpoint_id),
    )
    session.run(
        "UPDATE delivery SET state = ? WHERE endpoint_id = ? AND state = ?", *(FAILED, endpoint_id, PENDING)
    )
    session.run(
        "UPDATE application SET version = ? WHERE id = (SELECT app_id FROM endpoint WHERE id = ?)",
        *(version, endpoint_id),
    )
