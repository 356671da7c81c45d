"""The gRPC examples at work: the spelling service, and proxies with the published configurations."""

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES / "load_balancing"))

import proxies  # noqa: E402  it is found only now


def wait_until_serving(address):
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(address, options=options) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)


@contextmanager
def running(command, address, **options):
    """A server as its user starts it, from when it serves on."""
    process = subprocess.Popen(command, **options)
    try:
        wait_until_serving(address)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def spelling(processes=2):
    """examples/grpc_service/server.py: its port, and the first of its private ports."""
    port, first = proxies.free_ports(1), proxies.free_ports(proxies.SPARE_PORTS)
    server = EXAMPLES / "grpc_service" / "server.py"
    command = [sys.executable, server, "--listen", f"127.0.0.1:{port}", "--processes", str(processes)]
    command += ["--private-ports", str(first), str(first + proxies.SPARE_PORTS - 1)]
    with running(command, f"127.0.0.1:{port}"):
        yield port, first


@asynccontextmanager
async def proxied(name, first, folder):
    """`envoy.yaml` or `nginx.conf` before the private ports; its address."""
    started = proxies.started(name, first, folder)
    address = await asyncio.to_thread(started.__enter__)
    try:
        yield address
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)
