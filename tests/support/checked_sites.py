"""What single checks are pointed at: settings as in a file, certificates of every sort, TLS with alerts."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import warnings
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dnslib import AAAA, CAA, CNAME, MX, NS, PTR, QTYPE, RCODE, RR, SOA, SRV, TXT, A
from dnslib.server import BaseResolver

from yelpaze.monitor.config.loading import config_of
from yelpaze.monitor.probe.checker import Verdict, check_once

DAY = dt.timedelta(days=1)


def check_of(url, *conditions, allow=None, **endpoint):
    """The check that these settings make, and what is allowed; nothing in them may be left out."""
    site = {"name": "site", "url": url, "conditions": list(conditions or ["[STATUS] == 200"]), **endpoint}
    config = config_of({"endpoints": [site], **({} if allow is None else {"allow": list(allow)})})
    [check] = config.checks.values()
    assert not check.disabled, check.disabled
    return check, config.allow


async def checked(url, *conditions, allow=None, **endpoint) -> Verdict:
    """Make one check, once. The checker must report no defect of its own."""
    check, allowed = check_of(url, *conditions, allow=allow, **endpoint)
    notices = []
    [verdict] = await check_once([check], 4, allowed, notices.append)
    assert not notices, notices
    return verdict


def texts(verdict):
    """The conditions as people read them."""
    return [one.text for one in verdict.conditions]


def summary(verdict):
    """What a verdict comes to: success, kind of error, status, connected."""
    answer = verdict.reply.answer
    return verdict.success, verdict.reply.error, answer.status, answer.connected


# ── names ───────────────────────────────────────────────────────────────────────

_RCODES = {"missing": RCODE.NXDOMAIN, "broken": RCODE.SERVFAIL, "refused": RCODE.REFUSED}
_RECORDS = {
    "A": A("192.0.2.7"),
    "AAAA": AAAA("2001:db8::7"),
    "CNAME": CNAME("other.test."),
    "MX": MX("mail.test.", 10),
    "TXT": TXT([b"v=spf1 ", b"-all"]),
    "NS": NS("ns1.test."),
    "SRV": SRV(1, 2, 5060, "sip.test."),
    "PTR": PTR("host.test."),
    "SOA": SOA("ns1.test.", "root.test.", (1, 2, 3, 4, 5)),
    "CAA": CAA(0, "issue", "ca.test"),
}


class Names(BaseResolver):
    """A name server that answers by the first label of a name.

    missing, broken, refused: no answer but a code. empty: NOERROR without records. all: a record of each
    type. alias: a CNAME and its address. six: ::1 only. both: 127.0.0.1 and ::1.
    two: 127.0.0.8 and 127.0.0.9. away: 127.0.0.9 only. Any other: 127.0.0.1.
    """

    address = ""  # host:port, set by who starts it

    def resolve(self, request, handler):
        reply, name = request.reply(), request.q.qname
        label, kind = str(name).split(".")[0], QTYPE[request.q.qtype]
        if label in _RCODES:
            reply.header.rcode = _RCODES[label]
        elif label == "all":
            if kind in _RECORDS:
                reply.add_answer(RR(name, request.q.qtype, rdata=_RECORDS[kind], ttl=60))
        elif label == "alias" and kind == "A":
            reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME("good.test."), ttl=60))
            reply.add_answer(RR("good.test.", QTYPE.A, rdata=A("127.0.0.1"), ttl=60))
        elif label != "empty":
            for address in self._addresses(label):
                if kind == ("AAAA" if ":" in address else "A"):
                    data = AAAA(address) if ":" in address else A(address)
                    reply.add_answer(RR(name, request.q.qtype, rdata=data, ttl=60))
        return reply

    def _addresses(self, label):
        own = {
            "six": ["::1"],
            "both": ["127.0.0.1", "::1"],
            "two": ["127.0.0.8", "127.0.0.9"],
            "away": ["127.0.0.9"],
        }
        return own.get(label, ["127.0.0.1"])


# ── certificates ────────────────────────────────────────────────────────────────


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def expiring(ca: trustme.CA, days: float) -> ssl.SSLContext:
    """A certificate of 127.0.0.1 that expires in so many days, or has."""
    return context_of(ca.issue_cert("127.0.0.1", not_before=now() - 90 * DAY, not_after=now() + days * DAY))


def not_yet_valid(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(ca.issue_cert("127.0.0.1", not_before=now() + DAY, not_after=now() + 9 * DAY))


def wrong_host(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(ca.issue_cert("other.test"))


def unknown_authority(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(trustme.CA().issue_cert("127.0.0.1"))


def self_signed(folder: Path) -> ssl.SSLContext:
    """A certificate of 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + 30 * DAY)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "self-signed.pem"
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def incomplete_chain(ca: trustme.CA, folder: Path) -> ssl.SSLContext:
    """A server that leaves out the authority between its certificate and the root."""
    certificate = ca.create_child_ca().issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "leaf.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "leaf.key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return context


def old_protocol(ca: trustme.CA) -> ssl.SSLContext:
    """A server that speaks TLS 1.0 and 1.1 only. Skips the test if this OpenSSL cannot."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.set_ciphers("ALL:@SECLEVEL=0")
    if not _can_shake_hands(client, context):
        pytest.skip("this OpenSSL speaks neither TLS 1.0 nor 1.1")
    return context


def _can_shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname="a.test"),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(10):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
    return not sides


def over_tls(context: ssl.SSLContext, answer: bytes = b""):
    """A script for a RawServer: TLS whose alerts reach the client, which those of asyncio's servers do not.

    It answers what it reads first with `answer`, or with nothing.
    """

    async def script(peer):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        async def step(call):
            while True:
                try:
                    result = call()
                except ssl.SSLWantReadError:
                    await peer.send(outgoing.read())
                    data = await peer.reader.read(65536)
                    if not data:
                        raise ConnectionResetError from None
                    incoming.write(data)
                else:
                    await peer.send(outgoing.read())
                    return result

        try:
            await step(tls.do_handshake)
            if await step(lambda: tls.read(65536)) and answer:
                tls.write(answer)
                await peer.send(outgoing.read())
        except ssl.SSLError:
            await peer.send(outgoing.read())  # the alert
        while await peer.reader.read(65536):  # a close with data unread would overtake it
            pass

    return script


# ── addresses ───────────────────────────────────────────────────────────────────


async def serving_on(address: str, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nUP"):
    """A server on that address that answers what it reads first, and its port; skips if there is none."""

    async def handle(reader, writer):
        try:
            if await reader.read(65536):
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(handle, address, 0)
    except OSError as error:
        pytest.skip(f"this machine has no {address}: {error}")
    return server, server.sockets[0].getsockname()[1]


class Filtered:
    """A port whose queue of connections is full: it answers no more of them. A context manager."""

    def __enter__(self) -> int:
        self._sockets = [socket.socket()]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[0].listen(0)
        address = self._sockets[0].getsockname()
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            self._sockets.append(client)
        return address[1]

    def __exit__(self, *_):
        for one in self._sockets:
            one.close()
