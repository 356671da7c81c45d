"""A settings file in YAML, TOML or JSON, by its ending."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yelpaze.model.errors import InputError
from yelpaze.model.extras import require

_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN))\Z"
    ),
}


class Document:
    """The contents of a settings file, with the lines of settings. Raises InputError.

    With `prefix`, paths are of settings in that section.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = ""
        self._text = _read(path)
        self.values: Mapping[str, Any] = _parsed(self._text, path)

    def enter(self, section: str) -> None:
        """Go on with one section of it."""
        self.prefix = section
        values = self.values.get(section)
        self.values = {} if values is None else values

    def place_of(self, path: str) -> str:
        """Where a setting stands: `live.yaml:12`, or only the file where lines can't be told (TOML)."""
        line = self.line_of(path)
        return f"{self.path}:{line}" if line else str(self.path)

    def line_of(self, path: str) -> int:
        """The line of a setting or, if it is not there, of what it would be in; 0 if it can't be told."""
        path = f"{self.prefix}.{path}".strip(".")
        if self.path.suffix == ".toml" or not path:
            return 0
        try:
            import yaml  # noqa: PLC0415  JSON can do without
        except ImportError:
            return 0
        try:
            node: Any = yaml.compose(self._text, yaml.SafeLoader)  # JSON is YAML, nearly always
        except yaml.YAMLError:
            return 0
        line = 0
        for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
            if isinstance(node, yaml.MappingNode) and name:
                found = next(((key, value) for key, value in node.value if key.value == name), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and number and int(number) < len(node.value):
                node = node.value[int(number)]
                line = node.start_mark.line + 1
            else:
                break
        return line


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None


def _parsed(text: str, path: Path) -> Mapping[str, Any]:
    if path.suffix == ".toml":
        found = _parsed_toml(text, path)
    elif path.suffix == ".json":
        found = _parsed_json(text, path)
    else:
        found = _parsed_yaml(text, path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no settings: sections with names and values are expected")
    return found


def _parsed_toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from None


def _parsed_json(text: str, path: Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise InputError(f"{path}: {name} is there twice")
            found[name] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: cannot be read as JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: cannot be read as JSON: it is nested too deeply") from None


def _parsed_yaml(text: str, path: Path) -> Any:
    require("yaml", "settings in YAML")
    import yaml  # noqa: PLC0415  an extra

    try:
        return yaml.load(text, _loader())  # noqa: S506  a safe loader that is strict
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InputError(f"{path}{line}: is no YAML: {_without_values(str(error.problem))}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {_without_values(str(error))}") from None


def _without_values(text: str) -> str:
    """A parser's words without what it quotes from the file, which may be a secret."""
    return re.sub(r"'[^']{2,}'", "'…'", text)  # not punctuation


def _loader() -> Any:
    """YAML's safe loader, but a key that is there twice is a mistake: the first would be lost in silence."""
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"{key.value} is there twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    # Numbers as in YAML 1.2: `23:00` is a text, in YAML 1.1 it is 1380.
    Loader.yaml_implicit_resolvers = {
        start: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in resolvers]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
