"""gRPC: servers and CPU workers in many processes, and clients that find the least busy process.

Needs the extra `grpc`: pip install 'yelpaze[grpc]'.
"""

from yelpaze.app.serving import serve
from yelpaze.compute.workers import Workers
from yelpaze.grpc.needed import grpc as _grpc  # noqa: F401  first: it tells what is missing
from yelpaze.grpc.options import Options
from yelpaze.grpc.target import Security
from yelpaze.model.errors import RemoteError

from yelpaze.compute.functions import Functions  # isort: skip
from yelpaze.grpc.channel import Channel  # isort: skip

__all__ = ["Channel", "Functions", "Options", "RemoteError", "Security", "Workers", "serve"]
