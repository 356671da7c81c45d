"""Flow files: found, imported and checked, in this process and again in each worker."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from yelpaze.compute.protocol import CallError, Handler
from yelpaze.flow.arguments import Carried, opened
from yelpaze.flow.flow import Flow
from yelpaze.model.errors import FlowError


class FlowRef(msgspec.Struct, frozen=True):
    """Where a worker finds a flow: a file, the module name to load it under, the variable."""

    path: str
    module: str
    variable: str


def find(spec: str) -> Flow:
    """Load `path.py` or `path.py:name`. Raises FlowError for what cannot be used."""
    path_text, colon, name = spec.rpartition(":") if ".py:" in spec else (spec, "", "")
    path = Path(path_text)
    if path.suffix != ".py":
        raise FlowError(f"{spec}: a flow is a Python file: give `path.py` or `path.py:name`")
    module = load_file(path)
    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    if colon:
        if name not in flows:
            raise FlowError(f"{path}: there is no flow {name!r}; flows are: {', '.join(flows) or 'none'}")
        return flows[name]
    distinct = {id(flow): key for key, flow in flows.items()}
    if len(distinct) != 1:
        found = f"several flows: name one, `{path}:{next(iter(flows))}`" if flows else "no flow in it"
        raise FlowError(f"{path}: there {'are' if flows else 'is'} {found}")
    return next(iter(flows.values()))


def load_file(path: Path) -> ModuleType:
    """Run a Python file. Raises FlowError."""
    if not path.is_file():
        raise FlowError(f"{path}: there is no such file")
    return _load(path, f"yelpaze_flow_{path.stem}")


def _load(path: Path, name: str) -> ModuleType:
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FlowError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # modules beside the file, as `python path.py` would find them
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"{error.filename or path}:{error.lineno or 1}"
        raise FlowError(f"{place}: syntax error: {error.msg}") from None
    except FlowError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a user's file raises
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        raise FlowError(f"{path}{line}: cannot be imported: {type(error).__name__}: {error}") from None
    return module


def reference(flow: Flow) -> FlowRef:
    """How a worker process finds this flow again. Raises FlowError if it can't."""
    module = sys.modules.get(flow.module)
    names = [key for key, value in vars(module).items() if value is flow] if module else []
    if not names or not flow.file.is_file():
        raise FlowError(
            f"{flow.where}: worker processes can't find the flow {flow.name!r}: define it at the top "
            "level of a file, or run it with workers=0"
        )
    return FlowRef(str(flow.file.resolve()), flow.module, names[0])


def build_handler(ref: FlowRef) -> Handler:
    """In a worker: import the flow, and give the function that runs its CPU steps."""
    flow: Flow = getattr(_import_again(ref), ref.variable)
    return handler_of(flow)


def _import_again(ref: FlowRef) -> ModuleType:
    if ref.module == "__main__":
        # As multiprocessing does it: under another name, so that `if __name__ == "__main__"`
        # holds its fire, and under both, so that values can be pickled back.
        module = _load(Path(ref.path), "__mp_main__")
        sys.modules["__main__"] = module
        return module
    if ref.module.startswith("yelpaze_flow_"):
        return _load(Path(ref.path), ref.module)
    return importlib.import_module(ref.module)


def handler_of(flow: Flow) -> Handler:
    """Run CPU steps by number. Payload: (carried arguments, whether to encode the value as JSON)."""
    nodes = flow.graph().nodes
    functions: list[Callable[..., Any]] = [node.step.function for node in nodes]

    def handle(number: int, payload: tuple[list[Carried], bool]) -> Any:
        carried, as_json = payload
        value = functions[number](**opened(nodes[number], carried))
        return encoded(value) if as_json else value

    return handle


def encoded(value: Any) -> bytes:
    """The value as one line of JSON. Raises CallError if it has none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise CallError("result", f"the result cannot be written as JSON: {error}") from None
