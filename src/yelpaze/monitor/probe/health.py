"""gRPC health checks (grpc.health.v1)."""

import time
from typing import Any

from yelpaze.model.extras import require
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.conditions import Answer
from yelpaze.monitor.probe.reply import Reply


async def check_grpc(check: Check) -> Reply:
    """Ask a server for its health, on a connection of its own. Raises MisuseError without the extra."""
    require("grpc", "a gRPC check")
    import grpc  # noqa: PLC0415  an extra
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    options = check.options
    scheme, _, target = check.url.partition("://")
    began = time.monotonic()
    alone = [("grpc.use_local_subchannel_pool", 1)]
    channel: Any
    if scheme == "grpcs":
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(_authorities(check)), alone)
    else:
        channel = grpc.aio.insecure_channel(target, alone)
    async with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=options.body)
        try:
            answer = await stub.Check(  # type: ignore[attr-defined]
                request, timeout=options.timeout
            )
        except grpc.aio.AioRpcError as error:
            duration = (time.monotonic() - began) * 1000
            kind = "timeout" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else "connect"
            text = f"{error.code().name}: {error.details()}"
            return Reply(Answer(response_time=int(duration)), kind, text, duration)
    duration = (time.monotonic() - began) * 1000
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    body = f'{{"status":"{status}"}}'.encode()
    return Reply(Answer(body=body, response_time=int(duration), connected=True), "", "", duration)


def _authorities(check: Check) -> bytes | None:
    if not check.options.ca_file:
        return None
    with open(check.options.ca_file, "rb") as file:  # noqa: PTH123
        return file.read()
