"""`yelpaze hooks serve` as schemathesis takes it from its own description."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.hooks_service import ADMIN_TOKEN, HooksService
from support.needed import needs

OPERATIONS = 42
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "use_after_free",
)
# JSON Schema's integers may end in ".0", ours may not.
HOOKS = """
import schemathesis

def whole(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value

@schemathesis.hook
def map_body(context, body):
    return whole(body)
"""


@pytest.fixture
def hooks(tmp_path):
    """It delivers to nobody: there is no allowance, and one attempt a message."""
    service = HooksService(tmp_path, allow=None, schedule="[0]")
    yield service
    service.stop()


def by_description(hooks, folder, examples, *flags):
    needs("schemathesis")
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text('hooks = "hooks"\n')
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{hooks.url}/openapi.json",
            "--header", f"Authorization: Bearer {ADMIN_TOKEN}", "--checks", ",".join(CHECKS),
            "--max-examples", str(examples), "--generation-deterministic", "--no-color", *flags,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{OPERATIONS} selected / {OPERATIONS} total" in done.stdout
    errors = [event for event in hooks.process.events() if event["level"] in ("error", "critical")]
    assert errors == []


def test_the_api_does_what_its_description_says(hooks, tmp_path):
    by_description(hooks, tmp_path, 2, "--phases", "examples,coverage,fuzzing")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_api_does_what_its_description_says_at_length(hooks, tmp_path):
    by_description(hooks, tmp_path, 100)
