"""gRPC, or a clear word that it is missing."""

from yelpaze.model.errors import MisuseError

try:
    import grpc
except ImportError:
    raise MisuseError("gRPC needs more than the base install: pip install 'yelpaze[grpc]'") from None

__all__ = ["grpc"]
