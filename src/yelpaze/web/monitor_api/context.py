"""What the handlers share: store, bus, configuration, tokens."""

import hmac
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response

from yelpaze.bus.protocol import Bus, BusUnavailable, NewRecord
from yelpaze.model.api_error import ApiError
from yelpaze.monitor import queries
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.queries import CheckRow
from yelpaze.monitor.records import COMMANDS, Command, CommandKind, record_of
from yelpaze.store.session import Session
from yelpaze.store.store import Store

T = TypeVar("T")


class MonitorContext:
    """`wall`: UNIX seconds. `config` changes at a reload."""

    def __init__(
        self, bus: Bus, store: Store, config: MonitorConfig, wall: Callable[[], float] = time.time
    ) -> None:
        self.bus = bus
        self.store = store
        self.config = config
        self.wall = wall

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.wall() * 1000)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from the store. Raises StoreUnavailable."""
        return await self.store.read(work)

    def check_reader(self, request: HTTPConnection) -> None:
        """Refuse who may not read. Raises ApiError."""
        wanted = self.config.api.read_token
        if wanted and not _has(request, wanted) and not _has(request, self.config.api.token):
            raise ApiError(
                401, "authentication_failed", "reading takes a token: `Authorization: Bearer TOKEN`"
            )

    def check_operator(self, request: Request) -> None:
        """Refuse who may not give commands. Raises ApiError."""
        wanted = self.config.api.token
        if not wanted:
            raise ApiError(403, "forbidden", "commands need api.token in the monitor's settings")
        if not _has(request, wanted):
            raise ApiError(401, "authentication_failed", "give api.token as `Authorization: Bearer TOKEN`")

    async def command(self, kind: CommandKind, **fields: object) -> Command:
        """Put a command on the bus. Raises ApiError while it cannot be used."""
        values: dict[str, object] = {"id": f"cmd-{secrets.token_hex(8)}", "kind": kind, "at": self.now()}
        command = Command(**{**values, **fields})  # type: ignore[arg-type]
        await self.publish(COMMANDS, record_of(command))
        return command

    async def publish(self, topic: str, record: NewRecord) -> None:
        """Put a record on the bus. Raises ApiError while it cannot be used."""
        try:
            await self.bus.publish(topic, [record])
        except BusUnavailable:
            raise ApiError(
                503, "unavailable", "the bus cannot be used now: try again", retry_after=1
            ) from None


def _has(request: HTTPConnection, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    return bool(token) and hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode())


def plain(text: str, status: int = 200) -> Response:
    """A text, as Gatus answers on its paths."""
    return Response(text, status, media_type="text/plain; charset=utf-8")


def reader(context: MonitorContext) -> Any:
    """The dependency of an operation that reads."""
    return Depends(context.check_reader)


def operator(context: MonitorContext) -> Any:
    """The dependency of an operation that gives a command."""
    return Depends(context.check_operator)


async def found_check(context: MonitorContext, key: str) -> CheckRow:
    """A check by its key. Raises ApiError."""
    row = await context.read(partial(queries.find_check, key=key.lower(), stale_before=context.now()))
    if row is None:
        raise ApiError(404, "not_found", "there is no such endpoint")
    return row
