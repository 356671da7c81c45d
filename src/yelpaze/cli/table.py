"""Tables on standard output."""

from collections.abc import Sequence

import click


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the first being the heads, in columns. No cell can control the terminal."""
    rows = [["".join(_shown(one) for one in cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # of a file's name that is no text (PEP 383): click shows it
    return character if character.isprintable() or is_byte else "\ufffd"
