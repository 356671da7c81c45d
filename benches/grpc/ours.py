# ruff: noqa: N802  methods are named as their calls
"""python ours.py PORT PROCESSES THREADS: `yelpaze.rpc.serve`; async servicers with 0 threads."""

import asyncio
import os
import sys
import time

import calls_pb2_grpc
import grpc
from calls_pb2 import Done, Nothing, Order
from work import burn

from yelpaze.rpc import serve


class AsyncCalls(calls_pb2_grpc.CallsServicer):
    async def Empty(self, request: Nothing, context: grpc.aio.ServicerContext) -> Nothing:
        return Nothing()

    async def Hold(self, request: Order, context: grpc.aio.ServicerContext) -> Done:
        began = time.monotonic()
        await asyncio.sleep(request.seconds)
        return Done(process=os.getpid(), began=began, ended=time.monotonic())


class Calls(calls_pb2_grpc.CallsServicer):
    def Empty(self, request: Nothing, context: grpc.ServicerContext) -> Nothing:
        return Nothing()

    def Work(self, request: Order, context: grpc.ServicerContext) -> Done:
        began = time.monotonic()
        burn(request.turns)
        return Done(process=os.getpid(), began=began, ended=time.monotonic())

    def Hold(self, request: Order, context: grpc.ServicerContext) -> Done:
        began = time.monotonic()
        time.sleep(request.seconds)
        return Done(process=os.getpid(), began=began, ended=time.monotonic())


def register_async(server: grpc.aio.Server) -> None:
    calls_pb2_grpc.add_CallsServicer_to_server(AsyncCalls(), server)


def register(server: grpc.Server) -> None:
    calls_pb2_grpc.add_CallsServicer_to_server(Calls(), server)


if __name__ == "__main__":
    port, processes, threads = map(int, sys.argv[1:])
    serve(
        register if threads else register_async,
        listen=f"127.0.0.1:{port}",
        processes=processes,
        threads=threads or None,
        drain=0,
    )
