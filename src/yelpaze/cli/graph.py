"""`yelpaze graph FLOW`."""

from pathlib import Path

import click

from yelpaze.cli.running import own_stdout
from yelpaze.flow.drawing import mermaid, svg
from yelpaze.flow.loading import find
from yelpaze.model.errors import InputError

_ENDINGS = ("", ".svg", ".mmd", ".mermaid", ".md", ".txt")


@click.command("graph")
@click.argument("flow")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mermaid", "svg"]),
    help="[default: by FILE's ending, else mermaid]",
)
@click.option("-o", "--output", metavar="FILE", help="Write it there. [default: stdout]")
def command(flow: str, kind: str | None, output: str | None) -> None:
    """Draw the graph of FLOW: as Mermaid (Markdown of GitHub and GitLab shows it) or SVG."""
    is_svg = kind == "svg" or (kind is None and output is not None and output.endswith(".svg"))
    ending = "" if output is None else Path(output).suffix.lower()
    if ending not in _ENDINGS:
        raise InputError(
            f"{output}: there is no format {ending}: graphs are written as {', '.join(_ENDINGS[1:])}"
        )
    path = None if output in (None, "-") else Path(output).absolute()
    with own_stdout() as out:
        plan = find(flow).plan
        text = svg(plan) if is_svg else mermaid(plan)
        if path is None:
            click.echo(text, nl=False, file=out)
            return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
