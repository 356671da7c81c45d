"""Loads a service's settings: flags over environment over file."""

import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from yelpaze.config.convert import Mistake, convert
from yelpaze.config.document import Document
from yelpaze.config.environment import from_environment, variable_at
from yelpaze.model.errors import InputError

S = TypeVar("S", bound=msgspec.Struct)
SECTIONS = ("bus", "hooks", "live", "monitor")


def _no_mistake(_: object) -> Iterable[Mistake]:
    return ()


class Schema(Generic[S]):
    """The settings of a service.

    Args:
        section: The service's name: of its section in a file for several services, and in variables.
        kind: The struct.
        check: What is wrong beyond what types can say.
        elsewhere: Settings that users of other tools look for, and where they are here.

    """

    def __init__(
        self,
        section: str,
        kind: type[S],
        check: Callable[[S], Iterable[Mistake]] = _no_mistake,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.section = section
        self.kind = kind
        self._check = check
        self._elsewhere = elsewhere or {}

    def convert(self, settings: Mapping[str, Any]) -> tuple[S | None, list[Mistake]]:
        """The struct, or None and all that is wrong."""
        value, mistakes = convert(self.kind, settings, self._elsewhere)
        if value is not None:
            # A wrong value has been replaced by its default, which says nothing of the section's others.
            spoiled = {_top(mistake) for mistake in mistakes if not mistake.is_name}
            mistakes += [mistake for mistake in self._check(value) if _top(mistake) not in spoiled]
        return (None if mistakes else value), mistakes

    def of(self, settings: Mapping[str, Any]) -> S:
        """The struct. Raises InputError."""
        value, mistakes = self.convert(settings)
        if value is None:
            raise InputError("\n".join(map(str, mistakes)))
        return value


def load(
    schema: Schema[S],
    source: Path | Mapping[str, Any] | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> S:
    """A service's settings.

    `source` is a file, or settings as they stand in one. A file may hold the settings of one service, or
    those of several as sections named after them.

    Raises InputError with all mistakes, a line each: with file and line, or variable.
    """
    document = Document(source) if isinstance(source, Path) else None
    if document is not None:
        _enter(document, schema)
    values = document.values if document is not None else source if isinstance(source, Mapping) else {}
    above, mistakes = from_environment(schema.section, schema.kind, environment)
    messages = [str(mistake) for mistake in mistakes]
    found, mistakes = schema.convert(merged(merged(values, above), flags))
    if document is not None:
        mistakes.sort(key=lambda one: document.line_of(one.path))
    for mistake in mistakes:
        variable = variable_at(schema.section, mistake.path, environment)
        if variable:
            messages.append(f"{variable}: {mistake}")
        elif document is not None and not _has(flags, mistake.path):
            messages.append(f"{document.place_of(mistake.path)}: {mistake}")
        else:
            messages.append(str(mistake))
    if messages or found is None:
        raise InputError("\n".join(messages))
    return found


def _has(settings: Mapping[str, Any], path: str) -> bool:
    """Whether these settings set that one, or something in it."""
    place: Any = settings
    for name in path.partition("[")[0].split("."):
        if not isinstance(place, Mapping) or name not in place:
            return False
        place = place[name]
    return True


def _top(mistake: Mistake) -> str:
    return mistake.path.partition(".")[0]


def _enter(document: Document, schema: Schema[Any]) -> None:
    """If the file is for several services, go on with this one's section."""
    fields = {field.encode_name for field in msgspec.structs.fields(schema.kind)}
    known = list(dict.fromkeys((*SECTIONS, schema.section)))
    if not any(name in known for name in document.values):
        return
    for name in document.values:
        if name in fields:
            what = f"stands beside sections of services: put it into {schema.section}"
            raise InputError(f"{document.place_of(str(name))}: {name}: {what}")
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"{document.place_of(str(name))}: {name}: there is no such section; {hint}")
    document.enter(schema.section)
    if not isinstance(document.values, Mapping):
        raise InputError(f"{document.place_of('')}: {schema.section}: is a section of settings")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings: sections are merged, values and lists replaced.

    A secret and the file that it is read from replace each other.
    """
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[name] = merged(old, value)
            continue
        result.pop(f"{name}_file", None)
        if isinstance(name, str) and name.endswith("_file"):
            result.pop(name.removesuffix("_file"), None)
        result[name] = value
    return result
