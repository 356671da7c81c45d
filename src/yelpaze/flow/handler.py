"""A flow in its worker processes: imported again by name, its CPU steps called by number."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from yelpaze.compute.protocol import Handler
from yelpaze.flow.arguments import Packed, encoded, unpack
from yelpaze.flow.plan import Plan
from yelpaze.model.errors import FlowError, MisuseError
from yelpaze.process.parenthood import loading

_FOLDER = "__yelpaze_folder__"


class FlowRef(msgspec.Struct, frozen=True):
    """Where a worker finds a flow: a file, the module name to load it under, the variable.

    `folder`: the working folder in which the file was imported, if a path on the command line named it.
    """

    path: str
    module: str
    variable: str
    folder: str | None = None


def load_module(path: Path, name: str) -> ModuleType:
    """Run a Python file as the module of that name. Raises FlowError."""
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FlowError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # modules beside the file, as `python path.py` would find them
    sys.modules[name] = module
    setattr(module, _FOLDER, str(Path.cwd()))
    try:
        with loading():
            spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"{error.filename or path}:{error.lineno or 1}"
        raise FlowError(f"{place}: syntax error: {error.msg}") from None
    except (FlowError, KeyboardInterrupt):
        raise
    except MisuseError as error:  # its message says all
        raise FlowError(f"{path}: cannot be imported: {error}") from None
    except BaseException as error:  # noqa: BLE001  whatever a user's file raises
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            what = f"it leaves the program: {what}"
        raise FlowError(f"{path}{line}: cannot be imported: {what}") from None
    return module


def reference(plan: Plan) -> FlowRef:
    """How a worker process finds this flow again. Raises FlowError if it can't."""
    module = sys.modules.get(plan.module)
    names = [key for key, value in vars(module).items() if value is plan.owner] if module else []
    if not names or not plan.file.is_file():
        raise FlowError(
            f"{plan.where}: worker processes can't find the flow {plan.name!r}: define it at the top "
            "level of a file, or run it with workers=0"
        )
    return FlowRef(str(plan.file.resolve()), plan.module, names[0], getattr(module, _FOLDER, None))


def build_handler(ref: FlowRef) -> Handler:
    """In a worker: import the flow, and give the function that runs its CPU steps."""
    if ref.folder is not None:
        os.chdir(ref.folder)  # the file may change it again
    plan: Plan = getattr(_import_again(ref), ref.variable).plan
    return handler_of(plan)


def _import_again(ref: FlowRef) -> ModuleType:
    if ref.module == "__main__":
        # As multiprocessing does it: under another name, so that `if __name__ == "__main__"`
        # holds its fire, and under both, so that values can be pickled back.
        module = load_module(Path(ref.path), "__mp_main__")
        sys.modules["__main__"] = module
        return module
    if ref.module.startswith("yelpaze_flow_"):
        return load_module(Path(ref.path), ref.module)
    return importlib.import_module(ref.module)


def handler_of(plan: Plan) -> Handler:
    """Run CPU steps by number. Payload: (packed arguments, whether to encode the value as JSON)."""
    nodes = plan.graph().nodes
    functions: list[Callable[..., Any]] = [node.step.function for node in nodes]

    def handle(number: int, payload: tuple[list[Packed], bool]) -> Any:
        packed, as_json = payload
        value = functions[number](**unpack(nodes[number], packed))
        return encoded(value) if as_json else value

    return handle
