"""`Hooks`: durable delivery as a library; the API and the commands are made of it."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from yelpaze.hooks.context import Access, Context, ms, shard_of
from yelpaze.hooks.delivery.dispatcher import Dispatcher
from yelpaze.hooks.delivery.sender import Sender
from yelpaze.hooks.delivery.statistics import HooksTotals
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.ids import Ids, id_at
from yelpaze.hooks.log import applications, attempts, endpoints, messages
from yelpaze.hooks.log.applications import Application
from yelpaze.hooks.log.attempts import AttemptFilter
from yelpaze.hooks.log.configured import reconcile
from yelpaze.hooks.log.endpoints import Endpoint, check_key
from yelpaze.hooks.log.fan_out import FanOut
from yelpaze.hooks.log.messages import Accepted, NewMessage, check_message
from yelpaze.hooks.log.paging import PageRequest, Slice
from yelpaze.hooks.maintenance import delete_old
from yelpaze.hooks.operator_events import operator_message, set_up_operator
from yelpaze.hooks.outbox import create_outbox, enqueue
from yelpaze.hooks.sealing import Sealer, new_key
from yelpaze.hooks.secret_file import kept_in
from yelpaze.hooks.settings import HOOKS_SETTINGS, HooksSettings
from yelpaze.hooks.tables import HOOKS, SHARDS
from yelpaze.hooks.values import (
    ApplicationIn,
    ApplicationOut,
    AttemptOut,
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    MessageEndpointOut,
    MessageIn,
    MessageOut,
)
from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.store.leases import Leases
from yelpaze.store.opening import is_postgres, open_store, sqlite_path
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

T = TypeVar("T")
_MOST_AT_ONCE = 500  # messages in one unit of work
_CLEAN_SECONDS = 60.0
_CLEAN_PAUSE = 0.05
_CLEAN_AFTER_JUMP = 6 * 3600.0  # a clock that was set wrongly is set right again by then
_EVENT_PAUSE = 1.0
_KEY_SECONDS = 1.0


class Hooks:
    """Accepts messages, and delivers them to the endpoints of their application. An async context manager.

    Args:
        store: An SQLite file, or a `postgresql://` URL. Several processes may share it.
        deliver: False accepts messages only; another process delivers them.
        encryption_key: 32 bytes in base64 (`yelpaze hooks key`). By default that of the settings, else,
            beside an SQLite store, that in `STORE.key`, which is made at the first start.
        settings: As in the section `hooks` of a settings file.
        report: Is called with notices for the operator.
        wall: UNIX seconds.
        monotonic: A clock in seconds for pauses and leases.
        rng: The source of jitter and ids.

    Raises InputError for a store that cannot be used or wrong settings.

    `Hooks.enqueue(connection, app, event_type, payload)` puts a message into the sender's own database, in
    the sender's own transaction; `yelpaze hooks relay` takes it from there.

    >>> async def example():
    ...     async with Hooks("/tmp/example-hooks.db") as hooks:
    ...         await hooks.create_application("Acme", uid="acme")
    ...         await hooks.create_endpoint("acme", "https://example.com/webhook")
    ...         await hooks.send("acme", "order.completed", {"order": 7})

    """

    def __init__(
        self,
        store: str | None = None,
        *,
        deliver: bool = True,
        encryption_key: str | None = None,
        settings: HooksSettings | Mapping[str, Any] | None = None,
        report: Report = lambda _: None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        found = settings if isinstance(settings, HooksSettings) else HOOKS_SETTINGS.of(settings or {})
        name = found.store if store is None else store
        self.settings = msgspec.structs.replace(found, store=name)
        self._encryption_key = encryption_key
        self._deliver = deliver
        self._report = report
        self._wall = wall
        self._monotonic = monotonic
        self._rng = rng or random.Random(int.from_bytes(os.urandom(16)))  # noqa: S311  seeded by the system
        self._stack = contextlib.AsyncExitStack()
        self._fan_out = FanOut()
        self._waiting: list[tuple[NewMessage, asyncio.Future[Accepted]]] = []
        self._alone: list[tuple[NewMessage, asyncio.Future[Accepted]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._cleaning: asyncio.Task[None] | None = None
        self._events: set[asyncio.Task[None]] = set()
        self._operator_id = ""
        self._store: Store
        self.context: Context
        self.dispatcher: Dispatcher | None = None

    async def __aenter__(self) -> Self:
        if is_postgres(self.settings.store) and not (self._encryption_key or self.settings.encryption_key):
            raise InputError(
                "a store in PostgreSQL takes the encryption key from YELPAZE_HOOKS__ENCRYPTION_KEY: "
                "make one by `yelpaze hooks key`"
            )
        is_new = is_postgres(self.settings.store) or _is_empty(sqlite_path(self.settings.store))
        store = open_store(self.settings.store, HOOKS)
        ids = Ids(lambda: int(self._wall() * 1000), self._rng)
        self._store = await self._stack.enter_async_context(store)
        try:
            self.context = Context(
                self.settings, Sealer(self._keys(is_new=is_new)), ids, self._rng, self._wall
            )
            await store.read(partial(check_key, context=self.context))
            if self._deliver:
                await self._begin_delivery()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    def _keys(self, *, is_new: bool) -> list[str]:
        own = self._encryption_key or self.settings.encryption_key
        if not own:
            path = sqlite_path(self.settings.store)
            if not is_new and not _appears(Path(f"{path}.key")):
                raise InputError(
                    f"{path}.key is missing, the encryption key of this store: restore it, or give the key "
                    "as YELPAZE_HOOKS__ENCRYPTION_KEY"
                )
            own, _ = kept_in(f"{path}.key", new_key, "the encryption key")
        return [own, *self.settings.previous_encryption_keys]

    async def _begin_delivery(self) -> None:
        self._operator_id = await self._store.write(partial(set_up_operator, context=self.context))
        owner = f"{os.getpid()}-{self._rng.getrandbits(32):08x}"
        leases = Leases("hooks", SHARDS, owner, self.settings.lease)
        self.dispatcher = Dispatcher(
            self._store,
            self.context,
            leases,
            Sender(self.settings, self._wall),
            report=self._report,
            on_event=self._on_event,
            monotonic=self._monotonic,
        )
        self._stack.push_async_callback(self.dispatcher.close)
        await self.dispatcher.start()
        self._cleaning = asyncio.get_running_loop().create_task(self._clean())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self) -> None:
        """Wait for ever, or until the delivery breaks, which is raised."""
        if self.dispatcher is None:
            await asyncio.Event().wait()
        else:
            await self.dispatcher.run()

    async def drain(self, seconds: float | None = None) -> None:
        """Start no more attempts, and let those under way end."""
        if self.dispatcher is not None:
            await self.dispatcher.drain(self.settings.shutdown if seconds is None else seconds)

    async def close(self) -> None:
        """End; what is accepted is in the store, and goes on with the next start."""
        tasks = [task for task in (self._cleaning, *self._events) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._stack.aclose()

    # In the sender's own transaction, without a store at hand.
    create_outbox = staticmethod(create_outbox)
    enqueue = staticmethod(enqueue)

    def totals(self) -> HooksTotals:
        """The counts of this process."""
        return HooksTotals() if self.dispatcher is None else self.dispatcher.totals()

    # ── messages ────────────────────────────────────────────────────────────────

    async def send(
        self,
        app: str,
        event_type: str,
        payload: Mapping[str, Any],
        *,
        event_id: str | None = None,
        channels: Iterable[str] | None = None,
        tags: Iterable[str] | None = None,
        order_key: str | None = None,
        expires_at: datetime | None = None,
        schedule: str | None = None,
    ) -> MessageOut:
        """Accept a message; when this returns, it is on disk.

        Args:
            app: Id or uid of an application.
            event_type: For example `order.completed`.
            payload: A JSON object: the body that endpoints get.
            event_id: An id of the sender's own; a second message with it is refused.
            channels: Channels that endpoints filter by.
            tags: For finding it again.
            order_key: It takes the place of an undelivered earlier message with the same key.
            expires_at: It is not attempted later.
            schedule: "alarm" for that of alarms.

        Raises HooksError, StoreUnavailable.

        """
        try:
            body = msgspec.json.encode(payload)
        except (TypeError, ValueError) as error:
            raise MisuseError(f"the payload is no JSON: {error}") from None
        given = MessageIn(
            event_type=event_type,
            payload=msgspec.Raw(body),
            event_id=event_id,
            channels=None if channels is None else tuple(channels),
            tags=None if tags is None else tuple(tags),
            order_key=order_key,
            expires_at=expires_at,
            schedule=schedule,
        )
        accepted = await self.accept(NewMessage(app, Access(), given))
        return accepted.message.out()

    async def accept(self, new: NewMessage) -> Accepted:
        """Take a message in, with others in one transaction. Raises HooksError, StoreUnavailable."""
        check_message(self.context, new.given)
        dispatcher = self.dispatcher
        if dispatcher is not None and dispatcher.broken is not None:
            raise StoppedError(f"deliveries have ended: {dispatcher.broken!r}")
        if dispatcher is not None and max(dispatcher.backlog, len(self._waiting)) > self.settings.max_backlog:
            raise HooksError(429, "rate_limited", "too many deliveries wait: send more slowly", retry_after=1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Accepted] = loop.create_future()
        self._waiting.append((new, future))
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._accept_all())
        return await future

    async def _accept_all(self) -> None:
        while self._waiting or self._alone:
            if self._alone:
                batch = [self._alone.pop(0)]
            else:
                batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            dispatcher = self.dispatcher
            work = partial(
                messages.create_messages,
                context=self.context,
                fan_out=self._fan_out,
                leases=None if dispatcher is None else dispatcher.leases,
                epochs={} if dispatcher is None else dispatcher.epochs,
                wanted=[new for new, _ in batch],
            )
            results: list[Accepted | HooksError] | list[Exception]
            try:
                results = await self._store.write(work)
            except Exception as error:  # noqa: BLE001  each caller gets it
                if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                    self._alone += batch  # so that one that spoils it harms no other
                    continue
                results = [error] * len(batch)
                if dispatcher is not None and isinstance(error, StoreUnavailable):
                    dispatcher.rescan(error)
            for (_, future), result in zip(batch, results, strict=True):
                if not isinstance(result, Accepted):
                    if not future.done():
                        future.set_exception(result)
                    continue
                if not future.done():  # else its caller has gone
                    future.set_result(result)
                self._hand_over(result)

    def _hand_over(self, accepted: Accepted) -> None:
        if self.dispatcher is not None and accepted.is_new:
            self.dispatcher.counters.accepted += 1
            if accepted.targets:
                self.dispatcher.offer(accepted)

    def _on_event(self, event_type: str, payload: dict[str, object]) -> None:
        """An operator event; what happens to the operator's own endpoints makes none."""
        if payload["appId"] in ("", self._operator_id):
            return
        task = asyncio.get_running_loop().create_task(self._send_event(event_type, payload))
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _send_event(self, event_type: str, payload: dict[str, object]) -> None:
        while True:
            try:
                await self.accept(operator_message(self._operator_id, event_type, payload))
            except (StoreUnavailable, HooksError):
                await asyncio.sleep(_EVENT_PAUSE)
            else:
                return

    # ── what else there is ──────────────────────────────────────────────────────

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from the store. Raises HooksError, StoreUnavailable."""
        return await self._store.read(work)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Write to the store. Raises HooksError, StoreUnavailable."""
        return await self._store.write(work)

    def changed(self, endpoint_id: str) -> None:
        """An endpoint, or what it has to do, was changed by this process: look at it now."""
        if self.dispatcher is not None:
            self.dispatcher.look_at(endpoint_id, shard_of(endpoint_id))

    async def on_endpoint(
        self,
        work: Callable[[Session, Application, Endpoint], T],
        app: str,
        endpoint: str,
        access: Access = Access(),  # noqa: B008  frozen
    ) -> T:
        """Change an endpoint or its deliveries, and let its owner know. Raises HooksError."""

        def change(session: Session) -> tuple[str, T]:
            owner = applications.find_application(session, access, app)
            found = endpoints.find_endpoint(session, self.context, owner, endpoint)
            value = work(session, owner, found)
            attempts.notify_owner(session, self.context, found.id)
            return found.id, value

        endpoint_id, value = await self._store.write(change)
        self.changed(endpoint_id)
        return value

    async def create_application(
        self, name: str, *, uid: str | None = None, get_if_exists: bool = True
    ) -> ApplicationOut:
        """Make an application, or give the one that has the uid. Raises HooksError."""
        given = ApplicationIn(name=name, uid=uid)
        made, _ = await self._store.write(
            partial(
                applications.create_application,
                context=self.context,
                given=given,
                get_if_exists=get_if_exists,
            )
        )
        return made.out()

    async def create_endpoint(self, app: str, url: str = "", **fields: Any) -> EndpointOut:
        """Make an endpoint; `fields` are those of `EndpointIn`. Raises HooksError, MisuseError."""
        given = _converted({"url": url, **fields}, EndpointIn)

        def create(session: Session) -> Endpoint:
            owner = applications.find_application(session, Access(), app)
            return endpoints.create_endpoint(session, self.context, owner, given)

        return (await self._store.write(create)).out(self.context)

    async def update_endpoint(self, app: str, endpoint: str, **fields: Any) -> EndpointOut:
        """Change an endpoint; `fields` are those of `EndpointIn`. Raises HooksError, MisuseError."""
        patch = _converted(fields, EndpointPatch)
        changed = await self.on_endpoint(
            lambda session, owner, found: endpoints.patch_endpoint(
                session, self.context, owner, found.id, patch
            ),
            app,
            endpoint,
        )
        return changed.out(self.context)

    async def configure(self, uid: str, name: str, wanted: Mapping[str, EndpointIn], place: str) -> None:
        """Give an application the endpoints of an operator's own settings. See `reconcile`."""
        own = ApplicationIn(name=name, uid=uid)
        await self._store.write(partial(reconcile, context=self.context, own=own, wanted=wanted, place=place))

    async def secret(self, app: str, endpoint: str) -> str:
        """The secret that an endpoint's messages are signed with. Raises HooksError."""

        def find(session: Session) -> str:
            owner = applications.find_application(session, Access(), app)
            found = endpoints.find_endpoint(session, self.context, owner, endpoint)
            secrets = endpoints.secrets_of(session, self.context, [found.id])
            return secrets[found.id][0].text if found.id in secrets else ""

        return await self._store.read(find)

    async def attempts(
        self, app: str, *, message: str | None = None, endpoint: str | None = None, limit: int = 50
    ) -> list[AttemptOut]:
        """The last attempts of an application, message or endpoint, the latest first. Raises HooksError."""

        def listed(session: Session) -> Slice:
            owner = applications.find_application(session, Access(), app)
            return attempts.list_attempts(
                session,
                owner,
                PageRequest(limit=limit, descending=True),
                AttemptFilter(),
                endpoint=None
                if endpoint is None
                else endpoints.find_endpoint(session, self.context, owner, endpoint),
                message=None if message is None else messages.find_message(session, owner, message),
            )

        return [row[0] for row in (await self._store.read(listed)).rows]

    async def destinations(self, app: str, message: str, *, limit: int = 250) -> list[MessageEndpointOut]:
        """The endpoints that a message goes to, and how far it has come. Raises HooksError."""

        def listed(session: Session) -> Slice:
            owner = applications.find_application(session, Access(), app)
            found = messages.find_message(session, owner, message)
            return attempts.list_message_endpoints(session, self.context, found, PageRequest(limit=limit))

        return [row[0] for row in (await self._store.read(listed)).rows]

    async def resend(self, app: str, message: str, endpoint: str, access: Access = Access()) -> None:  # noqa: B008
        """Deliver a message to an endpoint again, whatever came of it before. Raises HooksError."""

        def again(session: Session, owner: Application, found: Endpoint) -> None:
            attempts.resend(session, self.context, messages.find_message(session, owner, message), found)

        await self.on_endpoint(again, app, endpoint, access)

    async def recover(
        self,
        app: str,
        endpoint: str,
        since: datetime,
        until: datetime | None = None,
        access: Access = Access(),  # noqa: B008
    ) -> int:
        """Deliver again what has failed since a time; return how many. Raises HooksError."""
        end = until or self.now()
        return await self.on_endpoint(
            lambda session, _, found: attempts.recover(session, self.context, found, since, end),
            app,
            endpoint,
            access,
        )

    async def replay_missing(
        self,
        app: str,
        endpoint: str,
        since: datetime,
        until: datetime | None = None,
        access: Access = Access(),  # noqa: B008
    ) -> int:
        """Deliver what an endpoint never got since a time; return how many. Raises HooksError."""
        end = id_at("msg", ms(until or self.now()) + 1)
        place: str | None = id_at("msg", ms(since))
        count = 0
        while place is not None:
            more, place = await self.on_endpoint(
                lambda session, _, found, place=place: attempts.replay_missing(  # type: ignore[misc]
                    session, self.context, found, place, end
                ),
                app,
                endpoint,
                access,
            )
            count += more
        return count

    def now(self) -> datetime:
        """The time by the wall clock."""
        return datetime.fromtimestamp(self._wall(), UTC)

    async def _clean(self) -> None:
        """Delete what is too old; one process does it, the owner of the first shard."""
        while True:
            await asyncio.sleep(_CLEAN_SECONDS)
            assert self.dispatcher is not None
            if 0 not in self.dispatcher.epochs or self.dispatcher.has_jumped_within(_CLEAN_AFTER_JUMP):
                continue
            try:
                while await self._store.write(partial(delete_old, context=self.context)):  # noqa: ASYNC110
                    await asyncio.sleep(_CLEAN_PAUSE)  # others write meanwhile
            except Exception as error:  # noqa: BLE001  deliveries go on; it is tried again
                self._report(Notice("cleaning.failed", f"nothing old was deleted: {error}", Level.WARNING))


def _converted(fields: Mapping[str, Any], kind: type[T]) -> T:
    names = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    unknown = set(fields) - set(names)
    if unknown:
        raise MisuseError(f"an endpoint has no {min(unknown)!r}; it has {', '.join(sorted(names))}")
    try:
        return msgspec.convert({names[name]: value for name, value in fields.items()}, kind)
    except msgspec.ValidationError as error:
        raise MisuseError(str(error)) from None


def _appears(file: Path) -> bool:
    """Whether it is there, or is there soon: another process may just be making the store."""
    end = time.monotonic() + _KEY_SECONDS
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _is_empty(path: str) -> bool:
    """Whether there is no file, or nothing in it."""
    try:
        return Path(path).stat().st_size == 0
    except OSError:
        return True
