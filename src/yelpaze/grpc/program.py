"""What a server's processes need to find the program again that started them."""

import pickle
import sys
from collections.abc import Callable, Sequence
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any, NamedTuple

from yelpaze.model.errors import MisuseError


class Program(NamedTuple):
    """A server's own code, as its processes find it."""

    register: Callable[..., Any]
    interceptors: Callable[[], Sequence[Any]] | None


def pickled(program: Program) -> bytes:
    """The program for other processes. Raises MisuseError if they can't find its functions."""
    for function in program:
        if function is not None:
            _check_findable(function)
    return pickle.dumps(program)


def _check_findable(register: Callable[..., Any]) -> None:
    inner = getattr(register, "func", register)  # of a partial
    if getattr(inner, "__module__", "") == "__main__" and not _main_has_file():
        raise MisuseError(
            f"{getattr(inner, '__qualname__', inner)} can't be found by other processes: a program from "
            "`python -c`, standard input or a notebook has no file; put it into a module, and import it"
        )
    try:
        pickle.dumps(register)
    except Exception as error:  # noqa: BLE001  pickling runs user code
        name = getattr(register, "__qualname__", repr(register))
        raise MisuseError(
            f"{name} can't be found by other processes: define it at the top level of a module "
            f"({type(error).__name__}: {error})"
        ) from None


def preparation() -> dict[str, Any]:
    """What a process needs to find this program's modules again, as multiprocessing does it."""
    found: dict[str, Any] = get_preparation_data("yelpaze")
    for name in ("authkey", "start_method"):
        found.pop(name, None)
    if not _main_has_file() or _is_ours(found):
        found.pop("init_main_from_name", None)
        found.pop("init_main_from_path", None)
    return found


def _main_has_file() -> bool:
    """Whether the program can be imported again; one from standard input is named `<stdin>`."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is not None and Path(path).exists()


def _is_ours(found: dict[str, Any]) -> bool:
    """Our own command line need not be imported again."""
    name = found.get("init_main_from_name") or ""
    path = Path(found.get("init_main_from_path") or "")
    return name.startswith("yelpaze.") or path.name == "yelpaze"
