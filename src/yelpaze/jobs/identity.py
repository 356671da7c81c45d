"""What a run is recognised by: its flow's files, its input, and what was asked of it."""

from typing import Any

from yelpaze.compute.source import files_of
from yelpaze.flow.plan import Plan
from yelpaze.io.protocol import Source

_WORDS = {"changed": "time of change", "ends": "content"}


def identity_of(plan: Plan, source: Source, *, sample: int | None) -> dict[str, Any]:
    """All of it, as a JSON value."""
    return {
        "flow": {"name": plan.name, "files": files_of(plan.file)},
        "input": source.identity(),
        "sample": sample,
    }


def changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """What is no longer as it was, by its name for --accept-changed, in words."""
    found = {}
    if old["flow"] != new["flow"]:
        before, after = old["flow"]["files"], new["flow"]["files"]
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        found["flow"] = f"the flow is another one ({', '.join(names) or new['flow']['name']})"
    if old["input"] is None or new["input"] is None:
        found["input"] = (
            "the input can't be read twice: it is standard input, or an iterable without input_id"
        )
    elif not is_same_input(old, new):
        found["input"] = f"the input is another one ({_input_changes(old['input'], new['input'])})"
    if old["sample"] != new["sample"]:
        found["sample"] = f"--sample was {old['sample'] or 'not given'}"
    return found


def is_same_input(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the input can be gone on with; by which path it is named does not count."""
    before, after = old["input"], new["input"]
    return None not in (before, after) and list(map(_marks, before)) == list(map(_marks, after))


def _marks(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "file"}


def _input_changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    if len(old) != len(new):
        return f"{len(new)} inputs, not {len(old)}"
    words = []
    for before, after in zip(old, new, strict=True):
        names = _marks({**before, **after})
        different = [name for name in names if before.get(name) != after.get(name)]
        if different:
            where = after.get("file") or after.get("table") or after.get("input") or "query"
            named = ", ".join(_WORDS.get(name, name) for name in different)
            was = before.get("file")
            other = f", it was {was}" if was and was != after.get("file") else ""
            words.append(f"{where}{other}: another {named}")
    return "; ".join(words)
