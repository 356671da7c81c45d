"""A gateway as its users run it, and clients that show what is on the wire."""

import base64
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

SECRET = "secret of the tests, long enough for HS256"
KEY = "key of the tests"
SECONDS = 30  # bound of every wait

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def token(user: str = "", secret: str = SECRET, **claims: Any) -> str:
    """A connection token; with `channel`, a subscription token."""
    import jwt  # an extra

    return jwt.encode({"sub": user, **claims}, secret, "HS256")


def settings(over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration with the secret and key of the tests; sections of `over` go over it."""
    base: dict[str, Any] = {
        "client": {"token": {"hmac_secret_key": SECRET}},
        "http_api": {"key": KEY},
        "shutdown": {"timeout": "0s"},
    }
    return _merged(base, over or {})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(below[name], above[name])
        for name in below.keys() & above.keys()
        if _is_map(above[name])
    }
    return {**below, **above, **both}


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


class Gateway:
    """`yelpaze live` in a process of its own, with `config` over the tests' settings.

    `flags` go to the command line. The port is free, and the same after a restart.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any] | None = None, *flags: str, port: int = 0
    ) -> None:
        self.port = port
        self.lines: list[str] = []  # what it has said
        self._said = threading.Condition()
        self._flags = flags
        self._file = folder / f"live-{id(self):x}.json"
        self._file.write_text(json.dumps(settings(config)))
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it listens."""
        command = [sys.executable, "-m", "yelpaze.cli.main", "live", "--config", str(self._file)]
        self._process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{self.port}", *self._flags],
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("YELPAZE_")},
        )
        since = len(self.lines)
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        try:
            found = self.says(r"live at http://127\.0\.0\.1:(\d+)", since=since)
        except AssertionError:
            self.kill()
            raise
        self.port = int(found[1])

    def _read(self, stream: Any) -> None:
        for line in stream:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        self._process.wait(SECONDS)
        with self._said:
            self._said.notify_all()

    def says(self, pattern: str, *, since: int = 0) -> re.Match[str]:
        """Wait until it says that."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines[since:] if (match := re.search(pattern, line))), None)

        with self._said:
            self._said.wait_for(lambda: found() or self._process.poll() is not None, SECONDS)
        match = found()
        assert match is not None, "\n".join([f"it never said {pattern!r}:", *self.lines[since:]])
        return match

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def ws(self) -> str:
        return f"ws://{self.address}"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._ended()
        self._process.returncode = 0  # as it was meant to be

    def stop(self, code: int = 0) -> None:
        """End it in good order; there must have been no defect."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._ended()
        said = "\n".join(self.lines)
        assert "Traceback" not in said, said
        assert self._process.returncode == code, said

    def _ended(self) -> None:
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()

    # ── its API ─────────────────────────────────────────────────────────────────

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request; names of headers come in lower case."""
        return request(self.port, method, path, body, headers)

    def api(self, method: str, **body: Any) -> Any:
        """Call the server API; `error` in the answer is an assertion's failure."""
        answer = self.call(method, **body)
        assert "error" not in answer, answer
        return answer.get("result", answer)

    def call(self, method: str, **body: Any) -> Any:
        """The same, errors and all."""
        status, _, text = self.request(
            "POST", f"/api/{method}", json.dumps(body).encode(), {"X-API-Key": KEY}
        )
        assert status == 200, (status, text)
        return json.loads(text)

    def until_listening(self, channel: str, count: int = 1) -> None:
        """Wait until so many listen to a channel: plain clients are not told when they do."""
        end = time.monotonic() + SECONDS
        while self.api("channels", pattern=channel)["channels"].get(channel) != {"num_clients": count}:
            assert time.monotonic() < end, f"{count} never listened to {channel}"

    def publish(self, channel: str, data: Any, **rest: Any) -> Any:
        return self.api("publish", channel=channel, data=data, **rest)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    source: str = "",
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request; names of headers come in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, SECONDS, (source, 0))
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


# ── a WebSocket, byte by byte ───────────────────────────────────────────────────


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes | None = b"abcd") -> bytes:
    """One frame as a client sends it; without `mask` as it must not."""
    size, masked = len(payload), 0x80 if mask is not None else 0
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Wire:
    """A TCP connection to the gateway: bytes out, bytes in. `source` is the address that it comes from."""

    def __init__(self, port: int, *, source: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """So many bytes. Raises EOFError when the gateway has ended the connection."""
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError(data)
        return data

    def rest(self) -> bytes:
        """All that comes until the gateway ends the connection."""
        return self._file.read()

    def line(self) -> bytes:
        """One line, without its end."""
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError(line)
        return line.rstrip(b"\r\n")

    def head(self) -> tuple[int, dict[str, str]]:
        """An answer's status and headers."""
        status = int(self.line().split()[1])
        headers = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WebSocket(Wire):
    """A WebSocket after its handshake; `headers` go over the usual ones, None leaves one out."""

    def __init__(
        self, port: int, path: str, headers: Mapping[str, str | None] | None = None, *, source: str = ""
    ) -> None:
        super().__init__(port, source=source)
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **(headers or {}),
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        self.send(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1"))
        self.status, self.headers = self.head()

    def say(self, text: str | bytes, opcode: int = TEXT) -> None:
        """Send a message in one frame."""
        self.send(frame(opcode, text.encode() if isinstance(text, str) else text))

    def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Raises EOFError."""
        first, size = self.read(2)
        assert first & 0x80, "the gateway fragments nothing"
        assert not size & 0x80, "a server masks nothing"
        if size == 126:
            (size,) = struct.unpack("!H", self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.read(8))
        return first & 0x0F, self.read(size)

    def hear(self) -> str:
        """The next message; pings are answered on the way."""
        while True:
            opcode, payload = self.receive()
            if opcode == PING:
                self.say(payload, PONG)
            else:
                assert opcode == TEXT, (opcode, payload)
                return payload.decode()

    def closed(self) -> tuple[int, str]:
        """Pass over what comes until the gateway closes; its code and reason, 1006 if it just went."""
        while True:
            try:
                opcode, payload = self.receive()
            except (EOFError, ConnectionError):
                return 1006, ""
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()


class Centrifugo(WebSocket):
    """A client of Centrifugo's protocol in JSON. Replies come to who asks; pushes wait for `push`."""

    def __init__(self, port: int, *, connect: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(port, "/connection/websocket", **options)
        self._lines: deque[Any] = deque()
        self._pushes: deque[Any] = deque()
        self._number = 0
        if connect is not None:
            self.connected = self.ask("connect", **connect)

    def _next(self) -> Any:
        while not self._lines:
            for line in self.hear().split("\n"):
                if line == "{}":
                    self.say("{}")
                else:
                    self._lines.append(json.loads(line))
        return self._lines.popleft()

    def send_command(self, name: str, **params: Any) -> int:
        """Send a command, and don't wait for its reply."""
        self._number += 1
        self.say(json.dumps({"id": self._number, name: params}))
        return self._number

    def reply(self, number: int) -> Any:
        """The whole reply to a command."""
        while "push" in (found := self._next()):
            self._pushes.append(found["push"])
        assert found["id"] == number, found
        return found

    def ask(self, name: str, **params: Any) -> Any:
        """Do a command; its result. An error is an assertion's failure."""
        reply = self.reply(self.send_command(name, **params))
        assert "error" not in reply, reply
        return reply[name]

    def refused(self, name: str, **params: Any) -> int:
        """Do a command that is refused; the error's code."""
        code: int = self.reply(self.send_command(name, **params))["error"]["code"]
        return code

    def push(self) -> Any:
        """The next push: `{"channel": …, "pub": …}`."""
        if self._pushes:
            return self._pushes.popleft()
        found = self._next()
        assert "push" in found, found
        return found["push"]

    def data(self) -> Any:
        """The data of the next publication; other pushes are passed over."""
        while "pub" not in (push := self.push()):
            pass
        return push["pub"]["data"]


# ── server-sent events ──────────────────────────────────────────────────────────


class Event(NamedTuple):
    data: str
    id: str = ""
    kind: str = "message"


class Events(Wire):
    """A reader of `/sse/{channel}`; `status` tells whether it was let in."""

    def __init__(
        self,
        port: int,
        channel: str,
        *,
        token: str = "",
        last: str = "",
        headers: Mapping[str, str] | None = None,
        source: str = "",
    ) -> None:
        super().__init__(port, source=source)
        query = f"?token={token}" if token else ""
        lines = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **(headers or {})}
        if last:
            lines["Last-Event-ID"] = last
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"GET /sse/{quote(channel)}{query} HTTP/1.1\r\n{text}\r\n".encode())
        self.status, self.headers = self.head()
        self.last = last  # what a browser would come back with
        self._chunks = self._plain() if "chunked" in self.headers.get("transfer-encoding", "") else None
        self._text = b""

    def _plain(self) -> Iterator[bytes]:
        """The body of a chunked answer, as a proxy makes one."""
        while size := int(self.line(), 16):
            yield self.read(size)
            self.line()

    def _line(self) -> str:
        if self._chunks is None:
            return self.line().decode()
        while b"\n" not in self._text:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise EOFError(self._text)
            self._text += chunk
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def next(self) -> Event:
        """The next event that has data. Raises EOFError."""
        data: list[str] = []
        kind = "message"
        while True:
            name, _, value = self._line().partition(": ")
            if name == "data":
                data.append(value)
            elif name == "event":
                kind = value
            elif name == "id":
                self.last = value
            elif not name and data:
                return Event("\n".join(data), self.last, kind)
