"""python floor.py PORT [joined]: what the kernel takes: raw `send` of the framed message to each socket.

No event loop, parser, session or queue: connections are accepted and answered one by one, then whatever
the publisher sends is framed once and sent to all in a loop. With `joined`, messages that came together
leave in one `send`: the floor of any server that coalesces.
"""

import base64
import hashlib
import select
import socket
import sys
from collections.abc import Callable

KEY = b"sec-websocket-key:"
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def shake(client: socket.socket) -> bytes:
    """Answer the upgrade; the path that it asked for, or nothing if the client went away."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := client.recv(4096)):
            return b""
        head += data
    start, *lines = head.split(b"\r\n")
    key = next(line[len(KEY) :].strip() for line in lines if line.lower().startswith(KEY))
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    client.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    return start.split()[1]


def framed(data: bytes) -> list[bytes]:
    """The client's frames, all of them short and whole, as frames of a server."""
    frames, at = [], 0
    while at < len(data):
        size = data[at + 1] & 0x7F
        mask, payload = data[at + 2 : at + 6], data[at + 6 : at + 6 + size]
        frames.append(bytes((0x81, size)) + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))
        at += 6 + size
    return frames


def serve(port: int, joined: bool) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: list[socket.socket] = []
    sends: list[Callable[[bytes], int]] = []
    publisher: socket.socket | None = None
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                path = shake(client)
                client.setblocking(False)
                if not path:
                    client.close()
                elif path == b"/publish":
                    publisher = client
                    poll.register(client, select.EPOLLIN)
                else:
                    clients.append(client)
                    sends.append(client.send)
                continue
            assert publisher is not None
            data = publisher.recv(65536)
            if not data:
                poll.unregister(publisher)
                publisher.close()
                continue
            frames = framed(data)
            for frame in [b"".join(frames)] if joined else frames:
                for send in sends:
                    send(frame)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:] == ["joined"])
