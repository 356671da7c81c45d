"""gRPC: servers in many processes on one port, and clients that find the least busy process.

Needs the extra `grpc`: pip install 'yelpaze[grpc]'.
"""

from yelpaze.app.serving import serve
from yelpaze.model.errors import MisuseError

try:
    from yelpaze.serving.channel import Channel
    from yelpaze.serving.peers import Security
except ImportError:
    raise MisuseError("gRPC needs more than the base install: pip install 'yelpaze[grpc]'") from None

__all__ = ["Channel", "Security", "serve"]
