"""Plain values to a settings struct, or every mistake with its place."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from yelpaze.config.values import Secret, from_text

S = TypeVar("S", bound=msgspec.Struct)
_FILE = "_file"


class Mistake(msgspec.Struct, frozen=True):
    """A mistake in a setting. `path` is its place: names, and numbers in lists, as in `a.b[0].c`."""

    path: str
    text: str
    is_name: bool = False  # of a setting that does not exist; otherwise of its value

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def convert(
    kind: type[S], settings: Mapping[str, Any], elsewhere: Mapping[str, str]
) -> tuple[S | None, list[Mistake]]:
    """The struct, and what is wrong. What is wrong has its default in the struct.

    `elsewhere` says of settings that other tools have at the top where they are here. The struct is None if
    something without a default is missing.
    """
    mistakes: list[Mistake] = []
    return _struct(kind, settings, "", mistakes, elsewhere), mistakes


def _struct(
    kind: Any, settings: Any, path: str, mistakes: list[Mistake], elsewhere: Mapping[str, str]
) -> Any:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if not isinstance(settings, Mapping):
        mistakes.append(Mistake(path, f"is a section: it takes settings such as {', '.join([*fields][:3])}"))
        return None
    found: dict[str, Any] = {}
    for name, value in settings.items():
        place = f"{path}.{name}" if path else str(name)
        field = fields.get(name)
        if field is not None:
            before = len(mistakes)
            converted = _value(field.type, value, place, mistakes)
            if converted is not None or len(mistakes) == before:
                found[field.name] = converted
        elif (secret := _secret_of(name, fields)) is not None:
            if secret in settings:
                mistakes.append(Mistake(place, f"give {secret} or {name}, not both"))
            found[secret] = _read(value, place, mistakes)
        elif name in elsewhere and not path:
            mistakes.append(Mistake(place, f"not here: {elsewhere[name]}"))
        else:
            mistakes.append(_unknown(name, fields, path))
    missing = [field for field in fields.values() if field.required and field.name not in found]
    meant = {near for name in settings if name not in fields for near in _near(name, fields)}
    mistakes += [
        Mistake(f"{path}.{field.encode_name}".strip("."), "is missing")
        for field in missing
        if field.encode_name not in settings and field.encode_name not in meant
    ]
    return None if missing else kind(**found)


def _unknown(name: Any, fields: Mapping[str, Any], path: str) -> Mistake:
    near = _near(name, fields)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(fields)}"
    shown = name if isinstance(name, str) and re.fullmatch(r"[\w-]+", name) else repr(name)
    return Mistake(f"{path}.{shown}" if path else shown, f"there is no such setting{hint}", is_name=True)


def _near(name: Any, fields: Mapping[str, Any]) -> list[str]:
    files = [f"{one}{_FILE}" for one, field in fields.items() if _is_secret(field.type)]
    return get_close_matches(str(name), [*fields, *files], 1)


def _value(kind: Any, value: Any, place: str, mistakes: list[Mistake]) -> Any:
    section = _section_of(kind)
    if section is not None:
        if value is None and section is not kind:
            return None
        return _struct(section, {} if value is None else value, place, mistakes, {})
    item = _item_of(kind)
    if item is not None and is_struct(item):
        if not isinstance(value, list | tuple):
            mistakes.append(Mistake(place, "is a list"))
            return ()
        found = [_struct(item, one, f"{place}[{number}]", mistakes, {}) for number, one in enumerate(value)]
        return tuple(one for one in found if one is not None)
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=from_text)
    except msgspec.ValidationError as error:
        text, _, inner = str(error).partition(" - at `$")
        values = get_args(kind) if get_origin(kind) is Literal else ()
        text = f"takes {', '.join(values)}: {text.lower()}" if values else text
        mistakes.append(Mistake(place + inner.rstrip("`"), text))
        return None


def is_struct(kind: Any) -> bool:
    """Whether a type is a section of settings."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _section_of(kind: Any) -> Any:
    """The struct of a type that is one, or one or nothing."""
    if get_origin(kind) in (Union, UnionType):
        return next((one for one in get_args(kind) if is_struct(one)), None)
    return kind if is_struct(kind) else None


def _item_of(kind: Any) -> Any:
    """The type of the items of a tuple of any length."""
    return get_args(kind)[0] if get_origin(kind) is tuple and get_args(kind) else None


def _is_secret(kind: Any) -> bool:
    return kind is Secret or (get_origin(kind) in (Union, UnionType) and Secret in get_args(kind))


def _secret_of(name: Any, fields: Mapping[str, Any]) -> str | None:
    """`key`, if this is `key_file` and `key` is a secret."""
    base = name.removesuffix(_FILE) if isinstance(name, str) and name.endswith(_FILE) else ""
    return base if base in fields and _is_secret(fields[base].type) else None


def _read(path: Any, place: str, mistakes: list[Mistake]) -> Secret:
    if not isinstance(path, str) or not path:
        mistakes.append(Mistake(place, "takes the path of a file"))
        return Secret()
    try:
        found = Secret(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        mistakes.append(Mistake(place, f"{Path(path).absolute()}: cannot be read: {error.strerror}"))
        return Secret()
    except UnicodeDecodeError:
        mistakes.append(Mistake(place, f"{path}: is not text in UTF-8"))
        return Secret()
    if not found:
        mistakes.append(Mistake(place, f"{path}: is empty"))
    return found


def kind_at(kind: Any, path: str) -> Any:
    """The type of the setting at a path; None if there is no such setting.

    >>> from yelpaze.config.values import Duration, Settings
    >>> class Example(Settings, frozen=True):
    ...     grace: Duration = Duration(30)
    >>> kind_at(Example, "grace")
    <class 'yelpaze.config.values.Duration'>
    """
    for name in re.findall(r"[^.\[\]]+", path):
        if not is_struct(kind):
            return None
        kind = next((one.type for one in msgspec.structs.fields(kind) if one.encode_name == name), None)
    return kind
