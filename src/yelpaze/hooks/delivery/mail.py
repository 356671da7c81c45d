"""Mails over SMTP, with the same guard of addresses as everything else."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from email.header import Header
from email.message import Message
from email.mime.text import MIMEText
from email.utils import formatdate

import aiosmtplib

from yelpaze.hooks.delivery.decision import Answer
from yelpaze.hooks.kinds.protocol import Email
from yelpaze.model.errors import ErrorKind
from yelpaze.model.tls import Tls
from yelpaze.policy.address_guard import AddressGuard

_FIRST_FAILURE = 400


class _BlockedError(Exception):
    pass


_KINDS: dict[ErrorKind, tuple[type[Exception], ...]] = {
    ErrorKind.BLOCKED_ADDRESS: (_BlockedError,),
    ErrorKind.ATTEMPT_TIMEOUT: (aiosmtplib.SMTPTimeoutError,),
    ErrorKind.DNS: (socket.gaierror, UnicodeError),
    ErrorKind.CONNECT: (OSError, aiosmtplib.SMTPConnectError),
}


async def send_mail(
    mail: Email,
    *,
    guard: AddressGuard | None,
    timeout: float,  # noqa: ASYNC109  of the whole attempt, as for HTTP
    tls: Tls | None,
    clock: Callable[[], float],
) -> Answer:
    """Send it; never raises for the network. The answer's status is SMTP's; 200 if the mail was taken."""
    began = clock()
    status, kind, text = 200, "", ""
    try:
        async with asyncio.timeout(timeout):
            text = await _sent(mail, guard, timeout, tls)
    except TimeoutError:
        status, kind, text = 0, ErrorKind.ATTEMPT_TIMEOUT, f"no end within {timeout:g} s"
    except (_BlockedError, aiosmtplib.SMTPException, OSError, ValueError) as error:
        status, kind, text = _cause(error)
    return Answer(status, kind, text, text.encode(), duration=int((clock() - began) * 1000))


def _cause(error: Exception) -> tuple[int, str, str]:
    """SMTP's status if there is one, the kind of error if there is none, and a text."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        if error.code < _FIRST_FAILURE:  # where another one was due: nobody knows what became of the mail
            return 0, ErrorKind.PROTOCOL, f"an answer out of turn: {error.code} {error.message}"
        return error.code, "", f"{error.code} {error.message}"
    tls: BaseException | None = error
    while tls is not None and not isinstance(tls, ssl.SSLError):
        tls = tls.__cause__ or tls.__context__
    text = str(error) or type(error).__name__
    if tls is not None:
        return 0, ErrorKind.TLS, text
    for kind, types in _KINDS.items():
        if isinstance(error, types):
            return 0, kind, text
    return 0, ErrorKind.PROTOCOL, text


class _Client(aiosmtplib.SMTP):
    """Remembers its transport, so that the connection can be ended whatever has happened."""

    _last: asyncio.BaseTransport | None = None

    def close(self) -> None:
        self._last = self.transport or self._last
        super().close()

    def end(self, sock: socket.socket) -> None:
        """End the connection through who has it; a descriptor closed under a transport harms others."""
        transport = self.transport or self._last
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        else:
            sock.close()


async def _sent(
    mail: Email,
    guard: AddressGuard | None,
    timeout: float,  # noqa: ASYNC109
    tls: Tls | None,
) -> str:
    context = None if mail.security == "none" else _context(tls)
    sock = await _connected(mail, guard)
    client = _Client(
        hostname=mail.host,
        sock=sock,
        timeout=timeout,
        use_tls=mail.security == "tls",
        start_tls=mail.security == "starttls",
        tls_context=context,
        username=mail.username or None,
        password=mail.password or None,
    )
    try:
        await client.connect()
        refused, text = await client.send_message(
            _composed(mail), sender=mail.sender, recipients=list(mail.recipients)
        )
        with contextlib.suppress(aiosmtplib.SMTPException):
            await client.quit()
    finally:
        client.end(sock)
    others = [f"{name}: {answer.code} {answer.message}" for name, answer in refused.items()]
    return "; ".join([text, *others])


def _context(tls: Tls | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file if tls is not None else None)
    if tls is not None and tls.certificate is not None:
        certificate, key, password = tls.certificate
        context.load_cert_chain(certificate, key, password)
    if tls is not None and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _connected(mail: Email, guard: AddressGuard | None) -> socket.socket:
    """A connection to an address that has been judged: there is no second look-up."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(mail.host, mail.port, type=socket.SOCK_STREAM)
    if guard is not None:
        refusals = [refusal for *_, place in found if (refusal := guard.refusal(str(place[0]))) is not None]
        if refusals:
            raise _BlockedError(refusals[0])
    last: OSError = OSError("no address")
    for family, kind, proto, _, place in found:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, place)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def _composed(mail: Email) -> Message:
    # As a Header, a subject is text and nothing else: EmailMessage decodes what looks encoded in it.
    message = MIMEText(f"{mail.text}\n", "plain", "utf-8")
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["Subject"] = Header(mail.subject, "utf-8", header_name="Subject").encode()
    message["Date"] = formatdate()
    # The same at each attempt, so that a mail that came twice is shown once.
    message["Message-ID"] = f"<{mail.message_id}@{mail.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834
    return message
