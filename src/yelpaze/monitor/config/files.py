"""Settings from one file, several, or a folder: merged, with variables, and the place of each setting.

Maps are merged, lists appended; a value that stands in two files is a mistake. `$NAME` and `${NAME}` are
variables of the environment, `$$` is a dollar sign.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yelpaze.config.convert import Mistake
from yelpaze.config.document import Document
from yelpaze.model.errors import InputError

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([A-Za-z_]\w*))", re.ASCII)
_ENDINGS = (".yaml", ".yml")
_ANCHOR = re.compile(r"^([\w.-]+)[ \t]*:[ \t]*&", re.MULTILINE)


class Files:
    """The settings of files. Raises InputError for what cannot be read or merged.

    Attributes:
        values: All settings.
        paths: The files that were read.
        mistakes: Variables that are not set, by the path of their setting.

    """

    def __init__(self, given: list[Path], environment: Mapping[str, str], section: str) -> None:
        self.paths = _files(given)
        self.values: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []
        self._documents = [Document(path) for path in self.paths]
        self._lists: dict[str, list[tuple[Document, int]]] = {}  # where each file's items begin
        self._owner: dict[str, Document] = {}
        self._environment = environment
        for document in self._documents:
            if section in document.values and isinstance(document.values[section], dict):
                document.enter(section)
            anchors = set(_ANCHOR.findall(document.path.read_text(encoding="utf-8-sig")))
            values = {name: value for name, value in document.values.items() if name not in anchors}
            self._merge(self.values, values, document, "")

    def place_of(self, path: str) -> str:
        """Where a setting stands: `monitor.yaml:12`."""
        found = re.match(r"([^\[\]]+)\[(\d+)\](.*)", path)
        if found is not None and found[1] in self._lists:
            number = int(found[2])
            document, start = [one for one in self._lists[found[1]] if one[1] <= number][-1]
            return document.place_of(f"{found[1]}[{number - start}]{found[3]}")
        name = path
        while name:
            if name in self._owner:
                return self._owner[name].place_of(path)
            name = re.sub(r"(^|\.|\[)[^.\[]*$", "", name)
        return self._documents[-1].place_of(path) if self._documents else ""

    def _merge(self, into: dict[str, Any], values: Mapping[str, Any], document: Document, path: str) -> None:
        for name, value in values.items():
            place = f"{path}.{name}" if path else str(name)
            old = into.get(name)
            if isinstance(value, list):
                start = len(old) if isinstance(old, list) else 0
                self._lists.setdefault(place, []).append((document, start))
                expanded = [self._expand(one, f"{place}[{start + n}]") for n, one in enumerate(value)]
                into[name] = [*(old if isinstance(old, list) else []), *expanded]
            elif isinstance(value, Mapping) and isinstance(old, dict):
                self._merge(old, value, document, place)
                continue
            elif name in into:
                other = self._owner.get(place, document)
                where = f"{document.place_of(place)}: {place}"
                raise InputError(f"{where}: stands in {other.place_of(place)} already")
            elif isinstance(value, Mapping):
                into[name] = {}
                self._merge(into[name], value, document, place)
            else:
                into[name] = self._expand(value, place)
            self._owner.setdefault(place, document)

    def _expand(self, value: Any, path: str) -> Any:
        if isinstance(value, str) and "$" in value:
            return _VARIABLE.sub(lambda found: self._variable(found, path), value)
        if isinstance(value, list):
            return [self._expand(one, f"{path}[{number}]") for number, one in enumerate(value)]
        if isinstance(value, dict):
            return {name: self._expand(one, f"{path}.{name}") for name, one in value.items()}
        return value

    def _variable(self, found: re.Match[str], path: str) -> str:
        if found[1]:
            return "$"
        name = found[2] or found[3]
        if name not in self._environment:
            text = f"the variable {name} is not set; a dollar sign that is one is written $$"
            self.mistakes.append(Mistake(path, text))
        return self._environment.get(name, "")


def _files(given: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(one for one in path.rglob("*") if one.suffix in _ENDINGS and ".." not in str(one))
        if not inside:
            raise InputError(f"{path}: has no file that ends in .yaml or .yml")
        found += inside
    return found
