#!/bin/sh
# Make the Python code of the published .proto files, and of the example's, anew: run it after changing one.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
(cd src && "../$python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
  yelpaze/grpc/processes.proto yelpaze/compute/worker.proto)
(cd examples/grpc_service && "../../$python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
  --grpc_python_out=. spelling.proto)
