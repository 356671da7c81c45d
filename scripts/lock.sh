#!/bin/sh
# Lock every Python package that tests, lint and benches use, with hashes: run it after
# changing pyproject.toml. Needs `uv` (pip install uv); installing from the lock does not.
set -eu
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --all-extras --group dev --group rivals \
  --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-annotate \
  --no-header --quiet --output-file requirements/dev.lock "$@"
