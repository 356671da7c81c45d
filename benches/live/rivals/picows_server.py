"""python picows_server.py PORT: picows' examples/broadcast_server.py, on uvloop as in its perf_test.py.

Whatever comes on /publish goes to everybody else.
"""

import sys
from weakref import ReferenceType, ref

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class ServerClientListener(WSListener):
    def __init__(self, all_clients: "set[ReferenceType[ServerClientListener]]") -> None:
        self.transport: WSTransport | None = None
        self._all_clients = all_clients

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._all_clients.add(ref(self))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._all_clients.remove(ref(self))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Publisher(WSListener):
    def __init__(self, server: "Server") -> None:
        self._server = server

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._server.broadcast(frame.get_payload_as_bytes())


class Server:
    def __init__(self) -> None:
        self._all_clients: set[ReferenceType[ServerClientListener]] = set()

    def broadcast(self, message: bytes) -> None:
        for client_ref in self._all_clients:
            client = client_ref()
            if client is not None and client.transport is not None:
                client.transport.send(WSMsgType.TEXT, message)

    async def run(self, port: int) -> None:
        def listener_factory(request: WSUpgradeRequest) -> WSListener:
            if request.path == b"/publish":
                return Publisher(self)
            return ServerClientListener(self._all_clients)

        # asyncio's backlog of 100 would have most of a burst of connections wait a second for their next SYN.
        server = await ws_create_server(listener_factory, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(Server().run(int(sys.argv[1])))
