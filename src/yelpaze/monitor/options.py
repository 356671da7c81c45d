"""The options of a monitor's process."""

from typing import Literal

import msgspec

from yelpaze.bus.settings import BusSettings
from yelpaze.grpc.address import Address

Role = Literal["probe", "store", "evaluate", "alarm", "web", "hooks"]


class MonitorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which services run, and on what.

    - `files`: settings files and folders. `locations`: where its probes are; all, if empty.
    - `hooks_store`: the store of hooks, if it is another one. `grace`: seconds for checks under way.
    """

    files: tuple[str, ...]
    bus: BusSettings
    store: str
    roles: tuple[Role, ...]
    address: Address | None = None
    locations: tuple[str, ...] = ()
    hooks_store: str = ""
    concurrency: int = 2000
    grace: float = 10.0
