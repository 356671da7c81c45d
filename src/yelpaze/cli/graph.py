"""`yelpaze graph FLOW`."""

from pathlib import Path

import click

from yelpaze.flow.drawing import mermaid, svg
from yelpaze.flow.loading import find
from yelpaze.model.errors import InputError


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
    text = svg(find(flow).plan) if is_svg else mermaid(find(flow).plan)
    if output is None or output == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
