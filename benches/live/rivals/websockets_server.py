"""python websockets_server.py PORT: `broadcast` as in the library's topic on it, on uvloop as in its on performance.

Whatever comes on /publish goes to everybody else.
"""

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

CLIENTS: set[ServerConnection] = set()


async def handler(websocket: ServerConnection) -> None:
    if websocket.request is not None and websocket.request.path == "/publish":
        async for message in websocket:
            broadcast(CLIENTS, message)
        return
    CLIENTS.add(websocket)
    try:
        await websocket.wait_closed()
    finally:
        CLIENTS.remove(websocket)


async def main() -> None:
    # asyncio's backlog of 100 would have most of a burst of connections wait a second for their next SYN.
    async with serve(handler, "127.0.0.1", int(sys.argv[1]), compression=None, backlog=4096) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
