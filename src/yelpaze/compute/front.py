"""What the parent of a worker's fronts knows of them: it never imports gRPC."""

from typing import TYPE_CHECKING, Any

import msgspec

from yelpaze.compute.protocol import Target

if TYPE_CHECKING:
    from yelpaze.grpc.process import Server


class FrontOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a front is told; see `Processes` and `serving.options`.

    `workers` processes are behind all `fronts` together. `exports` gives Exports.
    """

    exports: Target
    workers: int
    fronts: int = 1
    batch: int = 64
    recycle: int | None = None
    max_message: int = 64 << 20


def served(options: FrontOptions, server: "Server") -> Any:
    """For `serve`'s `register`, in each process."""
    from yelpaze.compute.service import serving  # noqa: PLC0415  it imports gRPC

    return serving(options, server)
