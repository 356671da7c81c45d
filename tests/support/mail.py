"""A real SMTP server (aiosmtpd) on 127.0.0.1 that keeps what it gets."""

import email
import email.policy
import ssl
from email.message import EmailMessage
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from support.ports import free_port
from support.waiting import until

USER = LoginPassword(b"hooks", b"pa\xc3\x9fword")
_ACCEPTED = "250 OK"


class Received(NamedTuple):
    """A mail, and from whom to whom the envelope says it goes."""

    sender: str
    recipients: list[str]
    content: bytes
    is_encrypted: bool
    user: bytes | None

    @property
    def message(self) -> EmailMessage:
        """As a mail program reads it."""
        return email.message_from_bytes(self.content, policy=email.policy.default)

    @property
    def text(self) -> str:
        """The text, with the line breaks that Python has."""
        return self.message.get_content().replace("\r\n", "\n")


class _Connection(SMTP):
    """Is in `open_ones` while it is open."""

    def __init__(self, open_ones: "set[_Connection]", *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._open_ones = open_ones

    def connection_made(self, transport: Any) -> None:
        self._open_ones.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._open_ones.discard(self)


class MailServer(Controller):
    """Takes mails; `answers` are given to DATA in turn, then 250; `refused` are recipients that get 550.

    Args:
        tls: A certificate for STARTTLS, or for TLS from the start with `from_start`.
        auth: The AUTH mechanisms that it offers, for the user `USER`; none if empty.

    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, from_start: bool = False, auth: tuple[str, ...] = ()
    ) -> None:
        self.mails: list[Received] = []
        self.connections = 0
        self.answers: list[str] = []
        self.refused: set[str] = set()
        self.logins: list[tuple[str, bool]] = []
        self._open: set[_Connection] = set()
        options: dict[str, Any] = {"enable_SMTPUTF8": True, "tls_context": None if from_start else tls}
        if auth:
            excluded = {"LOGIN", "PLAIN"} - set(auth)
            options |= {
                "authenticator": self._authenticated,
                "auth_required": True,
                "auth_require_tls": not from_start,
                "auth_exclude_mechanism": excluded,
            }
        super().__init__(self, "127.0.0.1", free_port(), ssl_context=tls if from_start else None, **options)

    def factory(self) -> SMTP:
        self.connections += 1
        return _Connection(self._open, self.handler, **self.SMTP_kwargs)

    def start(self) -> None:
        super().start()
        self.connections = 0  # the controller itself looks whether it is there

    def stop(self, no_assert: bool = False) -> None:
        """End, after the connections: asyncio leaves those of a closed loop open."""

        def abort() -> None:
            for one in list(self._open):
                if one.transport is not None:
                    one.transport.abort()

        self.loop.call_soon_threadsafe(abort)
        until(lambda: not self._open)
        super().stop(no_assert)

    def _authenticated(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        is_right = data == USER
        self.logins.append((mechanism, is_right))
        return AuthResult(success=is_right, handled=False, auth_data=data)

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        if address in self.refused:
            return "550 5.1.1 no such user here"
        envelope.rcpt_tos.append(address)
        return _ACCEPTED

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        user = session.auth_data.login if session.auth_data else None
        is_encrypted = session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None
        mail = Received(envelope.mail_from, envelope.rcpt_tos, envelope.content, is_encrypted, user)
        self.mails.append(mail)
        return self.answers.pop(0) if self.answers else _ACCEPTED


def server_context(ca: Any, host: str = "127.0.0.1") -> ssl.SSLContext:
    """A certificate of that authority for `host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(host).configure_cert(context)
    return context
