"""Options of `yelpaze live`, and what it prints at the start."""

import msgspec

from yelpaze.grpc.address import Address, can_share_ports
from yelpaze.live.config import Config
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Level, Notice
from yelpaze.process.descriptors import capacity

_SHORT_SECRET = 32  # RFC 7518, section 3.2, for HS256


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options that are not in the settings file."""

    config: Config
    processes: int = 1
    metrics: str | None = None


def greeting(options: LiveOptions, address: Address) -> list[Notice]:
    """Lines for the start: the address, how many connections fit, and warnings."""
    url = f"http://{address.text}"
    ready = Notice("ready", f"live at {url}, {capacity(options.processes)}", data={"url": url})
    return [ready, *warnings_of(options)]


def check_processes(options: LiveOptions) -> None:
    """Raise MisuseError if so many processes cannot be."""
    if options.processes > 1 and options.config.broker.type == "memory":
        raise MisuseError("--processes needs --broker redis://…: the processes have only that in common")
    if options.processes > 1 and not can_share_ports():
        raise MisuseError("--processes needs a kernel that shares a port between processes: Linux")


def warnings_of(options: LiveOptions) -> list[Notice]:
    """Warnings about settings that are allowed but rarely intended."""
    config, notices = options.config, list[Notice]()

    def warn(kind: str, text: str) -> None:
        notices.append(Notice(kind, text, Level.WARNING))

    client, token = config.client, config.client.token
    keys = [
        token.hmac_secret_key,
        token.rsa_public_key,
        token.ecdsa_public_key,
        token.ed25519_public_key,
        token.jwks_public_endpoint,
    ]
    if client.insecure:
        warn("insecure.client", "client.insecure lets everybody connect, subscribe and publish")
    elif not any(keys) and not client.allow_anonymous_connect_without_token:
        warn(
            "no.keys", "no client can connect: set client.token.hmac_secret_key, or --insecure to try it out"
        )
    if 0 < len(token.hmac_secret_key) < _SHORT_SECRET:
        warn("short.secret", f"client.token.hmac_secret_key is short: take {_SHORT_SECRET} bytes or more")
    if config.http_api.insecure and not config.http_api.disabled:
        warn("insecure.api", "http_api.insecure lets everybody who reaches this address publish")
    return notices
