"""Loading a target and calling it safely, in whichever process."""

import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from yelpaze.compute.protocol import CallError, EntryPoint, Fault, Handler

_OURS = str(Path(__file__).parents[1])


def load(target: EntryPoint) -> Handler:
    """Import the target's module and build its handler."""
    module, _, name = target.path.partition(":")
    handler: Handler = getattr(import_module(module), name)(*target.arguments)
    return handler


def call(handler: Handler, function: int, payload: Any) -> tuple[Any, Fault | None]:
    """The value, or the fault; whatever user code raises ends here."""
    try:
        return handler(function, payload), None
    except CallError as error:
        return None, Fault(error.kind, str(error), source=error.source)
    except BaseException as error:  # noqa: BLE001  sys.exit() in a step, or a panic, fails its row, too
        return None, fault_of(error)


def fault_of(error: BaseException) -> Fault:
    """Describe an exception of user code, the traceback from the user's own frame on."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    lines = traceback.format_list(users or frames)
    lines += traceback.format_exception_only(type(error), error)  # copes with a broken __str__
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  user code, too
        text = ""
    return Fault("exception", f"{name}: {text}" if text else name, "".join(lines))
