"""`yelpaze completion SHELL`."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, flags and file names.

    \b
    bash: eval "$(yelpaze completion bash)"     in ~/.bashrc
    zsh:  eval "$(yelpaze completion zsh)"      in ~/.zshrc
    fish: yelpaze completion fish | source      in ~/.config/fish/config.fish
    """  # noqa: D301  click's mark for lines that stay apart
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "yelpaze", "_YELPAZE_COMPLETE").source())
