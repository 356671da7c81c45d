"""gRPC: servers and CPU workers in many processes, and clients that find the least busy process.

Needs the extra `grpc`: pip install 'yelpaze[grpc]'.
"""

from yelpaze.model.extras import require as _require

_require("grpc", "yelpaze.rpc")

from yelpaze.app.serving import serve
from yelpaze.compute.functions import Functions
from yelpaze.compute.workers import Workers
from yelpaze.grpc.channel import Channel
from yelpaze.grpc.multi_process import MultiProcessServer
from yelpaze.grpc.options import Options
from yelpaze.grpc.target import Security
from yelpaze.model.errors import RemoteError

__all__ = [
    "Channel",
    "Functions",
    "MultiProcessServer",
    "Options",
    "RemoteError",
    "Security",
    "Workers",
    "serve",
]
