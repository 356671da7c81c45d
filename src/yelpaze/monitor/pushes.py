"""Push checks: the job calls us. Its call is a result; its silence is one, too, written by the listener."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable

from yelpaze.bus.protocol import Bus, BusUnavailable
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.records import PUSH, RESULTS, Result, record_of
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

_LOOK_SECONDS = 1.0
_DUE = (
    "INSERT INTO push (check_key, due) VALUES (?, ?) ON CONFLICT (check_key) DO UPDATE SET due = excluded.due"
)


def is_allowed(config: MonitorConfig, key: str, token: bytes) -> bool | None:
    """Whether a token is that of a push check; None if there is no such check."""
    wanted = config.push_tokens.get(key)
    return None if wanted is None else hmac.compare_digest(token, wanted.encode())


def result_of(
    config: MonitorConfig, key: str, now: int, *, success: bool, error: str, duration: float
) -> Result:
    """What a job has told. `duration` in milliseconds."""
    return Result(
        check=key,
        location=PUSH,
        slot=now,
        sent=now,
        success=success,
        error="" if success else "reported",
        message="" if success else error or "the job reported a failure",
        duration=duration,
        config=config.hash,
    )


def set_due(session: Session, key: str, due: int) -> None:
    """A unit of work: when the job must have called again."""
    session.run(_DUE, key, due)


def _set_all(session: Session, due: dict[str, int]) -> None:
    for key, at in due.items():
        set_due(session, key, at)


class PushWatch:
    """Writes a missed result for each push check that is silent for longer than its interval."""

    def __init__(
        self, bus: Bus, store: Store, config: MonitorConfig, wall: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._store = store
        self._config = config
        self._wall = wall

    def reconfigure(self, config: MonitorConfig) -> None:
        """Go on with another configuration."""
        self._config = config

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(BusUnavailable, StoreUnavailable):
                await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Write what has been missed by now."""
        config, now = self._config, int(self._wall() * 1000)
        beats = {
            key: int(check.options.interval * 1000)
            for key in config.push_tokens
            if (check := config.checks[key]).options.interval and not check.disabled
        }
        if not beats:
            return
        rows = await self._store.read(lambda session: session.rows("SELECT check_key, due FROM push"))
        known: dict[str, int] = dict(rows)
        new = [key for key in beats if key not in known]
        missed = [(key, known[key]) for key in beats if key in known and known[key] <= now]
        if new:
            await self._store.write(lambda session: _set_all(session, {key: now + beats[key] for key in new}))
        for key, due in missed:
            await self._miss(key, due, beats[key], now)

    async def _miss(self, key: str, due: int, beat: int, now: int) -> None:
        following = due + beat * ((now - due) // beat + 1)

        def claim(session: Session) -> bool:  # one of several that listen does it
            changed = session.run(
                "UPDATE push SET due = ? WHERE check_key = ? AND due = ?", following, key, due
            )
            return bool(changed)

        if await self._store.write(claim):
            result = Result(
                check=key,
                location=PUSH,
                slot=due,
                sent=now,
                error="missed",
                message=f"no call within {beat / 1000:g} s",
                missed=True,
                config=self._config.hash,
            )
            await self._bus.publish(RESULTS, [record_of(result)])
