"""What a test needs beyond the base install: an absent server or extra skips it, and fails it in CI."""

import os
from importlib.util import find_spec

import pytest


def absent(what: str) -> None:
    """Skip for a server that is not installed; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must run this test")
    pytest.skip(f"{what} is not installed")


def needs(*modules: str) -> None:
    """Skip where an extra is not installed; in CI that is a failure."""
    for module in modules:
        if find_spec(module) is None:
            absent(module)
