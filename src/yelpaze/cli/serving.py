"""The options that every long-lived command has."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from yelpaze.cli.policies import Seconds
from yelpaze.grpc.address import Address
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Report
from yelpaze.service.log import FORMATS, Format, forward_logging, service_report

F = TypeVar("F", bound=Callable[..., Any])


def service_options(*, grace: float, what: str) -> Callable[[F], F]:
    """--grace (how long `what` may take), --metrics, --log-format and --quiet."""
    options = (
        click.option(
            "--grace",
            metavar="SECONDS",
            type=Seconds(zero=True),
            help=f"Time for {what} at shutdown. [default: {grace:g}]",
        ),
        click.option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Serve /metrics (Prometheus), /healthz and /readyz at this address.",
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

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def report_of(service: str, log_format: Format, *, quiet: bool) -> Report:
    """The report of a command; what libraries log goes there, too."""
    report = service_report(service, form=log_format, quiet=quiet)
    forward_logging(report)
    return report


def address_of(listen: str) -> Address:
    """The address of an HTTP service. Raises InputError."""
    if listen.startswith("unix:"):
        raise InputError(f"--listen {listen}: this service listens on host:port")
    try:
        return Address.parse(listen)
    except InputError:
        raise InputError(f"--listen {listen!r} is no address: give host:port") from None
