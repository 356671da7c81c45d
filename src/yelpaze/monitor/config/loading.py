"""Files to a `MonitorConfig`, or every mistake with file and line."""

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.config.convert import convert
from yelpaze.config.environment import from_environment, variable_at
from yelpaze.config.loader import merged
from yelpaze.model.errors import InputError
from yelpaze.monitor.config.files import Files
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.config.reader import Reader
from yelpaze.monitor.config.settings import (
    MonitorSettings,
)
from yelpaze.monitor.config.texts import as_texts

_MOST_SHOWN = 50
_OF_FLAGS = ("YELPAZE_MONITOR__STORE", "YELPAZE_MONITOR__URL")  # no settings: flags of the commands


def load_monitor(given: list[Path], environment: Mapping[str, str] = os.environ) -> MonitorConfig:
    """The configuration in these files and folders. Raises InputError with all mistakes, a line each."""
    environment = {name: text for name, text in environment.items() if name not in _OF_FLAGS}
    files = Files(given, environment, "monitor")
    above, mistakes = from_environment("monitor", MonitorSettings, environment)
    settings, wrong = convert(MonitorSettings, merged(as_texts(files.values), above), {})
    reader = Reader(files.paths[0].parent if files.paths else Path())

    def place_of(path: str) -> str:
        return variable_at("monitor", path, environment) or files.place_of(path)

    if settings is not None:
        # A wrong value has been replaced by its default, which says nothing of the others.
        spoiled = {mistake.path for mistake in [*wrong, *files.mistakes] if not mistake.is_name}
        found = reader.read(settings)
        mistakes += [one for one in reader.mistakes if one.path not in spoiled]
    mistakes += [*files.mistakes, *wrong]
    if mistakes or settings is None:
        places = (
            (variable_at("monitor", one.path, environment) or files.place_of(one.path), one)
            for one in mistakes
        )
        shown = sorted({(place, str(one)) for place, one in places}, key=_by_line)
        lines = [f"{place}: {text}" if place else text for place, text in shown]
        more = [f"and {len(lines) - _MOST_SHOWN} more"] if len(lines) > _MOST_SHOWN else []
        raise InputError("\n".join([*lines[:_MOST_SHOWN], *more]))
    return _hashed(found, settings)


def config_of(settings: Mapping[str, Any]) -> MonitorConfig:
    """The configuration of settings as they stand in a file. Raises InputError.

    >>> site = {"name": "a", "url": "http://a.test", "conditions": ["[STATUS] == 200"]}
    >>> config = config_of({"endpoints": [site]})
    >>> list(config.checks)
    ['_a']
    """
    found, mistakes = convert(MonitorSettings, as_texts(settings), {})
    reader = Reader(Path())
    config = reader.read(found) if found is not None else None
    if config is None or mistakes or reader.mistakes:
        raise InputError("\n".join(map(str, [*mistakes, *reader.mistakes])))
    return _hashed(config, found)


def _hashed(config: MonitorConfig, settings: MonitorSettings | None) -> MonitorConfig:
    """The configuration with the hash of its settings and checks, which targets bring as well."""
    hashed = blake2b(msgspec.json.encode(settings, order="sorted", enc_hook=repr), digest_size=6)
    for key, check in config.checks.items():
        hashed.update(f"\n{key} {check.url}".encode())
    return msgspec.structs.replace(config, hash=hashed.hexdigest())


def _by_line(one: tuple[str, str]) -> tuple[str, int, str]:
    place, _, line = one[0].rpartition(":")
    return (place, int(line), one[1]) if line.isdigit() else (one[0], 0, one[1])
