"""Flow files by their path on the command line: found, imported and checked."""

from pathlib import Path
from types import ModuleType

from yelpaze.flow.flow import Flow
from yelpaze.flow.handler import load_module
from yelpaze.model.errors import FlowError


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
    return load_module(path, f"yelpaze_flow_{path.stem}")
