"""`yelpaze live`."""

import asyncio
from pathlib import Path
from typing import Any

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.serving import address_of, service_options
from yelpaze.model.extras import require
from yelpaze.model.notice import Notice, Report


@click.command("live")
@click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1:8000]")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file in YAML, TOML or JSON, with Centrifugo's names.",
)
@click.option("--broker", metavar="memory|redis://…", help="Broker between nodes. [default: memory]")
@click.option("--processes", metavar="N", type=click.IntRange(1), default=1, show_default=True)
@click.option("--insecure", is_flag=True, help="Let everyone connect, subscribe and publish, to try it out.")
@click.option("--check", is_flag=True, help="Check the settings and exit.")
@service_options("live", grace=30.0, what="disconnecting clients", is_setting=True)
def command(
    config: Path | None,
    processes: int,
    metrics: str | None,
    report: Report,
    check: bool,
    **flags: Any,
) -> int:
    """Serve WebSocket and server-sent events to very many clients.

    Centrifugo's client protocol at /connection/websocket, plain WebSocket at /ws/CHANNEL, server-sent
    events at /sse/CHANNEL, Centrifugo's server API at /api/METHOD, all on one port. Settings come from
    flags, then YELPAZE_LIVE__SECTION__NAME, then the file. SIGTERM disconnects clients and exits.
    """
    require("live", "the gateway")
    import uvloop  # noqa: PLC0415  an extra

    from yelpaze.app.live import serve_live  # noqa: PLC0415
    from yelpaze.app.live_options import LiveOptions, check_processes, warnings_of  # noqa: PLC0415
    from yelpaze.config.loader import load  # noqa: PLC0415
    from yelpaze.live.core.tokens import check_keys  # noqa: PLC0415
    from yelpaze.live.settings import LIVE  # noqa: PLC0415

    options = LiveOptions(config=load(LIVE, config, _settings(flags)), processes=processes, metrics=metrics)
    if check:
        check_keys(options.config)
        check_processes(options)
        for notice in warnings_of(options):
            if notice.kind != "no.keys":  # these may come from the environment of the service
                report(notice)
        report(Notice("settings.good", "the settings are good"))
        return Exit.OK
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_live(options, report))
    return Exit.OK


def _settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as settings."""
    from yelpaze.live.settings import broker_setting  # noqa: PLC0415

    settings: dict[str, Any] = {}
    if flags["listen"] is not None:
        address = address_of(flags["listen"])
        settings["http_server"] = {"address": address.host, "port": address.port}
    if flags["broker"] is not None:
        settings |= broker_setting(flags["broker"], "--broker")
    if flags["grace"] is not None:
        settings["shutdown"] = {"timeout": flags["grace"]}
    if flags["insecure"]:
        settings["client"] = {"insecure": True}
        settings["http_api"] = {"insecure": True}
    return settings
