"""What source code is recognised by."""

import sys
import sysconfig
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

_OURS = Path(__file__).parents[1]
_PYTHONS = Path(sysconfig.get_path("stdlib")).resolve()


def files_of(path: Path) -> dict[str, str]:
    """A hash of a file and of each module beside or below it that has been imported; by their places."""
    path = path.resolve()
    if not path.is_file():
        return {}
    found = {path, *_modules_in(path.parent)}
    return {
        str(file.relative_to(path.parent)): blake2b(file.read_bytes(), digest_size=12).hexdigest()
        for file in sorted(found)
    }


def _modules_in(folder: Path) -> Iterator[Path]:
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py"):
            continue
        file = Path(name).resolve()
        installed = (
            "site-packages" in file.parts or file.is_relative_to(_OURS) or file.is_relative_to(_PYTHONS)
        )
        if file.is_relative_to(folder) and file.is_file() and not installed:
            yield file
