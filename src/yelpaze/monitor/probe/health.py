"""gRPC health checks (grpc.health.v1)."""

import time
from pathlib import Path
from typing import Any

from yelpaze.model.extras import require
from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.sockets import CheckError, Resolve, address_of


async def check_grpc(check: Check, resolve: Resolve) -> Reply:
    """Ask a server for its health, on a connection of its own. Raises CheckError, MisuseError."""
    require("grpc", "a gRPC check")
    import grpc  # noqa: PLC0415  an extra
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    options = check.options
    host, port = address_of(check.url)
    began = time.monotonic()
    ip = (await resolve(host))[0]
    target = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    alone = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.default_authority", f"{host}:{port}"),
    ]
    channel: Any
    if check.url.startswith("grpcs:"):
        alone.append(("grpc.ssl_target_name_override", host))
        channel = grpc.aio.secure_channel(target, _credentials(check), alone)
    else:
        channel = grpc.aio.insecure_channel(target, alone)
    async with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=options.body)
        try:
            answer = await stub.Check(request, timeout=options.timeout)
        except grpc.aio.AioRpcError as error:
            duration = (time.monotonic() - began) * 1000
            code = error.code()
            is_answer = code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
            is_late = code is grpc.StatusCode.DEADLINE_EXCEEDED
            kind = "protocol" if is_answer else "timeout" if is_late else "connect"
            text = f"{code.name}: {error.details()}"
            said = Answer(ip=ip, response_time=int(duration), connected=is_answer)
            return Reply(said, kind, text, duration)
    duration = (time.monotonic() - began) * 1000
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    body = f'{{"status":"{status}"}}'.encode()
    said = Answer(ip=ip, body=body, response_time=int(duration), connected=True)
    return Reply(said, "", "", duration)


def _credentials(check: Check) -> Any:
    import grpc  # noqa: PLC0415

    options = check.options
    certificate, key = options.certificate or ("", "")
    try:
        return grpc.ssl_channel_credentials(
            _read(options.ca_file), private_key=_read(key), certificate_chain=_read(certificate)
        )
    except OSError as error:
        raise CheckError("tls", f"{error.filename}: cannot be read: {error.strerror}") from None


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
