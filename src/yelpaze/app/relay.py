"""`yelpaze hooks relay`: takes messages out of a sender's outbox, in order, and gives them to hooks."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from yelpaze.hooks.context import Access
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.values import MessageIn
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.model.secrets import SECRETS
from yelpaze.store.opening import connect_to
from yelpaze.store.session import Row, Session, StoreUnavailable
from yelpaze.store.store import Connection

T = TypeVar("T")
_MOST_AT_ONCE = 200
_AGAIN_SECONDS = 1.0
_CONFLICT = 409  # it has been relayed before
_MOST_REFUSED = 10_000


class Relay:
    """Moves messages from the table `yelpaze_outbox` of a database into hooks.

    Args:
        database: An SQLite file, or a `postgresql://` URL.
        hooks: Where they go.
        report: Is called with notices for the operator.

    A message that is refused stays in the outbox, and is told of; it is tried again by the next relay.

    """

    def __init__(self, database: str, hooks: Hooks, report: Report) -> None:
        self._hooks = hooks
        self._report = report
        self._refused: list[str] = []
        self._shown = SECRETS.url(database)
        self._connection: Connection = connect_to(database, own=False)
        self.relayed = 0
        try:
            self._do(lambda session: session.rows("SELECT 1 FROM yelpaze_outbox LIMIT 1"), writes=False)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001  whichever the driver is
            what = "has no table yelpaze_outbox: `Hooks.create_outbox(connection)` makes it"
            raise InputError(f"{self._shown}: {what}") from None

    @property
    def refused(self) -> int:
        """Messages that were refused."""
        return len(self._refused)

    def close(self) -> None:
        """Close the connection to the outbox."""
        self._connection.close()

    async def run(self, *, once: bool, pause: float = 0.2) -> None:
        """Relay until cancelled; with `once`, until the outbox is empty. Raises StoppedError."""
        is_unavailable = False
        while True:
            try:
                count = await self._relay_some()
                is_unavailable = False
            except StoreUnavailable as error:
                if once:
                    raise
                if not is_unavailable:
                    is_unavailable = True
                    text = f"{self._shown}, or the store, cannot be used: {error}"
                    self._report(Notice("store.unavailable", text, Level.WARNING))
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if count == 0 and once:
                return
            if count == 0:
                await asyncio.sleep(pause)

    async def _relay_some(self) -> int:
        rows = await asyncio.to_thread(self._do, self._read, writes=False)
        if not rows:
            return 0
        results = await asyncio.gather(*(self._give(*row) for row in rows))
        done = [row[0] for row, is_done in zip(rows, results, strict=True) if is_done]
        await asyncio.to_thread(
            self._do, lambda session: session.run("DELETE FROM yelpaze_outbox WHERE id IN ??", done)
        )
        self.relayed += len(done)
        return len(rows)

    def _read(self, session: Session) -> list[Row]:
        if len(self._refused) > _MOST_REFUSED:
            raise StoppedError(f"more than {_MOST_REFUSED:,} messages were refused")
        known = self._refused or [""]
        return session.rows(
            "SELECT id, app, message FROM yelpaze_outbox WHERE NOT (id IN ??) ORDER BY created, id LIMIT ?",
            *(known, _MOST_AT_ONCE),
        )

    async def _give(self, message_id: str, app: str, text: str) -> bool:
        try:
            given = msgspec.json.decode(text, type=MessageIn)
            await self._hooks.accept(NewMessage(app, Access(), given))
        except (HooksError, msgspec.DecodeError) as error:
            if isinstance(error, HooksError) and error.status == _CONFLICT:
                return True
            self._refused.append(message_id)
            what = f"message {message_id} for {app} stays in the outbox: {error}"
            self._report(Notice("message.refused", what, Level.WARNING))
            return False
        return True

    def _do(self, work: Callable[[Session], T], *, writes: bool = True) -> T:
        connection = self._connection
        connection.begin(writes=writes)
        try:
            value = work(connection)
            connection.commit()
        except BaseException:
            connection.roll_back()
            raise
        return value
