"""`yelpaze check FLOW`."""

import click

from yelpaze.cli.policies import explain
from yelpaze.cli.running import own_stdout
from yelpaze.flow.checking import description, warnings
from yelpaze.flow.context import engine_for
from yelpaze.flow.loading import find

_ROWS = 256


@click.command("check")
@click.argument("flow")
def command(flow: str) -> None:
    """Check FLOW without running it: its graph, the types of its steps, and what holds for calls.

    What is wrong is told with file and line, with exit code 2.
    """
    with own_stdout() as out:
        found = find(flow)
        engine = engine_for(found.plan, concurrency=_ROWS)
        click.echo("\n".join([*description(found.plan), "", "policies:"]), file=out)
        click.echo("\n".join(f"  {line}" for line in explain(engine)), file=out)
        for warning in warnings(found.plan):
            click.echo(f"yelpaze: warning: {warning}", err=True)
