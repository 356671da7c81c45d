# ruff: noqa: N802  methods are named as their calls
"""python grpcio_sync.py PORT: grpc's examples/python/helloworld/greeter_server.py, its call empty."""

import logging
import sys
from concurrent import futures

import calls_pb2
import calls_pb2_grpc
import grpc


class Calls(calls_pb2_grpc.CallsServicer):
    def Empty(self, request: calls_pb2.Nothing, context: grpc.ServicerContext) -> calls_pb2.Nothing:
        return calls_pb2.Nothing()


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    calls_pb2_grpc.add_CallsServicer_to_server(Calls(), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    logging.basicConfig()
    serve()
