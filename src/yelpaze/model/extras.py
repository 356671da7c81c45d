"""Which parts need more than the base install, and how to get it."""

from importlib.util import find_spec

from yelpaze.model.errors import MisuseError

# The modules that each extra installs.
_EXTRAS = {
    "grpc": ("grpc", "grpc_health", "grpc_reflection", "google.protobuf"),
    "live": ("httptools", "jwt", "yaml", "uvloop"),
    "redis": ("redis",),
    "postgres": ("psycopg",),
    "parquet": ("pyarrow",),
    "zstd": ("zstandard",),
    "bench": ("aiohttp", "requests", "trustme"),
    "yaml": ("yaml",),
}
_NAMED = {"yaml": "live"}


def require(extra: str, what: str) -> None:
    """Raise MisuseError unless the extra is installed; `what` needs it.

    >>> require("grpc", "a worker")
    """
    for module in _EXTRAS[extra]:
        try:
            is_there = find_spec(module) is not None
        except ModuleNotFoundError:  # of a package that is missing as a whole
            is_there = False
        if not is_there:
            name = _NAMED.get(extra, extra)
            raise MisuseError(f"{what} needs more than the base install: pip install 'yelpaze[{name}]'")
