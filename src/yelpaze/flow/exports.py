"""What `yelpaze worker` serves of a file or module: its flows' CPU steps, and its functions.

A module's functions are those of its top level that are defined in it and whose names don't begin
with an underscore. Anyone who reaches the worker can call them.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec

from yelpaze.compute.protocol import CallError, EntryPoint, Exports, Handler, Unit
from yelpaze.compute.source import files_of
from yelpaze.flow.codec import bytes_handler_of, unit_of
from yelpaze.flow.flow import Flow
from yelpaze.flow.loading import find, load_file
from yelpaze.model.errors import FlowError

_arguments = msgspec.msgpack.Decoder(tuple[list[Any], dict[str, Any]]).decode


def exports_of(spec: str) -> Exports:
    """Load `path.py`, `path.py:flow` or `package.module`. Raises FlowError."""
    found = _Found(spec)
    return Exports(found.units, EntryPoint("yelpaze.flow.exports:build_handler", (spec, found.units)))


def build_handler(spec: str, units: tuple[Unit, ...]) -> Handler:  # pragma: no cover  its process is killed
    """In a worker's process: load it again, and give the function that makes calls."""
    found = _Found(spec)
    ours = {unit.name: unit for unit in found.units}
    for expected in units:
        changed = expected.missing_in(ours[expected.name]) if expected.name in ours else [expected.name]
        if changed or list(ours) != [unit.name for unit in units]:
            names = ", ".join(changed) or spec
            raise FlowError(f"{spec}: {names}: changed since the worker began; SIGHUP has it begin anew")
    return found.handle


class _Found:
    """A loaded module, and how its functions are called."""

    def __init__(self, spec: str) -> None:
        flows, module = _loaded(spec)
        functions = _functions_of(module, flows) if module is not None else {}
        units = [unit_of(flow.plan) for flow in flows]
        units = [unit for unit in units if unit.functions]
        calls: list[Callable[[bytes], bytes]] = []
        for flow in flows:
            handle = bytes_handler_of(flow.plan)
            calls += [partial(handle, number) for number in range(len(unit_of(flow.plan).functions))]
        if module is not None and functions:
            path = Path(module.__file__ or "")
            units.append(Unit(_name_of(module, spec), tuple(functions), files_of(path)))
            calls += [_Function(name, function) for name, function in functions.items()]
        names = [unit.name for unit in units]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise FlowError(f"{spec}: two are called {twice.pop()!r}: give each a name of its own")
        if not units:
            raise FlowError(
                f"{spec}: there is nothing to serve: no flow with a @flow.compute step, no function"
            )
        self.units = tuple(units)
        self._calls = calls

    def handle(self, function: int, data: bytes) -> bytes:
        return self._calls[function](data)


def _loaded(spec: str) -> tuple[list[Flow], ModuleType | None]:
    """The flows, and the module whose functions are served; None if one flow was asked for."""
    if ".py:" in spec:
        flow = find(spec)
        flow.graph()
        return [flow], None
    module = load_file(Path(spec)) if spec.endswith(".py") else _imported(spec)
    flows = {id(value): value for value in vars(module).values() if isinstance(value, Flow)}
    for flow in flows.values():
        flow.graph()
    return list(flows.values()), module


def _imported(spec: str) -> ModuleType:
    if Path(spec).is_file():
        raise FlowError(f"{spec}: is no Python file: give `path.py`, or a module, `package.module`")
    if not all(part.isidentifier() for part in spec.split(".")):
        raise FlowError(
            f"{spec}: give a file, `path.py`, a flow in it, `path.py:name`, or a module, `package.module`"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(spec)
    except FlowError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a user's module raises
        raise FlowError(f"{spec}: cannot be imported: {type(error).__name__}: {error}") from None


def _functions_of(module: ModuleType, flows: Iterable[Flow]) -> Mapping[str, Callable[..., Any]]:
    """Those that anyone may call. Request steps are not for workers."""
    requests = {
        id(step.function) for flow in flows for step in flow.plan.steps.values() if not step.is_compute
    }
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and id(value) not in requests
        and not inspect.iscoroutinefunction(value)
        and not inspect.isgeneratorfunction(value)
    }


def _name_of(module: ModuleType, spec: str) -> str:
    return Path(spec).stem if spec.endswith(".py") else module.__name__


class _Function:
    """A module's function, called with bytes."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self._signature = inspect.signature(function)
        try:
            self._hints = get_type_hints(function)
        except Exception:  # noqa: BLE001  annotations are code; the arguments come as they are then
            self._hints = {}

    def __call__(self, data: bytes) -> bytes:
        try:
            positional, named = _arguments(data)
            bound = self._signature.bind(*positional, **named)
            for name, value in bound.arguments.items():
                bound.arguments[name] = self._converted(name, value)
        except (TypeError, msgspec.DecodeError) as error:  # a ValidationError is a DecodeError
            raise CallError("misuse", f"{self._name}: {error}") from None
        value = self._function(*bound.args, **bound.kwargs)
        try:
            return msgspec.msgpack.encode(value)
        except Exception as error:  # noqa: BLE001  encoding runs user code
            message = f"the value, a {type(value).__name__}, can't be sent as MessagePack: {error}"
            raise CallError("result", message) from None

    def _converted(self, name: str, value: Any) -> Any:
        wanted = self._hints.get(name, Any)
        kind = self._signature.parameters[name].kind
        if wanted is Any or kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            return value
        try:
            return msgspec.convert(value, wanted, strict=True, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise CallError(
                "validation", f"{self._name}: the argument {name!r} does not fit: {error}"
            ) from None
        except TypeError:  # a type that MessagePack has no values for: taken as it is
            return value
