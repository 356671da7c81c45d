"""`yelpaze live`."""

import asyncio
from pathlib import Path
from typing import Any

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import Seconds
from yelpaze.grpc.address import Address
from yelpaze.live.needed import check_extras
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Level, Notice


@click.command("live")
@click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1:8000]")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings, laid out as Centrifugo's: YAML, TOML or JSON.",
)
@click.option("--broker", metavar="memory|redis://…", help="What connects the nodes. [default: memory]")
@click.option("--processes", metavar="N", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=Seconds(zero=True),
    help="Over which clients are sent elsewhere at the end. [default: 30]",
)
@click.option("--insecure", is_flag=True, help="Let everybody connect, subscribe and publish: to try it out.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve Prometheus metrics there.")
@click.option("--check", is_flag=True, help="Check the settings, and end.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and warnings.")
def command(
    config: Path | None, processes: int, metrics: str | None, quiet: bool, check: bool, **flags: Any
) -> int:
    """Serve WebSocket and server-sent events to very many clients.

    Centrifugo's client protocol at /connection/websocket, plain WebSocket at /ws/CHANNEL, server-sent
    events at /sse/CHANNEL, Centrifugo's server API at /api/METHOD, all on one port. Settings come from
    flags, then YELPAZE_LIVE__SECTION__NAME, then the file. SIGTERM sends clients elsewhere and ends.
    """
    check_extras()
    import uvloop  # noqa: PLC0415  an extra

    from yelpaze.app.live import serve_live  # noqa: PLC0415
    from yelpaze.app.live_config import load  # noqa: PLC0415
    from yelpaze.app.live_options import LiveOptions  # noqa: PLC0415
    from yelpaze.live.core.tokens import check_keys  # noqa: PLC0415

    def report(notice: Notice) -> None:
        if not quiet or notice.level is not Level.INFO:
            click.echo(f"yelpaze: {notice}", err=True)

    options = LiveOptions(config=load(config, _settings(flags)), processes=processes, metrics=metrics)
    if check:
        check_keys(options.config)
        report(Notice("settings.good", "the settings are good"))
        return Exit.OK
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_live(options, report))
    return Exit.OK


def _settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as settings."""
    from yelpaze.app.live_config import broker_setting  # noqa: PLC0415

    settings: dict[str, Any] = {}
    if flags["listen"] is not None:
        if flags["listen"].startswith("unix:"):
            raise InputError(f"--listen {flags['listen']}: the gateway listens on host:port")
        try:
            address = Address.parse(flags["listen"])
        except InputError:
            raise InputError(f"--listen {flags['listen']!r} is no address: give host:port") from None
        settings["http_server"] = {"address": address.host, "port": address.port}
    if flags["broker"] is not None:
        settings |= broker_setting(flags["broker"], "--broker")
    if flags["grace"] is not None:
        settings["shutdown"] = {"timeout": flags["grace"]}
    if flags["insecure"]:
        settings["client"] = {"insecure": True}
        settings["http_api"] = {"insecure": True}
    return settings
