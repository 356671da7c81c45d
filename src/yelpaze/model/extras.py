"""Which parts need more than the base install, and how to get it."""

import functools
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from yelpaze.model.errors import MisuseError

# The modules that each extra installs.
_EXTRAS = {
    "grpc": ("grpc", "grpc_health", "grpc_reflection", "google.protobuf"),
    "hooks": ("aiosmtplib", "cryptography", "fastapi", "httptools", "uvicorn", "uvloop", "yaml"),
    "live": ("httptools", "jwt", "yaml", "uvloop"),
    "kafka": ("confluent_kafka",),
    "monitor": ("fastapi", "httptools", "jinja2", "uvicorn", "uvloop", "yaml"),
    "redis": ("redis",),
    "postgres": ("psycopg",),
    "parquet": ("pyarrow",),
    "zstd": ("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",),
    "brotli": ("brotli",),
    "bench": ("aiohttp", "requests", "trustme"),
    "yaml": ("yaml",),
}
_NAMED = {"yaml": "live"}


@functools.cache
def is_installed(extra: str) -> bool:
    """Whether all modules of the extra are there."""
    return all(map(_is_there, _EXTRAS[extra]))


def require(extra: str, what: str) -> None:
    """Raise MisuseError unless the extra is installed; `what` needs it.

    >>> require("grpc", "a worker")
    """
    if not is_installed(extra):
        name = _NAMED.get(extra, extra)
        raise MisuseError(f"{what} needs more than the base install: pip install 'yelpaze[{name}]'")


def zstd_module() -> Any:
    """`compression.zstd`, or its backport for Python before 3.14; after `require("zstd", …)`."""
    return import_module(_EXTRAS["zstd"][0])


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that is missing as a whole
        return False
