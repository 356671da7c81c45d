"""`yelpaze hooks`: the service, and commands on its store."""

import importlib
from pathlib import Path
from typing import Any

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.serving import address_of, service_options
from yelpaze.model.extras import require
from yelpaze.model.notice import Notice, Report

_IN_STORE = "yelpaze.cli.hooks_store"
_RECEIVING = "yelpaze.cli.hooks_receiving"
_NAMED = {name: f"{name}_command" for name in ("attempts", "endpoints", "messages")}  # rooms have these names
_ELSEWHERE = {
    "apps": _IN_STORE,
    "attempts": _IN_STORE,
    "endpoints": _IN_STORE,
    "key": _IN_STORE,
    "listen": _RECEIVING,
    "messages": _IN_STORE,
    "recover": _IN_STORE,
    "rekey": _IN_STORE,
    "relay": _IN_STORE,
    "replay": _IN_STORE,
    "resend": _IN_STORE,
    "rotate": _IN_STORE,
    "send": _IN_STORE,
    "test": _IN_STORE,
    "token": _IN_STORE,
    "verify": _RECEIVING,
}


class _Group(click.Group):
    """Loads the commands of other files when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            require("hooks", f"hooks {cmd_name}")
            module = importlib.import_module(_ELSEWHERE[cmd_name])
            command: click.Command = getattr(module, _NAMED.get(cmd_name, cmd_name))
            return command
        return super().get_command(ctx, cmd_name)


@click.group("hooks", cls=_Group)
def command() -> None:
    """Deliver messages to endpoints: signed webhooks, chat, mail; retried, logged, replayable."""


@command.command("serve")
@click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1:8071]")
@click.option("--store", metavar="FILE|URL", help="SQLite file or postgresql:// URL. [default: hooks.db]")
@click.option("--bus", metavar="FILE|URL", help="Deliver messages from this bus, too: alarms of a monitor.")
@click.option(
    "--allow",
    metavar="CIDR",
    multiple=True,
    help="Network that endpoints may be in although it is private. Can be repeated.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file in YAML, TOML or JSON.",
)
@click.option("--processes", metavar="N", type=click.IntRange(1), default=1, show_default=True)
@click.option("--check", is_flag=True, help="Check the settings and exit.")
@service_options("hooks", grace=20.0, what="attempts under way", is_setting=True)
def serve(
    config: Path | None,
    processes: int,
    metrics: str | None,
    report: Report,
    check: bool,
    bus: str | None,
    **flags: Any,
) -> int:
    """Serve the API, and deliver.

    Svix's API at /api/v1, its description at /openapi.json. Settings come from flags, then
    YELPAZE_HOOKS__NAME, then the file. The admin token comes from YELPAZE_HOOKS__ADMIN_TOKEN; else, beside
    an SQLite store, it is made at the first start, printed once and kept in STORE.token. SIGTERM ends
    attempts under way and exits.
    """
    require("hooks", "the service")
    import uvloop  # noqa: PLC0415  an extra

    from yelpaze.app.hooks import HooksOptions, serve_hooks  # noqa: PLC0415
    from yelpaze.bus.opening import with_url  # noqa: PLC0415
    from yelpaze.bus.settings import BUS_SETTINGS  # noqa: PLC0415
    from yelpaze.config.loader import load  # noqa: PLC0415
    from yelpaze.hooks.settings import HOOKS_SETTINGS  # noqa: PLC0415

    given = {name: flags[name] for name in ("listen", "store") if flags[name] is not None}
    if flags["allow"]:
        given["allow"] = flags["allow"]
    if flags["grace"] is not None:
        given["shutdown"] = flags["grace"]
    settings = load(HOOKS_SETTINGS, config, given)
    options = HooksOptions(
        settings=settings,
        address=address_of(settings.listen),
        processes=processes,
        metrics=metrics,
        bus=None if bus is None else with_url(load(BUS_SETTINGS, None, {}), bus, bus),
    )
    if check:
        report(Notice("settings.good", "the settings are good"))
        return Exit.OK
    uvloop.run(serve_hooks(options, report))
    return Exit.OK
