"""Options, log and error handling that all long-lived commands share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from yelpaze.cli.exits import code_of
from yelpaze.cli.seconds import Seconds
from yelpaze.grpc.address import Address
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Level, Notice
from yelpaze.service.log import FORMATS, Format, forward_logging, service_report

Command = Callable[..., int]


def service_options(
    service: str, *, grace: float, what: str, is_setting: bool = False
) -> Callable[[Command], Command]:
    """--grace (how long `what` may take), --metrics, --log-format and --quiet.

    `is_setting`: the grace is a setting, too, so that the flag has no default of its own.

    The command is called with `report`, in place of the last two. With `--log-format json` an error that ends
    it is a line of the log, like everything else; what libraries log goes there as well.
    """
    options = (
        click.option(
            "--grace",
            metavar="SECONDS",
            type=Seconds(zero=True),
            default=None if is_setting else grace,
            help=f"Time for {what} at shutdown. [default: {grace:g}]",
        ),
        click.option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Serve /metrics (Prometheus), /healthz and /readyz at this address; :PORT is all addresses.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(FORMATS),
            default="text",
            show_default=True,
            help="Format of the log lines on stderr.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Log only warnings and errors."),
    )

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*arguments: Any, log_format: Format, quiet: bool, **named: Any) -> int:
            report = service_report(service, form=log_format, quiet=quiet)
            forward_logging(report)
            try:
                return command(*arguments, report=report, **named)
            except Exception as error:
                code = code_of(error)
                if code is None or log_format == "text":
                    raise
                report(Notice("failed", str(error), Level.ERROR))
                return code

        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def address_of(listen: str) -> Address:
    """The address of an HTTP service. Raises InputError."""
    if listen.startswith("unix:"):
        raise InputError(f"--listen {listen}: this service listens on host:port")
    try:
        return Address.parse(listen)
    except InputError:
        raise InputError(f"--listen {listen!r} is no address: give host:port") from None
