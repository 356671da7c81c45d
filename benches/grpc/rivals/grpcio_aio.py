# ruff: noqa: N802  methods are named as their calls
"""python grpcio_aio.py PORT [uvloop]: grpc's examples/python/helloworld/async_greeter_server.py, made empty.

With `uvloop`, which that example doesn't have, the event loop is ours: what is left between it and
`yelpaze.rpc.serve` is what we add to each call.
"""

import asyncio
import sys

import calls_pb2
import calls_pb2_grpc
import grpc


class Calls(calls_pb2_grpc.CallsServicer):
    async def Empty(
        self,
        request: calls_pb2.Nothing,
        context: grpc.aio.ServicerContext,
    ) -> calls_pb2.Nothing:
        return calls_pb2.Nothing()


async def serve() -> None:
    server = grpc.aio.server()
    calls_pb2_grpc.add_CallsServicer_to_server(Calls(), server)
    listen_addr = f"127.0.0.1:{sys.argv[1]}"
    server.add_insecure_port(listen_addr)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[2:] == ["uvloop"]:
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())
