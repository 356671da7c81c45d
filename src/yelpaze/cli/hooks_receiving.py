"""`yelpaze hooks listen` and `verify`: for those who receive webhooks."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from yelpaze.cli.exits import Exit
from yelpaze.hooks.signing import TOLERANCE, VerificationError, key_of
from yelpaze.hooks.signing import verify as verified
from yelpaze.http.engine import Engine
from yelpaze.model.errors import InputError
from yelpaze.model.request import request as new_request
from yelpaze.process.listening import listening

_BAD_GATEWAY = 502
_NOT_FORWARDED = frozenset({"host", "content-length", "connection", "transfer-encoding", "expect"})


@click.command("listen", short_help="Receive, print, verify and forward webhooks.")
@click.argument("port", type=click.IntRange(0, 65_535))
@click.option(
    "--secret", "secrets", metavar="whsec_…", multiple=True, help="Verify with it. Can be repeated."
)
@click.option("--forward", metavar="URL", help="Pass each webhook on, and its answer back.")
@click.option(
    "--status",
    metavar="CODE",
    type=click.IntRange(200, 599),
    default=200,
    show_default=True,
    help="Status to answer.",
)
def listen(port: int, secrets: Sequence[str], forward: str | None, status: int) -> int:
    """Receive webhooks on 127.0.0.1:PORT and print them, while you develop a receiver.

    With a secret, a webhook that is not signed with it is answered 401.
    """
    for secret in secrets:
        key_of(secret)
    if forward is not None:
        new_request("POST", forward)
    asyncio.run(_listen(port, secrets, forward, status))
    return Exit.OK


async def _listen(port: int, secrets: Sequence[str], forward: str | None, status: int) -> None:
    try:
        sock = listening("127.0.0.1", port)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}") from None
    async with Engine(retry=None, breaker=None, budget=None, max_redirects=0) as engine:
        receiver = _Receiver(engine, secrets, forward, status)
        server = uvicorn.Server(
            uvicorn.Config(receiver, lifespan="off", access_log=False, log_config=None, server_header=False)
        )
        click.echo(f"listening at http://127.0.0.1:{sock.getsockname()[1]}; end with Ctrl-C", err=True)
        with sock:
            await server.serve(sockets=[sock])


class _Receiver:
    """An ASGI application that verifies, prints and forwards."""

    def __init__(self, engine: Engine, secrets: Sequence[str], forward: str | None, status: int) -> None:
        self._engine = engine
        self._secrets = secrets
        self._forward = forward
        self._status = status

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        request = Request(scope, receive)
        body = await request.body()
        answer = await self._answer(request, body)
        await answer(scope, receive, send)

    async def _answer(self, request: Request, body: bytes) -> Response:
        headers = dict(request.headers)
        verdict = self._verdict(headers, body)
        status, content = self._status, b""
        if verdict and not verdict.startswith("verified"):
            status, content = 401, verdict.encode()
        elif self._forward is not None:
            status, content = await self._forwarded(request, body)
        self._show(request, headers, body, verdict, status)
        if status == _BAD_GATEWAY and self._forward is not None:
            click.echo(content.decode(errors="replace"), err=True)
        return Response(content, status)

    def _verdict(self, headers: dict[str, str], body: bytes) -> str:
        if not self._secrets:
            return ""
        try:
            verified(self._secrets, headers, body, now=time.time)
        except VerificationError as error:
            return f"NOT VERIFIED: {error}"
        return "verified"

    async def _forwarded(self, request: Request, body: bytes) -> tuple[int, bytes]:
        assert self._forward is not None
        kept = [(name, value) for name, value in request.headers.items() if name not in _NOT_FORWARDED]
        outcome = await self._engine.send(
            new_request(request.method, self._forward, headers=kept, body=body or None, retry=False)
        )
        if not outcome.status:
            return _BAD_GATEWAY, f"{self._forward}: {outcome.error}".encode()
        return outcome.status, outcome.body

    def _show(
        self, request: Request, headers: dict[str, str], body: bytes, verdict: str, status: int
    ) -> None:
        message_id = headers.get("webhook-id", "without webhook-id")
        parts = [f"{time.strftime('%H:%M:%S')} {request.method} {request.url.path}", message_id]
        if verdict:
            parts.append(verdict)
        parts.append(f"answered {status}")
        click.echo(click.style("  ".join(parts), bold=True))
        click.echo(_shown(body))


def _shown(body: bytes) -> str:
    """A body for a terminal: JSON indented, and nothing that could control it."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode(errors="replace")
        return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


@click.command("verify")
@click.argument("body", default="-")
@click.option("--secret", "secrets", metavar="whsec_…", multiple=True, required=True, help="Can be repeated.")
@click.option("--id", "message_id", metavar="ID", required=True, help="webhook-id")
@click.option("--timestamp", metavar="SECONDS", required=True, help="webhook-timestamp")
@click.option("--signature", metavar="v1,…", required=True, help="webhook-signature")
@click.option("--any-time", is_flag=True, help="Accept a timestamp that is more than five minutes from now.")
def verify(
    body: str, secrets: Sequence[str], message_id: str, timestamp: str, signature: str, any_time: bool
) -> int:
    """Check the signature of a webhook. BODY is a file, or - for standard input."""
    try:
        data = sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    except OSError as error:
        raise InputError(f"{body}: cannot be read: {error.strerror}") from None
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    tolerance = float("inf") if any_time else TOLERANCE
    try:
        verified(secrets, headers, data, now=time.time, tolerance=tolerance)
    except VerificationError as error:
        click.echo(f"not verified: {error}", err=True)
        return Exit.SOME_FAILED
    click.echo("verified", err=True)
    return Exit.OK
