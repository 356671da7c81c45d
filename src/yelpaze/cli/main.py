"""`yelpaze`: the command line. Each command is loaded when it is used."""

import errno
import importlib
import os
import sys
import traceback
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from yelpaze.cli.exits import Exit, code_of, show
from yelpaze.model.errors import StoppedError
from yelpaze.process.streams import prepare
from yelpaze.version import __version__

_COMMANDS = {
    "fetch": ("yelpaze.cli.fetch", "Fetch many URLs at once, as curl --parallel should."),
    "run": ("yelpaze.cli.run", "Run a flow over rows; run again, it goes on."),
    "retry": ("yelpaze.cli.retry", "Run the failed rows of a run again."),
    "runs": ("yelpaze.cli.runs", "List runs, show one, write its report."),
    "live": ("yelpaze.cli.live", "WebSocket and server-sent events to very many clients."),
    "monitor": ("yelpaze.cli.monitor", "Check sites from many places; incidents, alarms, a status page."),
    "bus": ("yelpaze.cli.bus", "Look into the bus: tail, topics, lag."),
    "hooks": ("yelpaze.cli.hooks", "Deliver signed webhooks, chat messages and mails, durably."),
    "worker": ("yelpaze.cli.worker", "Serve CPU functions to flows on other machines."),
    "check": ("yelpaze.cli.check", "Check a flow: its graph, types and policies."),
    "graph": ("yelpaze.cli.graph", "Draw a flow's graph."),
    "demo": ("yelpaze.cli.demo", "Local services with set delays and faults, to try things on."),
    "bench": ("yelpaze.cli.bench", "Measure on this machine."),
    "completion": ("yelpaze.cli.completion", "Completion of commands and flags for your shell."),
}


_UNWRITABLE = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EPIPE)


class _ReaderGoneError(Exception):
    """Nobody reads our standard output any more."""


class _Lazy(click.Group):
    """Knows the commands by name, and imports one when it is called."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1, which means that some items failed
            raise _ReaderGoneError from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, 1)
            hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(_COMMANDS)}"
            raise click.UsageError(f"there is no command {cmd_name!r}{hint}", ctx)
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = module.command
        _complete_files(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _complete_files(command: click.Command) -> None:
    """Let the shell complete file names wherever a parameter takes any text."""
    for parameter in command.params:
        if isinstance(parameter.type, click.types.StringParamType):
            parameter.shell_complete = _files  # type: ignore[method-assign, assignment]


def _files(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="yelpaze")
def cli() -> None:
    """Talk to very many things at once: call, compute, carry, deliver.

    Exit codes: 0 all well; 1 finished, some items failed; 2 misuse or bad input;
    3 could not go on; 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and leave with its exit code."""
    prepare()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # gRPC tells of every connection that a server closes
    try:
        code = cli.main(arguments, prog_name="yelpaze", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = Exit.MISUSE
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except _ReaderGoneError:
        # The reader of our stdout has gone; point it elsewhere, or the flush at exit fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.STOPPED
    except Exception as error:  # noqa: BLE001  all that is left
        code = _ended_by(error)
    sys.exit(int(code or 0))


def _ended_by(error: Exception) -> Exit:
    known = code_of(error)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        error = StoppedError(f"{error.filename or 'standard output'}: cannot be written: {error.strerror}")
        known = Exit.STOPPED
    if known is None:
        traceback.print_exception(error)
        error = StoppedError("this is a defect of Yelpaze: please report it with the lines above")
    show(error)
    return known or Exit.STOPPED


if __name__ == "__main__":
    main()
