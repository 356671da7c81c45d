"""`yelpaze worker FLOW`."""

import asyncio
from pathlib import Path
from typing import Any

import click

from yelpaze.app.worker import WorkerOptions, serve_worker
from yelpaze.cli.exits import Exit
from yelpaze.cli.running import Size
from yelpaze.cli.serving import service_options
from yelpaze.grpc.options import Options
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Report

_LEAST_MESSAGE = 64 << 10
_FILE = click.Path(dir_okay=False)


class Ports(click.ParamType[tuple[int, int]]):
    """Two ports and all between."""

    name = "FIRST-LAST"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        first, dash, last = str(value).partition("-")
        if not (dash and first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 1 << 16):
            self.fail(f"{value!r} is no range of ports such as 50100-50107", param, ctx)
        return int(first), int(last)


@click.command("worker")
@click.argument("flow")
@click.option(
    "--listen",
    metavar="ADDRESS",
    default="127.0.0.1:50051",
    show_default=True,
    help="host:port, :port for all addresses, or unix:path.",
)
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1),
    help="Number of worker processes; each runs one call at a time. [default: one per core]",
)
@click.option(
    "--recycle",
    metavar="CALLS",
    type=click.IntRange(1),
    help="Number of calls after which a process is replaced.",
)
@click.option(
    "--max-message",
    metavar="BYTES",
    type=Size(),
    default="64M",
    show_default=True,
    help="Maximum message size, sent or received.",
)
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="Certificate chain (PEM); needs --tls-key.")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="Private key of the certificate (PEM).")
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=_FILE,
    help="CA file used to verify client certificates; other clients are refused.",
)
@click.option(
    "--private-ports",
    metavar="FIRST-LAST",
    type=Ports(),
    help="Range of ports at which clients reach each process. [default: any]",
)
@service_options("worker", grace=30.0, what="calls under way")
@click.option("--while-used", type=click.Path(path_type=Path), hidden=True)
def command(flow: str, report: Report, **flags: Any) -> int:
    """Serve CPU functions to flows and programs on other machines.

    FLOW is path.py, path.py:name or package.module. Its @flow.compute steps serve
    `yelpaze run --workers grpc://host:port`; all functions of a file or module can be called from
    Python (yelpaze.rpc.Functions) and other languages (yelpaze/compute/worker.proto). Whoever reaches
    the address can call them. SIGHUP loads the source and the TLS files anew, process by process; SIGTERM
    ends.
    """
    asyncio.run(serve_worker(flow, _options(flags), report))
    return Exit.OK


def _options(flags: dict[str, Any]) -> WorkerOptions:
    tls = flags["tls_cert"], flags["tls_key"]
    if any(tls) and not all(tls):
        raise InputError("--tls-cert and --tls-key need each other: a certificate and its key")
    if flags["max_message"] < _LEAST_MESSAGE:
        raise InputError("--max-message takes at least 64K: a reason why a call failed must fit")
    if flags["tls_client_ca"] and not all(tls):
        raise InputError("--tls-client-ca needs --tls-cert and --tls-key: the worker's own")
    return WorkerOptions(
        listen=flags["listen"],
        processes=flags["processes"] or usable_cores(),
        recycle=flags["recycle"],
        metrics=flags["metrics"],
        while_used=flags["while_used"],
        serving=Options(
            grace=flags["grace"],
            max_message=flags["max_message"],
            tls=tls if all(tls) else None,
            client_ca=flags["tls_client_ca"],
            private_ports=flags["private_ports"],
        ),
    )
