"""Server reflection, so that clients such as buf curl and grpcurl need no .proto file."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

SERVICE = reflection.SERVICE_NAME
_CLIENTS = 4  # at once, where servicers run in threads: each holds one as long as it likes


def add_reflection(services: Iterable[str], server: Any, *, is_async: bool) -> None:
    """Tell of these services."""
    servicer = _servicer(
        list(services), reflection.aio.ReflectionServicer if is_async else reflection.ReflectionServicer
    )
    if not is_async:
        info = servicer.ServerReflectionInfo

        def info_aside(requests: Any, context: Any) -> Any:
            return info(requests, context)

        # Not in the servicers' threads: a client that keeps its stream open would hold one of them.
        info_aside.experimental_thread_pool = ThreadPoolExecutor(_CLIENTS, "yelpaze-reflection")  # type: ignore[attr-defined]
        servicer.ServerReflectionInfo = info_aside
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(servicer, server)


def _servicer(services: list[str], base: Any) -> Any:
    class Servicer(base):  # type: ignore[misc]
        def _file_containing_symbol(self, request: Any, name: str) -> Any:
            found = super()._file_containing_symbol(request, name)
            if not found.HasField("error_response"):
                return found
            # Methods are symbols, too, but protobuf's pool does not know them: grpc/grpc#34743.
            return super()._file_containing_symbol(request, name.rpartition(".")[0])

    return Servicer(services)
