"""Endpoints of kind `email` against a real SMTP server, and against one that does what a test says."""

import asyncio
import re
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import pytest

from support.hooks import endpoint_of, opened
from support.hooks_log import APP, endpoint_for, logged, tried
from support.mail import USER, MailServer, server_context
from support.ports import free_port
from support.waiting import until_true
from yelpaze.hooks.errors import HooksError

TO = "ada@example.com"
OPTIONS = {"to": [TO], "sender": "hooks@shop.example", "host": "127.0.0.1"}
LOGIN = {"username": USER.login.decode(), "password": USER.password.decode()}
PAYLOAD = {"title": "Order 7", "text": "Paid"}


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "hooks.db")


@contextmanager
def serving(**options):
    server = MailServer(**options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def mail_options(server, security="none", **more):
    return {**OPTIONS, "port": server.port, "security": security, **more}


@pytest.fixture
def ca_text(ca):
    return ca.cert_pem.bytes().decode()


async def attempt_of(store, options, payload=PAYLOAD, *, settings=None, **fields):
    """The first attempt to send a mail, as the log has it."""
    async with opened(store, **settings or {}) as hooks:
        await endpoint_for(hooks, kind="email", options=options, schedule=(0, 3600), **fields)
        await hooks.send(APP, "order.completed", payload)
        return (await logged(hooks))[0]


async def mail_of(store, payload=PAYLOAD, **options):
    """The mail that comes of a payload."""
    with serving() as server:
        attempt = await attempt_of(store, mail_options(server, **options), payload)
        assert (attempt.reason, attempt.response_status_code) == ("", 200)
        (mail,) = server.mails
    return mail


# ── the mail ────────────────────────────────────────────────────────────────────


async def test_a_mail_has_a_title_a_text_and_what_programs_look_for(store):
    mail = await mail_of(store, to=[TO, "bob@example.com"])
    message = mail.message
    assert mail.sender == "hooks@shop.example"
    assert mail.recipients == [TO, "bob@example.com"]
    assert message["From"] == "hooks@shop.example"
    assert message["To"] == "ada@example.com, bob@example.com"
    assert message["Subject"] == "Order 7"
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<msg_\w+@shop\.example>", message["Message-ID"])
    assert parsedate_to_datetime(message["Date"])
    assert message.get_content_type() == "text/plain"
    assert mail.text == "Order 7\nPaid\n"


async def test_the_subject_is_the_event_type_where_the_payload_has_no_title(store):
    mail = await mail_of(store, {"order": 7})
    assert mail.message["Subject"] == "order.completed"
    assert mail.text == 'order.completed\n{\n  "order": 7\n}\n'


async def test_subject_and_text_come_of_templates(store):
    options = {"subject": "[{{ type }}] {{ payload.id }}", "template": "Hello {{ payload.name }}"}
    mail = await mail_of(store, {"id": 7, "name": "Ada"}, **options)
    assert (mail.message["Subject"], mail.text) == ("[order.completed] 7", "Hello Ada\n")


async def test_text_that_is_not_ascii_arrives_as_it_is(store):
    text = "Çay içelim, 漢字 😀\n.\nend" + "ğ" * 2000
    mail = await mail_of(store, {"title": "Sipariş 7 ödendi 😀", "text": text}, template="{{ payload.text }}")
    assert mail.message["Subject"] == "Sipariş 7 ödendi 😀"
    assert mail.text == f"{text}\n"
    assert mail.content.isascii()


async def test_a_long_subject_is_cut(store):
    message = (await mail_of(store, {"title": "é" * 5000, "text": "x"})).message
    assert message["Subject"] == "é" * 199 + "…"


@pytest.mark.parametrize(
    "title",
    [
        "x\r\nBcc: eve@example.com",
        "x\nBcc: eve@example.com",
        "x\rBcc: eve@example.com",
        "x\r\n\r\nanother body",
        "x\x0bBcc: eve@example.com",
        "x\x85Bcc: eve@example.com",
        "x\u2028Bcc: eve@example.com",
        "=?utf-8?q?=0d=0aBcc:_eve@example.com?=",
        "=?utf-8?q?=0aBcc:_eve@example.com?=",
        "=?utf-8?b?eApCY2M6IGV2ZUBleGFtcGxlLmNvbQ==?=",
    ],
)
async def test_a_subject_cannot_add_headers(store, title):
    with serving() as server:
        await attempt_of(store, mail_options(server, template="Paid"), {"title": title})
        mails = list(server.mails)
    for mail in mails:
        assert (mail.recipients, mail.text) == ([TO], "Paid\n")
        names = set(mail.message.keys())
        assert names <= {
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
            "Content-Transfer-Encoding", "X-Peer", "X-MailFrom", "X-RcptTo",
        }  # fmt: skip
    assert len(mails) == 1


async def test_a_subject_has_no_control_characters(store):
    mail = await mail_of(store, {"title": "a\0b\x1b[31mc", "text": "Paid"})
    subject = re.search(rb"^Subject: (.*)$", mail.content, re.MULTILINE)[1]
    assert b"\0" not in subject
    assert b"\x1b" not in subject


async def test_a_message_id_is_the_same_at_each_attempt(store):
    with serving() as server:
        server.answers = ["451 4.3.0 try again", "452 4.3.1 no space"]
        async with opened(store) as hooks:
            await endpoint_for(hooks, kind="email", options=mail_options(server), schedule=(0, 0, 0))
            message = await hooks.send(APP, "order.completed", PAYLOAD)
            attempts = await logged(hooks, 3)
        ids = [mail.message["Message-ID"] for mail in server.mails]
    assert ids == [f"<{message.id}@shop.example>"] * 3
    assert [one.response_status_code for one in attempts] == [451, 452, 200]
    assert [one.status_text for one in attempts] == ["fail", "fail", "success"]
    assert "try again" in attempts[0].response


# ── encryption ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_goes_over_tls_that_the_endpoints_ca_has_signed(store, ca, ca_text, security):
    with serving(tls=server_context(ca), from_start=security == "tls") as server:
        attempt = await attempt_of(store, mail_options(server, security), tls={"ca": ca_text})
        (mail,) = server.mails
    assert attempt.reason == ""
    assert mail.is_encrypted


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(store, ca, security):
    with serving(tls=server_context(ca), from_start=security == "tls") as server:
        attempt = await attempt_of(store, mail_options(server, security))
        assert server.mails == []
    assert attempt.reason.startswith("tls: ")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_of_another_host_is_refused(store, ca, ca_text, security):
    with serving(tls=server_context(ca, "mail.example.com"), from_start=security == "tls") as server:
        attempt = await attempt_of(store, mail_options(server, security), tls={"ca": ca_text})
        assert server.mails == []
    assert attempt.reason.startswith("tls: ")


async def test_any_certificate_is_accepted_where_that_is_asked_for(store, ca):
    with serving(tls=server_context(ca, "mail.example.com"), from_start=True) as server:
        attempt = await attempt_of(store, mail_options(server, "tls"), tls={"insecure": True})
        assert (attempt.reason, len(server.mails)) == ("", 1)


async def test_a_server_without_starttls_gets_no_mail(store):
    with serving() as server:
        attempt = await attempt_of(store, mail_options(server, "starttls"))
        assert server.mails == []
    assert attempt.status_text == "fail"
    assert "STARTTLS" in attempt.reason


async def test_a_ca_file_may_have_comments_in_any_language(store, ca, ca_text):
    with serving(tls=server_context(ca)) as server:
        tls = {"ca": f"# Kök sertifika: Şirket\n{ca_text}"}
        attempt, field = await tried(attempt_of(store, mail_options(server, "starttls"), tls=tls))
        assert field == "tls" or (attempt.reason, len(server.mails)) == ("", 1)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mails_one_after_the_other_over_tls_all_arrive(store, ca, ca_text, security):
    """The file descriptor of one connection is that of the next: nothing may be left of the first."""
    with serving(tls=server_context(ca), from_start=security == "tls") as server:
        async with opened(store) as hooks:
            options = mail_options(server, security)
            await endpoint_for(hooks, kind="email", options=options, tls={"ca": ca_text})
            for count in range(1, 21):
                await hooks.send(APP, "order.completed", PAYLOAD)
                assert {one.reason for one in await logged(hooks, count)} == {""}
        assert len(server.mails) == 20


# ── login ───────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd does not see TLS from the start
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_it_logs_in_by_what_the_server_offers(store, ca, ca_text, mechanism, security):
    with serving(tls=server_context(ca), from_start=security == "tls", auth=(mechanism,)) as server:
        attempt = await attempt_of(store, mail_options(server, security, **LOGIN), tls={"ca": ca_text})
        (mail,) = server.mails
    assert attempt.reason == ""
    assert server.logins == [(mechanism, True)]
    assert mail.user == USER.login


async def test_a_wrong_password_is_a_failure_that_says_so(store, ca, ca_text):
    with serving(tls=server_context(ca), auth=("PLAIN",)) as server:
        options = mail_options(server, "starttls", username="hooks", password="hunter2")
        attempt = await attempt_of(store, options, tls={"ca": ca_text})
        assert server.mails == []
    assert (attempt.status_text, attempt.response_status_code) == ("fail", 535)
    assert "535" in attempt.reason
    assert "hunter2" not in attempt.reason + attempt.response


async def test_a_password_is_never_sent_in_the_clear(store):
    async with opened(store, deliver=False) as hooks:
        with pytest.raises(HooksError, match="in the clear"):
            await endpoint_for(hooks, kind="email", options={**OPTIONS, **LOGIN, "security": "none"})


async def test_a_password_is_not_shown(store):
    async with opened(store, deliver=False) as hooks:
        made = await endpoint_for(hooks, kind="email", options={**OPTIONS, **LOGIN})
    assert made.options["password"] == "***"


# ── refusals ────────────────────────────────────────────────────────────────────


async def test_a_recipient_who_is_refused_is_a_failure_that_is_tried_again(store):
    with serving() as server:
        server.refused = {TO}
        attempt = await attempt_of(store, mail_options(server))
        assert server.mails == []
    assert (attempt.status_text, attempt.response_status_code) == ("fail", 550)
    assert "no such user here" in attempt.response
    assert attempt.next_attempt is not None


async def test_the_log_says_which_of_several_recipients_was_refused(store):
    with serving() as server:
        server.refused = {TO}
        attempt = await attempt_of(store, mail_options(server, to=["bob@example.com", TO]))
        assert [mail.recipients for mail in server.mails] == [["bob@example.com"]]
    assert TO in attempt.response + attempt.reason


async def talk(peer, *, answers=(), last=None):
    """SMTP up to `last`, a command that gets the answer that a test gives, or none and silence."""
    given = dict(answers)
    await peer.send(given.get("greeting", b"220 here\r\n"))
    while line := await peer.reader.readline():
        command = line.split()[0].upper().decode()
        if command == last:
            await peer.reader.read()  # until it gives up
            return
        usual = b"354 go on\r\n" if command == "DATA" else b"250 ok\r\n"
        await peer.send(given.get(command, usual))
        if command == "DATA" and given.get("DATA", usual).startswith(b"354"):
            await peer.reader.readuntil(b"\r\n.\r\n")
            await peer.send(given.get("end", b"250 queued\r\n"))


def port_of(server):
    return int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("last", ["connect", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_server_that_never_answers_is_given_up(store, raw, last):
    async def script(peer):
        if last == "connect":
            await peer.reader.read()
        else:
            await talk(peer, last=last)

    server = await raw(script)
    options = {**OPTIONS, "port": port_of(server), "security": "none"}
    attempt = await attempt_of(store, options, timeout=0.2)
    assert attempt.reason.startswith("timeout.attempt: ")
    assert attempt.response_status_code == 0
    assert attempt.next_attempt is not None


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "end"])
@pytest.mark.parametrize("code", [421, 550])
async def test_a_refusal_at_any_command_is_a_failure_with_its_code(store, raw, command, code):
    server = await raw(lambda peer: talk(peer, answers={command: b"%d not today\r\n" % code}))
    attempt = await attempt_of(store, {**OPTIONS, "port": port_of(server), "security": "none"})
    assert (attempt.status_text, attempt.response_status_code) == ("fail", code)
    assert "not today" in attempt.response


@pytest.mark.parametrize(
    "answer", [b"250 ok\r\n", b"220 ok\r\n", b"999 what\r\n", b"\xff\xfe\r\n", b"no SMTP\r\n"]
)
async def test_a_server_that_does_not_take_the_text_has_not_got_the_mail(store, raw, answer):
    server = await raw(lambda peer: talk(peer, answers={"DATA": answer}))
    attempt = await attempt_of(store, {**OPTIONS, "port": port_of(server), "security": "none"})
    assert attempt.status_text == "fail"


@pytest.mark.parametrize(
    "greeting", [b"554 go away\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\xff" * 5000]
)
async def test_what_is_no_mail_server_is_a_failure(store, raw, greeting):
    server = await raw(lambda peer: talk(peer, answers={"greeting": greeting}))
    options = {**OPTIONS, "port": port_of(server), "security": "none"}
    assert (await attempt_of(store, options, timeout=2)).status_text == "fail"


async def test_a_connection_that_breaks_is_a_failure_with_its_cause(store, raw):
    async def script(peer):
        await peer.send(b"220 here\r\n")
        await peer.reader.readline()
        peer.reset()

    server = await raw(script)
    attempt = await attempt_of(store, {**OPTIONS, "port": port_of(server), "security": "none"})
    assert attempt.status_text == "fail"
    assert attempt.reason


async def test_a_port_where_nobody_listens_is_a_failure_to_connect(store):
    attempt = await attempt_of(store, {**OPTIONS, "port": free_port(), "security": "none"})
    assert attempt.reason.startswith("connect: ")


async def test_a_name_that_does_not_resolve_is_tried_again(store):
    attempt = await attempt_of(store, {**OPTIONS, "host": "mail.invalid", "security": "none"})
    assert attempt.reason.startswith("dns: ")
    assert attempt.next_attempt is not None


@pytest.mark.parametrize("host", ["mail..example.com", "a" * 64 + ".example.com", ".", "[::1]", "1.2.3.4.5"])
async def test_a_host_that_cannot_be_is_refused_or_fails(store, host):
    attempt, field = await tried(attempt_of(store, {**OPTIONS, "host": host, "security": "none"}))
    assert field == "options.host" or attempt.reason


@pytest.mark.parametrize(
    "address", ["b=@[😀", "().|@.||'[\x7f", "a[@b.c", "a(b@c.d", "ä@example.com", "a@ä.example"]
)
@pytest.mark.parametrize("field", ["to", "sender"])
async def test_an_address_that_cannot_be_is_refused_or_fails(store, address, field):
    """What can be is delivered: it must not be lost in between."""
    with serving() as server:
        options = mail_options(server, **{field: [address] if field == "to" else address})
        attempt, refused = await tried(attempt_of(store, options))
        if refused:
            assert refused == f"options.{field}"
        else:
            assert attempt.reason or [mail.recipients for mail in server.mails] == [list(options["to"])]


# ── whose addresses ─────────────────────────────────────────────────────────────


async def test_a_private_address_is_refused_unless_it_is_allowed(store):
    with serving() as server:
        options = mail_options(server)
        attempt = await attempt_of(store, options, settings={"allow": []})
        assert attempt.reason.startswith("blocked_address: 127.0.0.1 is this machine")
        assert server.connections == 0


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "2130706433", "::ffff:127.0.0.1"])
async def test_a_private_address_is_refused_however_it_is_written(store, host):
    with serving() as server:
        attempt = await attempt_of(store, mail_options(server, host=host), settings={"allow": []})
        assert attempt.reason.startswith(("blocked_address: ", "dns: "))
        assert server.connections == 0


def own_server(server, **more):
    """The settings of a service with a mail server."""
    smtp = {"host": "127.0.0.1", "port": server.port, "security": "none", "sender": "alerts@shop.example"}
    return {"allow": [], "smtp": {**smtp, **more}}


async def test_the_services_own_mail_server_may_be_anywhere(store):
    with serving() as server:
        attempt = await attempt_of(store, {"to": [TO]}, settings=own_server(server))
        (mail,) = server.mails
    assert attempt.reason == ""
    assert mail.sender == "alerts@shop.example"


async def test_the_services_own_password_is_used_and_not_shown(store, ca, ca_text):
    with serving(tls=server_context(ca), auth=("PLAIN",)) as server:
        settings = own_server(server, security="starttls", **LOGIN)
        async with opened(store, **settings) as hooks:
            made = await endpoint_for(hooks, kind="email", options={"to": [TO]}, tls={"ca": ca_text})
            assert LOGIN["password"] not in str(made.options)
            await hooks.send(APP, "order.completed", PAYLOAD)
            assert (await logged(hooks))[0].reason == ""
        assert [mail.user for mail in server.mails] == [USER.login]


async def test_the_services_own_password_goes_to_no_other_server(store, ca, ca_text):
    """The owner of an endpoint names a server of their own, and sends the hidden password back as it was shown."""
    with serving(tls=server_context(ca), auth=("PLAIN",)) as server:
        settings = {**own_server(server, security="starttls", **LOGIN), "allow": ["127.0.0.0/8"]}
        async with opened(store, **settings) as hooks:
            made = await endpoint_for(hooks, kind="email", options={"to": [TO]}, tls={"ca": ca_text})
            theirs = {**OPTIONS, "host": "127.0.0.2", "username": "x", "password": "***"}
            await tried(hooks.update_endpoint(APP, made.id, options={**made.options, **theirs}))
            found = await endpoint_of(hooks, APP, made.id)
    if found.settings.options.get("host") == "127.0.0.2":
        assert LOGIN["password"] not in str(found.settings.options)


@pytest.mark.parametrize("kind", ["http", "webhook", "email"])
async def test_an_endpoint_that_had_the_services_server_is_guarded_when_it_gets_another(store, service, kind):
    with serving() as server, serving() as inner:
        async with opened(store, **own_server(server)) as hooks:
            made = await endpoint_for(hooks, kind="email", options={"to": [TO]}, schedule=(0, 3600))
            options = mail_options(inner) if kind == "email" else {}
            url = "" if kind == "email" else service.url
            _, field = await tried(hooks.update_endpoint(APP, made.id, kind=kind, url=url, options=options))
            assert field in ("", "url")
            if not field:
                await hooks.send(APP, "order.completed", PAYLOAD)
                assert (await logged(hooks))[0].reason.startswith("blocked_address: ")
        assert (service.calls, inner.connections) == ([], 0)


# ── the end ─────────────────────────────────────────────────────────────────────


async def test_a_mail_under_way_at_the_end_is_sent_by_the_next_start(store, raw):
    connected = asyncio.Event()

    async def script(peer):
        connected.set()
        await peer.reader.read()

    server = await raw(script)
    with serving() as other:
        async with opened(store) as hooks:
            made = await endpoint_for(
                hooks, kind="email", options={**OPTIONS, "port": port_of(server), "security": "none"}
            )
            await hooks.send(APP, "order.completed", PAYLOAD)
            await connected.wait()
        async with opened(store) as hooks:
            await hooks.update_endpoint(APP, made.id, options=mail_options(other))
            await until_true(lambda: other.mails)
