"""Commands for the API of a running monitor: incidents, acknowledge, silence, maintenance."""

import asyncio
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from urllib.parse import quote

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.seconds import Seconds
from yelpaze.cli.table import print_table
from yelpaze.http.engine import Engine
from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request, request

_INCIDENT = ("id", "state", "since", "until", "message")
_SILENCE = ("id", "matchers", "until", "by", "comment")
_UNAUTHORIZED = (401, 403)


class _Api:
    """The API at a URL."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, json: Any = None, **parameters: Any) -> Any:
        """Call it. Raises MisuseError for what it refuses, StoppedError if it does not answer."""
        options: dict[str, Any] = {} if json is None else {"json": json}
        asked = request(
            method, f"{self._url}/api/v1/{path}", headers=self._headers, params=parameters or None, **options
        )
        outcome = asyncio.run(_sent(asked))
        if outcome.status == 0:
            raise StoppedError(f"{self._url}: {outcome.error}")
        if not outcome.ok:
            raise MisuseError(f"{self._url}: {_detail(outcome)}")
        return outcome.json()

    def rows(self, path: str, names: Sequence[str], **parameters: Any) -> list[dict[str, Any]]:
        """A list, whose rows have these names. Raises MisuseError for what is no answer of a monitor."""
        try:
            rows: list[dict[str, Any]] = self.call("GET", path, **parameters)["data"]
            complete = all(name in row for row in rows for name in names)
        except MisuseError:
            raise
        except (ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            raise MisuseError(f"{self._url}: this is no answer of a monitor: look at --url")
        return rows


async def _sent(asked: Request) -> Outcome:
    async with Engine(timeout=15.0) as engine:
        return await engine.send(asked)


def _detail(outcome: Outcome) -> str:
    try:
        detail = outcome.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return str(outcome.error)
    if isinstance(detail, list) and detail:
        return f"{'.'.join(map(str, detail[0]['loc'][1:]))}: {detail[0]['msg']}"
    hint = ": give --token, or YELPAZE_MONITOR__API__TOKEN" if outcome.status in _UNAUTHORIZED else ""
    return f"{detail}{hint}"


def _client(function: Callable[..., int]) -> Callable[..., int]:
    @wraps(function)
    def run(url: str, token: str, **given: Any) -> int:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--url {url!r}: takes the URL of a monitor, such as http://127.0.0.1:8080")
        return function(api=_Api(url, token), **given)

    which = "api.token of the monitor."
    run = click.option("--token", envvar="YELPAZE_MONITOR__API__TOKEN", default="", help=which)(run)
    return click.option(
        "--url",
        envvar="YELPAZE_MONITOR__URL",
        default="http://127.0.0.1:8080",
        show_default=True,
        help="URL of `monitor run` or `monitor web`.",
    )(run)


@click.command("incidents")
@_client
@click.option("--all", "everything", is_flag=True, help="Closed ones, too.")
@click.option("--endpoint", metavar="KEY", help="Of one endpoint only.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
def incidents(api: _Api, everything: bool, endpoint: str | None, limit: int) -> int:
    """List incidents, newest first."""
    asked: dict[str, Any] = {"state": "all" if everything else "open", "limit": limit}
    if endpoint is not None:
        asked["endpoint"] = endpoint
    rows = api.rows("incidents", _INCIDENT, **asked)
    if not rows:
        click.echo("no incidents" if everything else "no open incidents", err=True)
        return Exit.OK
    heads = ["ID", "STATE", "SINCE", "UNTIL", "MESSAGE"]
    print_table(
        [
            heads,
            *([row["id"], row["state"], row["since"], row["until"] or "", row["message"]] for row in rows),
        ]
    )
    return Exit.OK


@click.command("ack")
@_client
@click.argument("incident")
@click.option("--by", default="", help="Your name.")
@click.option("--comment", default="", help="What you know of it.")
@click.option("--undo", is_flag=True, help="Take the acknowledgement back.")
def ack(api: _Api, incident: str, by: str, comment: str, undo: bool) -> int:
    """Acknowledge an incident: its channels are not reminded of it any more."""
    path = f"incidents/{quote(incident, safe='')}/ack"
    if undo:
        api.call("DELETE", path)
    else:
        api.call("POST", path, json={"by": by, "comment": comment})
    click.echo(f"{incident}: {'not acknowledged any more' if undo else 'acknowledged'}", err=True)
    return Exit.OK


def _silencing(name: str, what: str) -> click.Command:
    @click.command(name, help=what)
    @_client
    @click.argument("matchers", metavar="NAME=VALUE...", nargs=-1)
    @click.option("--for", "seconds", metavar="SECONDS", type=Seconds(), default="1h", show_default=True)
    @click.option("--by", default="", help="Your name.")
    @click.option("--comment", default="", help="Why.")
    @click.option("--end", metavar="ID", help="End one.")
    @click.option("--list", "is_list", is_flag=True, help="List those that hold.")
    def one(
        api: _Api,
        matchers: tuple[str, ...],
        seconds: float,
        by: str,
        comment: str,
        end: str | None,
        is_list: bool,
    ) -> int:
        if end is not None:
            api.call("DELETE", f"{name}s/{quote(end, safe='')}")
            click.echo(f"{end}: ends now", err=True)
            return Exit.OK
        if is_list:
            rows = api.rows(f"{name}s", _SILENCE)
            shown = [
                [row["id"], _matchers(row["matchers"]), row["until"], row["by"], row["comment"]]
                for row in rows
            ]
            print_table([["ID", "MATCHERS", "UNTIL", "BY", "COMMENT"], *shown])
            return Exit.OK
        found = dict(matcher.split("=", 1) for matcher in matchers if "=" in matcher)
        if not found or len(found) != len(matchers):
            raise MisuseError(f"monitor {name} takes NAME=VALUE, such as group=core or key=core_web")
        body = {"matchers": found, "minutes": seconds / 60, "by": by, "comment": comment}
        click.echo(api.call("POST", f"{name}s", json=body)["id"])
        return Exit.OK

    return one


def _matchers(found: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in found.items())


silence = _silencing("silence", "Send no alarms of some checks for a time.")
maintenance = _silencing("maintenance", "Open no incidents of some checks for a time.")
