"""Checks of an endpoint's address, headers, kind, limits and TLS settings."""

import socket
from urllib.parse import urlsplit

from yelpaze.hooks.context import Context
from yelpaze.hooks.errors import invalid
from yelpaze.hooks.kinds.protocol import RESERVED, Settings
from yelpaze.hooks.kinds.registry import KINDS, mistakes_of
from yelpaze.hooks.log.applications import check_rate
from yelpaze.hooks.tls_files import TlsFiles
from yelpaze.hooks.values import EndpointTls
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import check_headers
from yelpaze.model.url import checked
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.schedule import Schedule

_LONGEST_TIMEOUT = 60.0
_MOST_AT_ONCE = 1000
_MOST_HEADERS = 50
_MOST_URL = 2048


def check_settings(context: Context, settings: Settings, *, old_url: str | None = None) -> None:
    """Refuse what an endpoint cannot be, with the field. Raises HooksError.

    A URL that stays as it is, `old_url`, has been checked; and each connection is, whatever the URL says.
    """
    for field, why in mistakes_of(settings):
        raise invalid(field, why)
    if settings.url and settings.url == old_url:
        pass
    elif KINDS[settings.kind].has_url:
        _check_url(settings.url, None if settings.trusted else AddressGuard(context.settings.allow))
    elif settings.url:
        raise invalid("url", f"an endpoint of kind {settings.kind} has none")
    _check_headers(settings.headers)
    check_rate(settings.rate)
    if settings.timeout is not None and not 0 < settings.timeout <= _LONGEST_TIMEOUT:
        raise invalid("timeout", f"takes seconds, more than 0 and at most {_LONGEST_TIMEOUT:g}")
    if settings.concurrency is not None and not 1 <= settings.concurrency <= _MOST_AT_ONCE:
        raise invalid("concurrency", f"takes 1 to {_MOST_AT_ONCE}")
    if settings.schedule is not None:
        try:
            Schedule(settings.schedule)
        except MisuseError as error:
            raise invalid("schedule", str(error)) from None
    _check_tls(settings.tls)


def _check_tls(tls: EndpointTls | None) -> None:
    if tls is not None and tls.client_key and not tls.client_cert:
        raise invalid("tls", "has a clientKey without a clientCert")
    files = TlsFiles()
    try:
        files.of(tls)
    except MisuseError as error:
        raise invalid("tls", str(error).partition("'")[0] + "cannot be used: is it PEM?") from None
    finally:
        files.close()


def _check_url(url: str, guard: AddressGuard | None) -> None:
    """Refuse early what is never delivered to. The engine judges each address again when it connects."""
    if not url:
        raise invalid("url", "takes an http or https URL")
    if len(url) > _MOST_URL:
        raise invalid("url", f"takes {_MOST_URL} characters at most")
    try:
        parts = urlsplit(checked(url))
        has_userinfo = "@" in parts.netloc
        host = (parts.hostname or "").rstrip(".")
    except (MisuseError, ValueError):
        raise invalid("url", "is no http or https URL") from None
    if has_userinfo:
        raise invalid("url", "has a user name or password in it: give them as a header of the endpoint")
    if guard is None:
        return
    if host == "localhost" or host.endswith(".localhost"):
        host = "127.0.0.1"
    address = _address_of(host)
    refusal = guard.refusal(address) if address is not None else None
    if refusal is not None:
        why = refusal.removesuffix(": address_guard refuses it")
        raise invalid("url", f"{why}: the service has to allow that network (--allow)")


def _address_of(host: str) -> str | None:
    """The address that a host is, in any notation that a resolver reads as one: 0x7f.1, 2130706433."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _check_headers(headers: dict[str, str]) -> None:
    if len(headers) > _MOST_HEADERS:
        raise invalid("headers", f"takes {_MOST_HEADERS} headers at most")
    try:
        check_headers(headers.items())
    except MisuseError as error:
        raise invalid("headers", str(error)) from None
    for name in headers:
        if name.lower() in RESERVED or name.lower().startswith("svix-"):
            raise invalid("headers", f"{name} is set by the service itself")
