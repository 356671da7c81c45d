"""Where the gateway's settings come from: flags over environment over file."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.live.config import Config
from yelpaze.live.settings import SettingError, config_of, from_environment, merged
from yelpaze.model.errors import InputError


def load(
    source: Path | Mapping[str, Any] | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """All settings. Raises InputError: with file, line and setting where a file is wrong."""
    path = source if isinstance(source, Path) else None
    text = _text(path) if path is not None else ""
    settings = dict(source) if isinstance(source, Mapping) else {}
    if path is not None:
        settings = _parsed(text, path)
        try:
            config_of(settings)
        except SettingError as error:
            raise InputError(f"{path}{_line(text, path, error.path)}: {error}") from None
    try:
        return config_of(merged(merged(settings, from_environment(environment)), flags))
    except SettingError as error:
        variable = "YELPAZE_LIVE__" + error.path.upper().replace(".", "__").partition("[")[0]
        meant = [name for name in environment if error.path and name.startswith(variable)]
        raise InputError(f"{min(meant, key=len)}: {error}" if meant else str(error)) from None


def broker_setting(text: str, name: str) -> dict[str, Any]:
    """`memory` or the address of a Redis, as a setting; `name` is what it was given as. Raises InputError."""
    if text == "memory":
        return {"broker": {"type": "memory"}}
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise InputError(f"{name} {text!r} is neither memory nor redis://host:port")
    return {"broker": {"type": "redis", "redis": {"address": text}}}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text in UTF-8") from None


def _parsed(text: str, path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415  a part of the extra `live`

    try:
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text)
        elif path.suffix == ".json":
            found = msgspec.json.decode(text)
        else:
            found = yaml.load(text, _loader())  # noqa: S506  a safe loader that is strict
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InputError(f"{path}{line}: is no YAML: {error.problem}") from None
    except (yaml.YAMLError, tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no settings: sections such as client: and channel: are expected")
    return found


def _loader() -> Any:
    """YAML's safe loader, but a key that is there twice is a mistake: the first would be lost in silence."""
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} is there twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _line(text: str, path: Path, place: str) -> str:
    """`:12`, the line of a setting in YAML or JSON; nothing if it can't be told."""
    import yaml  # noqa: PLC0415

    if path.suffix == ".toml" or not place:
        return ""
    node: Any = yaml.compose(text, yaml.SafeLoader)
    line = 0
    for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        if isinstance(node, yaml.MappingNode) and name:
            found = next(((key, value) for key, value in node.value if key.value == name), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and number and int(number) < len(node.value):
            node = node.value[int(number)]
            line = node.start_mark.line
        else:
            break
    return f":{line + 1}"
