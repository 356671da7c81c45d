"""The commands of `yelpaze hooks` that work on its store: whoever may open that may do everything."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from yelpaze.app.relay import Relay
from yelpaze.cli.exits import Exit
from yelpaze.cli.table import print_table
from yelpaze.config.loader import load
from yelpaze.config.values import Duration
from yelpaze.hooks.context import Access
from yelpaze.hooks.examples import example_of
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, attempts, endpoints, messages
from yelpaze.hooks.log.attempts import AttemptFilter
from yelpaze.hooks.log.messages import MessageFilter, NewMessage
from yelpaze.hooks.log.paging import PageRequest, Slice
from yelpaze.hooks.sealing import new_key
from yelpaze.hooks.settings import HOOKS_SETTINGS
from yelpaze.hooks.values import (
    AttemptOut,
    EndpointSecretRotateIn,
    ExampleIn,
    MessageIn,
    MessageStatus,
    TokenIn,
)
from yelpaze.model.errors import InputError, MisuseError
from yelpaze.service.log import service_report
from yelpaze.store.session import Session

T = TypeVar("T")
_PAGE = 250
_TIMES = "a time such as 2026-11-30T12:00Z, or a duration back from now such as 2h"

limit = click.option(
    "-n",
    "--last",
    "count",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Number of rows, the latest first.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_since = click.option("--since", metavar="TIME", required=True, help=f"From then on: {_TIMES}.")
_until = click.option("--until", metavar="TIME", help="Up to then. [default: now]")


def on_store(work: Callable[..., Any]) -> Callable[..., Any]:
    """A command that works on the store: `work(hooks, …)` is a coroutine function."""

    @click.option("--store", metavar="FILE|URL", help="SQLite file or postgresql:// URL. [default: hooks.db]")
    @click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file of the service.",
    )
    @wraps(work)
    def run(store: str | None, config: Path | None, **named: Any) -> Any:
        flags: dict[str, Any] = {} if store is None else {"store": store}
        allow = named.pop("allow", ())
        if allow:
            flags["allow"] = allow
        settings = load(HOOKS_SETTINGS, config, flags)
        if "://" not in settings.store and not Path(settings.store).is_file():
            raise InputError(f"{settings.store}: there is no such store: `yelpaze hooks serve` makes it")

        async def go() -> Any:
            async with Hooks(settings=settings, deliver=False) as hooks:
                return await work(hooks, **named)

        return asyncio.run(go())

    return run


# ── sending ─────────────────────────────────────────────────────────────────────


@click.command("send")
@click.argument("app")
@click.argument("event_type")
@click.argument("payload", default="-")
@click.option("--event-id", metavar="ID", help="Your own id; a second message with it is refused.")
@click.option("--channel", "channels", metavar="NAME", multiple=True, help="Can be repeated.")
@click.option("--order-key", metavar="KEY", help="Take the place of an undelivered message with this key.")
@on_store
async def send(
    hooks: Hooks,
    app: str,
    event_type: str,
    payload: str,
    event_id: str | None,
    channels: Sequence[str],
    order_key: str | None,
) -> int:
    """Send a message to the endpoints of APP. PAYLOAD is a JSON object, @FILE, or - for standard input."""
    given = MessageIn(
        event_type=event_type,
        payload=_payload(payload),
        event_id=event_id,
        channels=tuple(channels) or None,
        order_key=order_key,
    )
    accepted = await hooks.accept(NewMessage(app, Access(), given))
    click.echo(accepted.message.id)
    return Exit.OK


def _payload(text: str) -> msgspec.Raw:
    if text == "-":
        data = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            data = Path(text[1:]).read_bytes()
        except OSError as error:
            raise InputError(f"{text[1:]}: cannot be read: {error.strerror}") from None
    else:
        data = text.encode()
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MisuseError(f"PAYLOAD is not valid JSON: {error}") from None
    return msgspec.Raw(data.strip())


@click.command("test")
@click.argument("app")
@click.argument("endpoint")
@click.option("--event-type", metavar="TYPE", default="yelpaze.test", show_default=True)
@on_store
async def test(hooks: Hooks, app: str, endpoint: str, event_type: str) -> int:
    """Send a test event to one endpoint, whatever its filters are."""

    def prepare(session: Session) -> tuple[str, MessageIn]:
        owner = applications.find_application(session, Access(), app)
        found = endpoints.find_endpoint(session, hooks.context, owner, endpoint)
        attempts.check_enabled(found)
        return found.id, example_of(session, ExampleIn(event_type=event_type))

    only, given = await hooks.read(prepare)
    accepted = await hooks.accept(NewMessage(app, Access(), given, only=only))
    click.echo(accepted.message.id)
    return Exit.OK


# ── lists ───────────────────────────────────────────────────────────────────────


@click.command("apps")
@click.option("--create", metavar="UID", help="Make an application, unless it is there.")
@click.option("--name", metavar="NAME", help="Its name. [default: UID]")
@limit
@as_json
@on_store
async def apps(hooks: Hooks, create: str | None, name: str | None, count: int, as_json: bool) -> int:
    """List applications."""
    if create is not None:
        made = await hooks.create_application(name or create, uid=create)
        click.echo(made.id)
        return Exit.OK
    found = await _pages(
        hooks,
        lambda session, asked: applications.list_applications(session, Access(), asked),
        count,
        descending=True,
    )
    rows = [applications.application_of(row).out() for row in found]
    _print(rows, as_json, ("ID", "UID", "NAME"), lambda one: (one.id, one.uid or "", one.name))
    return Exit.OK


@click.command("endpoints")
@click.argument("app")
@click.option(
    "--add",
    metavar="URL",
    help="Make an endpoint (- for a kind without a URL); its id and secret are printed.",
)
@click.option("--kind", metavar="KIND", default="webhook", show_default=True, help="With --add.")
@click.option("--options", metavar="JSON", default="{}", help="Options of the kind, with --add.")
@click.option("--event-types", metavar="TYPE,…", help="Filter, with --add. [default: all]")
@click.option("--allow", metavar="CIDR", multiple=True, help="As for serve, with --add. Can be repeated.")
@click.option("--enable", metavar="ENDPOINT", help="Enable it again.")
@click.option("--disable", metavar="ENDPOINT", help="Disable it: what waits for it fails.")
@click.option("--pause", metavar="ENDPOINT", help="Pause it: messages wait.")
@click.option("--unpause", metavar="ENDPOINT", help="Go on after a pause.")
@click.option("--delete", metavar="ENDPOINT", help="Delete it.")
@limit
@as_json
@on_store
async def endpoints_command(
    hooks: Hooks,
    app: str,
    add: str | None,
    kind: str,
    options: str,
    event_types: str | None,
    count: int,
    as_json: bool,
    **changes: str | None,
) -> int:
    """List the endpoints of APP, add one or change one."""
    if add is not None:
        types = tuple(event_types.split(",")) if event_types else None
        made = await hooks.create_endpoint(
            app, "" if add == "-" else add, kind=kind, options=_object(options), event_types=types
        )
        secret = await hooks.secret(app, made.id)
        click.echo(f"{made.id}  {secret}".strip())
        return Exit.OK
    if kind != "webhook" or options != "{}" or event_types is not None:
        raise MisuseError(
            "--kind, --options and --event-types go with --add URL; --add - for a kind without one"
        )
    fields: dict[str, dict[str, bool]] = {
        "enable": {"disabled": False},
        "disable": {"disabled": True},
        "pause": {"paused": True},
        "unpause": {"paused": False},
    }
    for name, endpoint in changes.items():
        if endpoint is None:
            continue
        if name == "delete":
            await hooks.on_endpoint(
                lambda session, owner, old: endpoints.delete_endpoint(session, hooks.context, owner, old.id),
                app,
                endpoint,
            )
        else:
            await hooks.update_endpoint(app, endpoint, **fields[name])
    rows = await _pages(
        hooks,
        lambda session, asked: endpoints.list_endpoints(session, hooks.context, Access(), app, asked),
        count,
        descending=True,
    )
    _print(
        [row[0] for row in rows],
        as_json,
        ("ID", "UID", "KIND", "STATE", "URL"),
        lambda one: (one.id, one.uid or "", one.kind, _state(one), one.url),
    )
    return Exit.OK


def _state(endpoint: Any) -> str:
    if endpoint.disabled:
        return f"disabled: {endpoint.disabled_reason}"
    if endpoint.paused:
        return "paused"
    return f"failing since {_when(endpoint.failing_since)}" if endpoint.failing_since else "ok"


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MisuseError(f"--options takes a JSON object: {error}") from None


@click.command("messages")
@click.argument("app")
@click.option("--event-type", "types", metavar="TYPE", multiple=True, help="Can be repeated.")
@click.option("--since", metavar="TIME", help=f"Not older: {_TIMES}.")
@limit
@as_json
@on_store
async def messages_command(
    hooks: Hooks, app: str, types: Sequence[str], since: str | None, count: int, as_json: bool
) -> int:
    """List the messages of APP, the latest first."""
    which = MessageFilter(event_types=tuple(types), after=_time(hooks, since))

    def listed(session: Session, asked: PageRequest) -> Slice:
        owner = applications.find_application(session, Access(), app)
        return messages.list_messages(session, owner, asked, which)

    found = await _pages(hooks, listed, count, descending=True)
    rows = [messages.message_of(row).out() for row in found]
    _print(
        rows,
        as_json,
        ("ID", "TYPE", "SENT (UTC)", "PAYLOAD"),
        lambda one: (one.id, one.event_type, _when(one.timestamp), _short(bytes(one.payload).decode())),
    )
    return Exit.OK


@click.command("attempts")
@click.argument("app")
@click.option("--endpoint", metavar="ENDPOINT", help="Those at one endpoint.")
@click.option("--message", metavar="MESSAGE", help="Those of one message.")
@click.option("--status", type=click.Choice(["success", "fail"]), help="Outcome.")
@click.option("--code", metavar="CODE", type=int, help="HTTP status of the answer; 0 for none.")
@click.option("--since", metavar="TIME", help=f"Not older: {_TIMES}.")
@limit
@as_json
@on_store
async def attempts_command(
    hooks: Hooks,
    app: str,
    endpoint: str | None,
    message: str | None,
    status: str | None,
    code: int | None,
    since: str | None,
    count: int,
    as_json: bool,
) -> int:
    """List the attempts to deliver messages of APP, the latest first."""
    state = None if status is None else int(MessageStatus[status.upper()])
    which = AttemptFilter(status=state, code=code, after=_time(hooks, since))

    def listed(session: Session, asked: PageRequest) -> Slice:
        owner = applications.find_application(session, Access(), app)
        return attempts.list_attempts(
            session,
            owner,
            asked,
            which,
            endpoint=None
            if endpoint is None
            else endpoints.find_endpoint(session, hooks.context, owner, endpoint),
            message=None if message is None else messages.find_message(session, owner, message),
        )

    rows = [row[0] for row in await _pages(hooks, listed, count, descending=True)]
    heads = ("AT (UTC)", "MESSAGE", "ENDPOINT", "TRY", "OUTCOME", "TIME (ms)", "NEXT (UTC)")
    _print(rows, as_json, heads, _attempt_row)
    return Exit.OK


def _attempt_row(one: AttemptOut) -> tuple[str, ...]:
    outcome = one.reason or f"{one.response_status_code} delivered"
    following = _when(one.next_attempt) if one.next_attempt is not None else ""
    return (
        _when(one.timestamp),
        one.msg_id,
        one.endpoint_id,
        str(one.number),
        _short(outcome),
        str(one.response_duration_ms),
        following,
    )


# ── again ───────────────────────────────────────────────────────────────────────


@click.command("resend")
@click.argument("app")
@click.argument("message")
@click.argument("endpoint")
@on_store
async def resend(hooks: Hooks, app: str, message: str, endpoint: str) -> int:
    """Deliver MESSAGE to ENDPOINT again, whatever came of it before."""
    await hooks.resend(app, message, endpoint)
    click.echo("1 message queued", err=True)
    return Exit.OK


@click.command("recover")
@click.argument("app")
@click.argument("endpoint")
@_since
@_until
@on_store
async def recover(hooks: Hooks, app: str, endpoint: str, since: str, until: str | None) -> int:
    """Deliver again what has failed at ENDPOINT."""
    count = await hooks.recover(app, endpoint, _sure_time(hooks, since), _time(hooks, until))
    click.echo(_queued(count), err=True)
    return Exit.OK


@click.command("replay", short_help="Deliver to ENDPOINT what it never got.")
@click.argument("app")
@click.argument("endpoint")
@_since
@_until
@on_store
async def replay(hooks: Hooks, app: str, endpoint: str, since: str, until: str | None) -> int:
    """Deliver to ENDPOINT what it never got, for example because it did not exist yet."""
    count = await hooks.replay_missing(app, endpoint, _sure_time(hooks, since), _time(hooks, until))
    click.echo(_queued(count), err=True)
    return Exit.OK


# ── keys and tokens ─────────────────────────────────────────────────────────────


@click.command("token")
@click.option("--app", metavar="APP", help="Token for this application only. [default: all]")
@click.option("--name", metavar="NAME", default="", help="For the list.")
@click.option("--expires-in", metavar="DURATION", help="Such as 90d. [default: never]")
@click.option("--list", "is_list", is_flag=True, help="List the tokens that there are.")
@click.option("--revoke", metavar="ID", help="Revoke a token.")
@on_store
async def token(
    hooks: Hooks, app: str | None, name: str, expires_in: str | None, is_list: bool, revoke: str | None
) -> int:
    """Make a token for the API; it is printed once."""
    if revoke is not None:
        await hooks.write(lambda session: applications.delete_token(session, Access(), revoke))
    if is_list:
        found = await hooks.read(lambda session: applications.list_tokens(session, Access()))
        _print(
            found,
            False,
            ("ID", "APPLICATION", "NAME", "EXPIRES (UTC)"),
            lambda one: (
                one.id,
                one.application_id or "all",
                one.name,
                _when(one.expires_at) if one.expires_at else "never",
            ),
        )
    if revoke is not None or is_list:
        return Exit.OK
    seconds = None if expires_in is None else int(_duration(expires_in))
    given = TokenIn(application_id=app, name=name, expires_in=seconds)
    made = await hooks.write(
        lambda session: applications.create_token(session, hooks.context, Access(), given)
    )
    click.echo(made.token)
    return Exit.OK


@click.command("rotate")
@click.argument("app")
@click.argument("endpoint")
@click.option("--grace", metavar="DURATION", help="How long the old secret stays valid. [default: 24h]")
@on_store
async def rotate(hooks: Hooks, app: str, endpoint: str, grace: str | None) -> int:
    """Make a new signing secret for ENDPOINT, and print it."""
    given = EndpointSecretRotateIn(grace_period_seconds=None if grace is None else int(_duration(grace)))
    await hooks.on_endpoint(
        lambda session, _, found: endpoints.rotate_secret(session, hooks.context, found, given), app, endpoint
    )
    click.echo(await hooks.secret(app, endpoint))
    return Exit.OK


@click.command("key")
def key() -> int:
    """Print a new encryption key, for YELPAZE_HOOKS__ENCRYPTION_KEY."""
    click.echo(new_key())
    return Exit.OK


@click.command("rekey")
@on_store
async def rekey(hooks: Hooks) -> int:
    """Re-encrypt all secrets with the current key."""
    count = await hooks.write(lambda session: endpoints.reseal_all(session, hooks.context))
    click.echo(f"{count:,} values re-encrypted with the current key", err=True)
    return Exit.OK


# ── the outbox ──────────────────────────────────────────────────────────────────


@click.command("relay", short_help="Send what waits in an outbox.")
@click.argument("database")
@click.option("--once", is_flag=True, help="Exit when the outbox is empty.")
@on_store
async def relay(hooks: Hooks, database: str, once: bool) -> int:
    """Take messages out of the table yelpaze_outbox of DATABASE: an SQLite file or a postgresql:// URL."""
    found = Relay(database, hooks, service_report("hooks"))
    try:
        await found.run(once=once)
    finally:
        found.close()
        click.echo(f"{_messages(found.relayed)} relayed, {found.refused:,} refused", err=True)
    return Exit.SOME_FAILED if found.refused else Exit.OK


# ── parts ───────────────────────────────────────────────────────────────────────


async def _pages(
    hooks: Hooks,
    read: Callable[[Session, PageRequest], Slice],
    count: int,
    *,
    descending: bool = False,
) -> list[Any]:
    """So many rows, a page at a time."""
    rows: list[Any] = []
    iterator: str | None = None
    while len(rows) < count:
        asked = PageRequest(iterator, min(_PAGE, count - len(rows)), descending)
        page = await hooks.read(lambda session, asked=asked: read(session, asked))  # type: ignore[misc]
        rows += page.rows
        iterator = page.iterator
        if page.done:
            break
    return rows


def _print(
    rows: Sequence[T], as_json: bool, heads: tuple[str, ...], cells: Callable[[T], tuple[str, ...]]
) -> None:
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row).decode())
        return
    print_table([heads, *map(cells, rows)])


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _queued(count: int) -> str:
    return f"{_messages(count)} queued"


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"  # noqa: PLR2004


def _time(hooks: Hooks, text: str | None) -> datetime | None:
    return None if text is None else _sure_time(hooks, text)


def _sure_time(hooks: Hooks, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return hooks.now() - timedelta(seconds=Duration.parse(text))
        except ValueError:
            raise MisuseError(f"{text!r} is not a time: give {_TIMES}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise MisuseError(str(error)) from None
