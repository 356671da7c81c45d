"""`yelpaze live`: the gateway, in one process or in several that share its port."""

from yelpaze.app.live_node import opened_node, run_gc_less_often
from yelpaze.app.live_options import LiveOptions, greeting
from yelpaze.app.live_processes import serve_processes
from yelpaze.app.observing import served_live_metrics
from yelpaze.app.stopping import stopping
from yelpaze.grpc.address import Address, reason_of
from yelpaze.live.transports.server import Server, listening
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Notice, Report


async def serve_live(options: LiveOptions, report: Report) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    if options.processes > 1:
        await serve_processes(options, report)
        return
    config = options.config
    address = Address(config.http_server.address, config.http_server.port)
    try:
        sock = listening(address.host, address.port)
    except OSError as error:
        raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None
    run_gc_less_often()
    async with opened_node(config, report) as node, Server(node, sock) as server:
        with served_live_metrics(node.totals, options.metrics), stopping() as stop:
            for notice in greeting(options, address.at(sock.getsockname()[1])):
                report(notice)
            await stop.wait()
            if not stop.is_urgent:
                count = len(node.clients.connections)
                report(
                    Notice(
                        "stopping", f"stopping: {count} clients are sent elsewhere; once more ends at once"
                    )
                )
                await stop.unless_urgent(server.drain(config.shutdown.timeout))
