"""gRPC servicers for the tests, in bytes; processes of a server import this."""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

SERVICE = "test.Echo"


def _add(server, methods):
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_registered_method_handlers(SERVICE, methods)


def _pid():
    return str(os.getpid()).encode()


def register(server):
    async def who(request, context):
        return _pid()

    async def sleep(request, context):
        await asyncio.sleep(float(request))
        return _pid()

    async def until(request, context):
        while not Path(request.decode()).exists():
            await asyncio.sleep(0.01)
        return _pid()

    async def fail(request, context):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")

    async def count(request, context):
        for number in range(int(request)):
            yield str(number).encode()

    async def add(requests, context):
        return str(sum([int(request) async for request in requests])).encode()

    async def echo(requests, context):
        async for request in requests:
            yield request

    async def crash(request, context):
        os._exit(3)

    _add(server, methods_of(who, sleep, until, fail, count, add, echo, crash))


def register_threads(server):
    def who(request, context):
        return _pid()

    def sleep(request, context):
        time.sleep(float(request))
        return _pid()

    def until(request, context):
        while not Path(request.decode()).exists():
            time.sleep(0.01)
        return _pid()

    def fail(request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")

    def count(request, context):
        for number in range(int(request)):
            yield str(number).encode()

    def add(requests, context):
        return str(sum(int(request) for request in requests)).encode()

    def echo(requests, context):
        yield from requests

    def crash(request, context):
        os._exit(3)

    _add(server, methods_of(who, sleep, until, fail, count, add, echo, crash))


def methods_of(who, sleep, until, fail, count, add, echo, crash):
    return {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Until": grpc.unary_unary_rpc_method_handler(until),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Add": grpc.stream_unary_rpc_method_handler(add),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Crash": grpc.unary_unary_rpc_method_handler(crash),
    }


@asynccontextmanager
async def with_life(server):
    register(server)
    notes = Path(os.environ["TEST_NOTES"])
    with notes.open("a") as file:
        file.write("begin\n")
    yield
    with notes.open("a") as file:
        file.write("end\n")


def broken(server):
    raise LookupError("no database at hand")
