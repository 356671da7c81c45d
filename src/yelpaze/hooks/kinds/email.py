"""`email`: a mail over SMTP. Its server is the endpoint's own, or the one of the service's settings."""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import Builder, Content, Email, Kind, Secret, Settings, cut
from yelpaze.hooks.template import check, filled

_LOCAL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
)  # RFC 5322, dot-atom
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")
_MOST_SUBJECT = 200
_OWN = ("to", "subject", "template", "sender")  # what an endpoint says where the server is the service's
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class EmailOptions(ChatOptions, frozen=True, forbid_unknown_fields=True):
    """To whom, and over which server. `security` is `starttls`, `tls` from the start, or `none`."""

    to: tuple[str, ...] = ()
    subject: str = "{{ title }}"
    host: str = ""
    port: int | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: str = ""
    sender: str = ""


def _is_host(text: str) -> bool:
    """Whether it is a name or an address of a host."""
    if ":" in text:
        return _IPV6.fullmatch(text) is not None
    labels = text.removesuffix(".").split(".")
    return all(0 < len(label) < 64 and _LABEL.fullmatch(label) for label in labels)  # noqa: PLR2004


def _is_address(text: str) -> bool:
    local, _, host = text.rpartition("@")
    return len(text) < 255 and _LOCAL.fullmatch(local) is not None and ":" not in host and _is_host(host)  # noqa: PLR2004


def _check(settings: Settings, options: EmailOptions) -> Iterator[tuple[str, str]]:
    if not options.to:
        yield "options.to", "takes a list of addresses"
    for address in options.to:
        if not _is_address(address):
            yield "options.to", f"is no address: {address!r}"
    if not options.host:
        yield "options.host", "takes the name of an SMTP server: the service's settings have none"
    elif not _is_host(options.host):
        yield "options.host", f"is no name of a host: {options.host!r}"
    if not _is_address(options.sender):
        yield "options.sender", "takes the sender's address"
    if options.port is not None and not 0 < options.port < 65_536:  # noqa: PLR2004
        yield "options.port", "takes 1 to 65535"
    if options.username and options.security == "none":
        yield "options.security", "sends a password in the clear: take starttls or tls"
    wrong = check(options.subject)
    if wrong:
        yield "options.subject", wrong
    yield from check_template(settings, options)


def _prepare(_settings: Settings, options: EmailOptions, _secrets: tuple[Secret, ...]) -> Builder:
    def build(content: Content) -> Email:
        subject = filled(options.subject, content.values())
        return Email(
            host=options.host,
            port=options.port or _PORTS[options.security],
            security=options.security,
            username=options.username,
            password=options.password,
            sender=options.sender,
            recipients=options.to,
            # One line: a line break would begin a header (RFC 5322, section 2.2).
            subject=cut(" ".join(_printable(subject).split()), _MOST_SUBJECT),
            text=text_of(options.template, content),
            message_id=content.message_id,
        )

    return build


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)


EMAIL = Kind(
    name="email",
    options=EmailOptions,
    prepare=_prepare,
    check=_check,
    has_url=False,
    secret_options=frozenset({"password"}),
)


def completed(settings: Settings, server: msgspec.Struct) -> Settings:
    """With the service's mail server, where an e-mail endpoint names none of its own.

    It is never kept with the endpoint, whose owner could have its password sent elsewhere.
    """
    given = {name: value for name, value in msgspec.structs.asdict(server).items() if value}
    if settings.kind != EMAIL.name or not given.get("host") or settings.options.get("host"):
        return settings
    found = {name: str(value) if isinstance(value, str) else value for name, value in given.items()}
    options = {name: value for name, value in settings.options.items() if name in _OWN}
    return msgspec.structs.replace(settings, options={**found, **options}, trusted=True)
