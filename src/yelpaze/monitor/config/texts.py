"""Numbers and flags as text, where YAML cannot know that text is wanted."""

from collections.abc import Mapping
from typing import Any


def as_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with text where text is wanted."""
    found = dict(values)
    for section in ("endpoints", "external-endpoints", "targets"):
        items = found.get(section)
        if isinstance(items, list):
            found[section] = [with_texts(one) if isinstance(one, dict) else one for one in items]
    alerting = found.get("alerting")
    if isinstance(alerting, dict):
        found["alerting"] = {
            name: {
                key: as_text(one) if key in ("id", "to", "topic") else one for key, one in provider.items()
            }
            if isinstance(provider, dict)
            else provider
            for name, provider in alerting.items()
        }
    return found


def with_texts(endpoint: dict[str, Any]) -> dict[str, Any]:
    """An endpoint with text where text is wanted."""
    found = _with_text_in(endpoint, ("name", "group", "body"))
    for name in ("headers", "extra-labels"):
        if isinstance(found.get(name), dict):
            found[name] = {key: as_text(one) for key, one in found[name].items()}
    return found


def as_text(value: Any) -> Any:
    """A plain value as the text that was written, as far as YAML has kept it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else "" if value is None else value


def _with_text_in(section: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: as_text(one) if name in names else one for name, one in section.items()}
