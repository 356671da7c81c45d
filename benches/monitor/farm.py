"""Sites to check: nginx on all addresses of 127.0.0.0/8, slow and silent ones, and a name server for them.

    python benches/monitor/farm.py FOLDER

Names are `sN.farm.test`; the last two digits of N say what a site is: 00 and 01 are slow, 02 is dead (it accepts
and says nothing), 03 has no name. Prints a line with its ports as JSON, and runs until it is killed.
"""

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

import trustme
import uvloop

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from support.ports import free_port  # noqa: E402  it is found only now

SLOW_SECONDS = 2.0
CONFIG = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/log crit; worker_rlimit_nofile 20000;
user root; events {{ worker_connections 15000; }}
http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; keepalive_requests 1000000;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_session_tickets off;
  server {{ listen 0.0.0.0:{plain} backlog=8192; location / {{ return 200 "ok"; }} }}
  server {{ listen 0.0.0.0:{tls} ssl backlog=8192; location / {{ return 200 "ok"; }} }} }}
"""


def kind_of(number):
    return {0: "slow", 1: "slow", 2: "dead", 3: "nameless"}.get(number % 100, "good")


def address_of(number):
    return f"127.{1 + number // 62500 % 250}.{number // 250 % 250}.{1 + number % 250}"


class Names(asyncio.DatagramProtocol):
    """Answers A questions for sN.farm.test."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        end = data.index(b"\0", 12) + 1
        question = data[12 : end + 4]
        label = data[13 : 13 + data[12]]
        kind = struct.unpack("!H", data[end : end + 2])[0]
        number = int(label[1:]) if label[1:].isdigit() else -1
        if number < 0 or kind_of(number) == "nameless":
            head = data[:2] + struct.pack("!HHHHH", 0x8583, 1, 0, 0, 0)
            self.transport.sendto(head + question, source)
            return
        if kind != 1:
            self.transport.sendto(data[:2] + struct.pack("!HHHHH", 0x8580, 1, 0, 0, 0) + question, source)
            return
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, 1, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 300, 4) + socket.inet_aton(address_of(number))
        self.transport.sendto(head + question + record, source)


async def slow(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(SLOW_SECONDS)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def silent(reader, writer):
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def main(folder):
    ports = {name: free_port() for name in ("plain", "tls", "slow", "dead", "dns")}
    ca = trustme.CA()
    cert = ca.issue_cert("*.farm.test", key_type=trustme.KeyType.ECDSA)
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, **ports))
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-p", folder, "-e", folder / "log"])
    loop = asyncio.get_running_loop()
    try:
        await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.1", ports["dns"]))
        await asyncio.start_server(slow, "0.0.0.0", ports["slow"], backlog=4096)
        await asyncio.start_server(silent, "0.0.0.0", ports["dead"], backlog=4096)
        print(json.dumps(ports), flush=True)
        await asyncio.Event().wait()
    finally:
        process.terminate()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
