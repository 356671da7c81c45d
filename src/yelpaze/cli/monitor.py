"""`yelpaze monitor`: its services, and commands for its files and its API."""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.serving import Command, address_of, service_options
from yelpaze.model.extras import require
from yelpaze.model.notice import Report

_CLIENT = "yelpaze.cli.monitor_client"
_ELSEWHERE = {"incidents": _CLIENT, "ack": _CLIENT, "silence": _CLIENT, "maintenance": _CLIENT}
_FILES = click.argument(
    "files",
    metavar="FILE|FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True),
)
_BUS = click.option(
    "--bus", metavar="FILE|URL", help="SQLite file or kafka://HOST:PORT[,…]. [default: bus.db]"
)
_STORE = click.option(
    "--store",
    metavar="FILE|URL",
    default="monitor.db",
    show_default=True,
    envvar="YELPAZE_MONITOR__STORE",
    help="SQLite file or postgresql:// URL.",
)


class _Group(click.Group):
    """Loads the commands of other files when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            command: click.Command = getattr(importlib.import_module(_ELSEWHERE[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group("monitor", cls=_Group)
def command() -> None:
    """Check sites from many places; keep results, open incidents, send alarms, show a status page.

    FILE is written with Gatus's names: endpoints, conditions, alerting. `run` is all in one process; the
    other services stand alone, and meet on the bus.
    """


def _options(service: str) -> Callable[[Command], Command]:
    options = service_options(service, grace=10.0, what="checks under way")

    def decorate(function: Command) -> Command:
        for option in (_STORE, _BUS, _FILES):
            function = option(function)
        return options(function)

    return decorate


@command.command("run")
@_options("monitor")
@click.option("--listen", metavar="HOST:PORT", help="[default: web.address:web.port, 127.0.0.1:8080]")
@click.option("--concurrency", metavar="N", type=click.IntRange(1), default=2000, show_default=True)
def run(listen: str | None, concurrency: int, **given: Any) -> int:
    """Run all services in one process, with API and status page.

    Alarms are delivered by hooks, whose store lies beside --store. The files are read again when they
    change, or at SIGHUP; a bad one is refused whole, and the old configuration goes on.
    """
    require("monitor", "monitor run")
    from yelpaze.app.monitor import EMBEDDED  # noqa: PLC0415  an extra
    from yelpaze.app.up import listen_of  # noqa: PLC0415

    address = address_of(listen or listen_of(given["files"]))
    return _serve(EMBEDDED, address=address, concurrency=concurrency, **given)


@command.command("probe")
@_options("monitor-probe")
@click.option("--location", metavar="NAME", multiple=True, help="Where it is; repeatable. [default: all]")
@click.option("--concurrency", metavar="N", type=click.IntRange(1), default=2000, show_default=True)
def probe(location: tuple[str, ...], concurrency: int, **given: Any) -> int:
    """Make the checks of a location. Several probes of one location share its checks."""
    require("yaml", "monitor probe")
    return _serve(("probe",), locations=location, concurrency=concurrency, **given)


@command.command("store")
@_options("monitor-store")
def store(**given: Any) -> int:
    """Keep results: raw by day, sums by minute, hour and day."""
    return _serve(("store",), **given)


@command.command("evaluate")
@_options("monitor-evaluate")
def evaluate(**given: Any) -> int:
    """Fold results into incidents. Several of them share the checks."""
    return _serve(("evaluate",), **given)


@command.command("alarm")
@_options("monitor-alarm")
@click.option("--hooks-store", metavar="FILE|URL", help="Store of `yelpaze hooks serve`. [default: --store]")
def alarm(hooks_store: str | None, **given: Any) -> int:
    """Tell channels of incidents, through `yelpaze hooks serve --bus`. One of several is active."""
    require("hooks", "monitor alarm")
    return _serve(("alarm",), hooks_store=hooks_store or "", **given)


@command.command("web")
@_options("monitor-web")
@click.option("--listen", metavar="HOST:PORT", help="[default: web.address:web.port, 127.0.0.1:8080]")
def web(listen: str | None, **given: Any) -> int:
    """Serve API, push checks and the status page."""
    require("monitor", "monitor web")
    from yelpaze.app.up import listen_of  # noqa: PLC0415  an extra

    return _serve(("web",), address=address_of(listen or listen_of(given["files"])), **given)


def _serve(
    roles: Any,
    *,
    files: tuple[Path, ...],
    bus: str | None,
    store: str,
    grace: float,
    metrics: str | None,
    report: Report,
    **more: Any,
) -> int:
    require("yaml", "a monitor")
    from yelpaze.app.up import serve_monitor  # noqa: PLC0415  takes its time
    from yelpaze.bus.opening import with_url  # noqa: PLC0415
    from yelpaze.bus.settings import BUS_SETTINGS  # noqa: PLC0415
    from yelpaze.config.loader import load  # noqa: PLC0415
    from yelpaze.monitor.options import MonitorOptions  # noqa: PLC0415

    options = MonitorOptions(
        files=tuple(map(str, files)),
        bus=with_url(load(BUS_SETTINGS, None, {}), bus, "bus.db"),
        store=store,
        roles=roles,
        grace=grace,
        **more,
    )
    _run(serve_monitor(options, report, metrics))
    return Exit.OK


def _run(work: Any) -> None:
    try:
        import uvloop  # noqa: PLC0415  an extra
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


@command.command("check")
@_FILES
def check(files: tuple[Path, ...]) -> int:
    """Check the files, and say what they come to."""
    require("yaml", "a monitor's files")
    from yelpaze.monitor.config.loading import load_monitor  # noqa: PLC0415

    config = load_monitor(list(files))
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    enabled = sum(1 for _ in config.enabled())
    parts = [f"{enabled:,} check{'s' if enabled != 1 else ''}"]
    if len(config.checks) > enabled:
        parts.append(f"{len(config.checks) - enabled:,} disabled")
    channels = len(config.channels)
    parts.append(f"{channels} channel{'s' if channels != 1 else ''}")
    parts.append(f"{len(config.locations)} location{'s' if len(config.locations) != 1 else ''}")
    click.echo(f"the files are good: {', '.join(parts)}")
    return Exit.OK


@command.command("once")
@_FILES
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option("--concurrency", metavar="N", type=click.IntRange(1), default=500, show_default=True)
def once(files: tuple[Path, ...], as_json: bool, concurrency: int) -> int:
    """Make each check once, from here, and print what it came to.

    Exits with 1 if any failed. Push checks are left out.
    """
    require("yaml", "a monitor's files")
    from yelpaze.cli.monitor_once import make_once  # noqa: PLC0415

    return make_once(list(files), as_json=as_json, concurrency=concurrency)
