# ruff: noqa: N802  methods are named as their calls
"""python grpclib_server.py PORT: grpclib's examples/helloworld/server.py, its call empty."""

import asyncio
import sys

from calls_grpc import CallsBase
from calls_pb2 import Done, Nothing, Order
from grpclib.server import Server, Stream
from grpclib.utils import graceful_exit


class Calls(CallsBase):
    async def Empty(self, stream: Stream[Nothing, Nothing]) -> None:
        await stream.recv_message()
        await stream.send_message(Nothing())

    async def Work(self, stream: Stream[Order, Done]) -> None:
        raise NotImplementedError

    async def Hold(self, stream: Stream[Order, Done]) -> None:
        raise NotImplementedError


async def main(*, host: str = "127.0.0.1", port: int = 50051) -> None:
    server = Server([Calls()])
    with graceful_exit([server]):
        await server.start(host, port)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(port=int(sys.argv[1])))
