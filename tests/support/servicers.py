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


RAISED = {
    "ValueError": ValueError("order 17 has no lines"),
    "SystemExit": SystemExit("order 17 has no lines"),
    "KeyboardInterrupt": KeyboardInterrupt("order 17 has no lines"),
    "CancelledError": asyncio.CancelledError("order 17 has no lines"),
    "GeneratorExit": GeneratorExit("order 17 has no lines"),
    "StopIteration": StopIteration("order 17 has no lines"),
    "surrogate": ValueError("order 17 has no lines: \udcff"),
}


def register_raising(server):
    """A call that raises what its request names, and a stream that does after its first answer."""

    async def who(request, context):
        return _pid()

    async def fail(request, context):
        raise RAISED[request.decode()]

    async def fail_later(request, context):
        yield b"1"
        raise RAISED[request.decode()]

    _add_raising(server, who, fail, fail_later)


def register_raising_sync(server):
    def who(request, context):
        return _pid()

    def fail(request, context):
        raise RAISED[request.decode()]

    def fail_later(request, context):
        yield b"1"
        raise RAISED[request.decode()]

    _add_raising(server, who, fail, fail_later)


def _add_raising(server, who, fail, fail_later):
    methods = {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Raise": grpc.unary_unary_rpc_method_handler(fail),
        "RaiseLater": grpc.unary_stream_rpc_method_handler(fail_later),
    }
    _add(server, methods)


def register_noting(server):
    """Servicers that note when they begin and end, in the file that a request names."""

    def note(path, text):
        with Path(path).open("a") as file:
            file.write(f"{text}\n")

    async def abort(request, context):
        """`CODE path`: ends with that code. `forward CODE path`: as if another server had refused it."""
        *forward, code, path = request.decode().split()
        note(path, "begin")
        refused = (("yelpaze-refused-by", "another-1"),) if forward else ()
        await context.abort(grpc.StatusCode[code], "mine", trailing_metadata=refused)

    async def set_code(request, context):
        code, path = request.decode().split()
        note(path, "begin")
        context.set_code(grpc.StatusCode[code])

    def abort_in_thread(request, context):
        code, path = request.decode().split()
        note(path, "begin")
        context.abort(grpc.StatusCode[code], "mine")

    def set_code_in_thread(request, context):
        code, path = request.decode().split()
        note(path, "begin")
        context.set_code(grpc.StatusCode[code])
        return b""

    async def large(request, context):
        note(request.decode(), "begin")
        return bytes(1 << 20)

    def work(request, context):
        """`go path`: works until the file `go` is there, whether or not its client still is."""
        go, path = request.decode().split()
        note(path, "begin")
        while not Path(go).exists():
            time.sleep(0.01)
        note(path, "end")
        return b""

    methods = {
        "Abort": abort,
        "SetCode": set_code,
        "AbortInThread": abort_in_thread,
        "SetCodeInThread": set_code_in_thread,
        "Large": large,
        "Work": work,
    }
    _add(server, {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()})


def register_ticking(server):
    """A stream and a call that outlast their connection's age many times."""

    async def ticks(request, context):
        for number in range(int(request)):
            yield str(number).encode()
            await asyncio.sleep(0.1)

    async def sleep(request, context):
        await asyncio.sleep(float(request))
        return _pid()

    methods = {
        "Ticks": grpc.unary_stream_rpc_method_handler(ticks),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    }
    _add(server, methods)


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


class AsyncGuard(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation, details):
        return await continuation(details) if _has_token(details) else _refusing(is_async=True)


class Guard(grpc.ServerInterceptor):
    def intercept_service(self, continuation, details):
        return continuation(details) if _has_token(details) else _refusing(is_async=False)


def _has_token(details):
    return not details.method.startswith(f"/{SERVICE}/") or ("token", "good") in details.invocation_metadata


def _refusing(*, is_async):
    async def refuse_async(request, context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

    def refuse(request, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

    return grpc.unary_unary_rpc_method_handler(refuse_async if is_async else refuse)


def async_guards():
    return [AsyncGuard()]


def guards():
    return [Guard()]
