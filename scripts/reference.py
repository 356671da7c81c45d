"""Write docs/reference.md from the code: every public name, every command's help, every setting.

python scripts/reference.py            writes it
python scripts/reference.py --check    fails if it is not what the code says
"""

import inspect
import json
import re
import sys
from pathlib import Path

import click
import msgspec

import yelpaze
from yelpaze import blocking, rpc, testing
from yelpaze.cli.main import cli
from yelpaze.config.values import Duration, Size
from yelpaze.hooks import settings as hooks_settings
from yelpaze.live import config

TARGET = Path(__file__).parents[1] / "docs" / "reference.md"


def signature_of(value: object) -> str:
    try:
        text = str(inspect.signature(value)).replace("'", "").replace("typing.", "")
        text = re.sub(r"<(?:class|built-in function) ([\w.]+)>", r"\1", text)
        text = re.sub(r"<function \S+ at 0x[0-9a-f]+>", "…", text)
        # The order within a set is not the same in every run.
        return re.sub(r"frozenset\(\{(.*?)\}\)", lambda m: f"{{{', '.join(sorted(m[1].split(', ')))}}}", text)
    except (TypeError, ValueError):
        return ""


def document(name: str, value: object, level: str) -> list[str]:
    doc = inspect.getdoc(value) or ""
    return [f"{level} `{name}`", "", f"```python\n{name}{signature_of(value)}\n```", "", doc, ""]


def names() -> list[str]:
    lines = ["## Python", ""]
    public = [(name, getattr(yelpaze, name)) for name in yelpaze.__all__]
    public += [(f"rpc.{name}", getattr(rpc, name)) for name in rpc.__all__]
    public.append(("blocking.Engine", blocking.Engine))
    public += [(f"testing.{name}", getattr(testing, name)) for name in testing.__all__]
    for name, value in public:
        if isinstance(value, str):
            continue
        lines += document(name, value, "###")
        if (
            inspect.isclass(value)
            and value.__module__.startswith("yelpaze")
            and not issubclass(value, BaseException)
        ):
            for member, function in vars(value).items():
                if inspect.isfunction(function) and not member.startswith("_") and function.__doc__:
                    lines += document(f"{name}.{member}", function, "####")
    return lines


def commands() -> list[str]:
    lines = ["## Commands", ""]

    def visit(path: list[str], command: click.Command) -> None:
        context = click.Context(command, info_name=" ".join(path), terminal_width=100)
        lines.extend([f"### `{' '.join(path)}`", "", "```", command.get_help(context), "```", ""])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None:
                    visit([*path, name], child)

    visit(["yelpaze"], cli)
    return lines


def meanings(struct: type) -> dict[str, str]:
    """What the comments beside the fields say."""
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind.__module__ in (config.__name__, hooks_settings.__name__):
            found |= re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(kind), re.MULTILINE)
    return found


def shown(value: object) -> str:
    """A default, as it stands in a file."""
    if value is msgspec.NODEFAULT:
        return "needed"
    if isinstance(value, Duration):
        hours, rest = divmod(value, 3600)
        return f"`{hours:g}h`" if hours and not rest else f"`{value:g}s`"
    if isinstance(value, tuple):
        return f"`[{', '.join(shown(one).strip('`') for one in value)}]`"
    if isinstance(value, str):  # secrets, too
        return f"`{json.dumps(str(value))}`"
    if isinstance(value, Size):
        return f"`{int(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else msgspec.json.encode(value).decode()}`"


def live_settings() -> list[str]:
    lines = ["## Live settings", ""]
    lines += [
        "Of `yelpaze live` and `Live`; *ours* are those that Centrifugo does not have.",
        "`channel.without_namespace` takes the same as a namespace, without a name. See [live](live.md).",
        "",
    ]
    return lines + tables(config.Config)


def hooks_settings_text() -> list[str]:
    lines = ["## Hooks settings", ""]
    lines += ["Of `yelpaze hooks` and `Hooks`. See [hooks](hooks.md).", ""]
    return lines + tables(hooks_settings.HooksSettings)


def inner_of(kind: object) -> object:
    """What a list or mapping holds; else the type itself."""
    arguments = getattr(kind, "__args__", None)
    return arguments[-1 if getattr(kind, "__origin__", None) is dict else 0] if arguments else kind


def tables(root: type[msgspec.Struct]) -> list[str]:
    lines: list[str] = []

    def table(path: str, struct: type[msgspec.Struct]) -> None:
        said = meanings(struct)
        rows, below = [], []
        for field in msgspec.structs.fields(struct):
            inner = inner_of(field.type)
            if inspect.isclass(inner) and issubclass(inner, msgspec.Struct):
                below.append((f"{path}.{field.name}".lstrip(".") + "[]" * (inner is not field.type), inner))
            else:
                meaning = said.get(field.name, "")
                choice = " \\| ".join(
                    f"`{one}`" for one in getattr(field.type, "__args__", ()) if isinstance(one, str)
                )
                text = f"{meaning}: {choice}" if choice else meaning
                text = re.sub(r"^ours: ", "*ours:* ", text)
                default = "`{}`" if field.default_factory is dict else shown(field.default)
                rows.append(f"| `{field.name}` | {default} | {text} |")
        if rows:
            heading = [f"### `{path}`", ""] if path else []
            lines.extend([*heading, (inspect.getdoc(struct) or "").replace("\n", " "), ""])
            lines.extend(["| setting | default | |", "|---|---|---|", *rows, ""])
        for name, inner in below:
            if name != "channel.without_namespace":  # the same as those of a namespace, but for its name
                table(name, inner)

    table("", root)
    return lines


def text() -> str:
    head = ["# Reference", "", "Made from the code by `python scripts/reference.py`; do not edit.", ""]
    parts = (head, names(), commands(), live_settings(), hooks_settings_text())
    return "\n".join(line.rstrip() for part in parts for line in part).rstrip() + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(TARGET.read_text() != text() and "docs/reference.md is old: run python scripts/reference.py")
    TARGET.write_text(text())
