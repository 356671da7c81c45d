"""Options of a worker's front processes. The parent process, which uses this module, never imports gRPC."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from yelpaze.compute.protocol import EntryPoint

if TYPE_CHECKING:
    from yelpaze.grpc.process import Server


_SERVICE = "yelpaze.compute.service"


class FrontOptions(msgspec.Struct, frozen=True, kw_only=True):
    """See `Processes` and `grpc.options`.

    `workers`: processes behind all `fronts` together. `exports`: the function that returns Exports.
    """

    exports: EntryPoint
    workers: int
    fronts: int = 1
    batch: int = 64
    recycle: int | None = None
    max_message: int = 64 << 20


def served(options: FrontOptions, server: "Server") -> Any:
    """The `register` function of a worker, called in each front process. It imports gRPC."""
    return import_module(_SERVICE).serving(options, server)
