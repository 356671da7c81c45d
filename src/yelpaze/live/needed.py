"""What the gateway needs beyond the base install, or a clear word that it is missing."""

from importlib.util import find_spec

from yelpaze.model.errors import MisuseError

_MODULES = ("httptools", "jwt", "yaml", "uvloop")


def check_extras() -> None:
    """Raise MisuseError unless the extra `live` is installed."""
    if any(find_spec(name) is None for name in _MODULES):
        raise MisuseError("the gateway needs more than the base install: pip install 'yelpaze[live]'")
