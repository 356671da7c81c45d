"""Name the public functions that no test has called, from the data of `make coverage`.

A function counts as public if neither its name nor a name above it begins with an underscore. Bodies
without a statement (Protocols, overloads) can't be called.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def report():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", path], check=True)
        return json.loads(path.read_text())


def uncalled(found):
    for file, lines in sorted(found["files"].items()):
        for name, function in lines["functions"].items():
            is_public = name and not any(part.startswith("_") for part in name.split("."))
            if is_public and function["missing_lines"] and not function["executed_lines"]:
                yield f"{file}:{function['missing_lines'][0]}: {name}"


def main():
    names = list(uncalled(report()))
    print(*names, sep="\n")
    print(f"{len(names)} public functions are called by no test", file=sys.stderr)


if __name__ == "__main__":
    main()
