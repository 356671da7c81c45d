"""Settings from environment variables: YELPAZE_SECTION__NAME, with two underscores between names."""

import re
from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from yelpaze.config.convert import Mistake, is_struct, kind_at

_SPLIT = "__"


def variable_of(section: str, path: str) -> str:
    """The variable of a setting.

    >>> variable_of("live", "client.token.issuer")
    'YELPAZE_LIVE__CLIENT__TOKEN__ISSUER'
    """
    return f"YELPAZE_{section}__{path.partition('[')[0].replace('.', _SPLIT)}".upper()


def variable_at(section: str, path: str, environment: Mapping[str, str]) -> str:
    """The shortest variable that sets this or something in it; empty if there is none."""
    start = variable_of(section, path)
    return min((name for name in environment if path and name.startswith(start)), key=len, default="")


def from_environment(
    section: str, kind: Any, environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Mistake]]:
    """A section's settings, and what is wrong. Lists are separated by commas, or JSON.

    >>> from yelpaze.config.values import Settings
    >>> class Example(Settings, frozen=True):
    ...     port: int = 0
    >>> from_environment("live", Example, {"YELPAZE_LIVE__PORT": "8000"})
    ({'port': '8000'}, [])
    """
    prefix = f"YELPAZE_{section.upper()}{_SPLIT}"
    found: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for variable, text in sorted(environment.items()):
        if not variable.startswith(prefix):
            if variable.startswith(prefix.removesuffix("_")):
                hint = f"{prefix}SECTION__NAME"
                mistakes.append(Mistake(variable, f"names are separated by two underscores: {hint}"))
            continue
        *sections, name = names = variable.removeprefix(prefix).lower().split(_SPLIT)
        if not all(names):
            mistakes.append(Mistake(variable, f"names no setting: {prefix}SECTION__NAME"))
            continue
        place: Any = found
        for number, one in enumerate(sections, 1):
            place = place.setdefault(one, {})
            if not isinstance(place, dict):  # sorted, so the value of a section comes before what is in it
                value = variable_of(section, ".".join(sections[:number]))
                mistakes.append(Mistake(value, "is a section, and has no value of its own"))
                found.pop(sections[0])
                break
        else:
            try:
                place[name] = _value(text, kind_at(kind, ".".join(names)))
            except msgspec.DecodeError as error:
                mistakes.append(Mistake(variable, f"is no JSON: {error}"))
    return found, mistakes


def _value(text: str, kind: Any) -> Any:
    """A section as JSON, a list as JSON or words, or text."""
    is_list = get_origin(kind) is tuple
    if (is_list and text.startswith("[")) or (is_struct(kind) and text.startswith("{")):
        return msgspec.json.decode(text)
    return [item for item in re.split(r"[ ,]+", text) if item] if is_list else text
