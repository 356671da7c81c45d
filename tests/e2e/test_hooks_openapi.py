"""`yelpaze hooks serve` as schemathesis takes it from its own description."""

import json
import os
import subprocess
import sys
import urllib.request
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
)
# JSON Schema's integers may end in ".0", ours may not. Paths lead to what is there, but for what deletes it.
HOOKS = """
import json
import os
import schemathesis

IDS = json.loads(os.environ["IDS"])
DELETED = ("/app/{app_id}", "/endpoint/{endpoint_id}", "/event-type/{name}")

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

@schemathesis.hook
def map_path_parameters(context, path_parameters):
    operation = context.operation
    if operation.method.upper() == "DELETE" and operation.path.endswith(DELETED):
        return path_parameters
    return {name: IDS.get(name, value) for name, value in (path_parameters or {}).items()}
"""


@pytest.fixture
def hooks(tmp_path):
    service = HooksService(tmp_path, schedule="[0]")
    yield service
    service.stop()


@pytest.fixture
def ids(hooks, service):
    """Of an application, its endpoint, a message, an attempt and an event type."""
    app = hooks.app()
    endpoint = hooks.make(f"/app/{app}/endpoint", {"url": service.url})["id"]
    message = hooks.make(f"/app/{app}/msg", {"eventType": "invoice.paid", "payload": {"id": 1}})["id"]
    (attempt,) = hooks.attempts(app, message)
    hooks.make("/event-type", {"name": "invoice.paid", "description": "An invoice"})
    return {
        "app_id": app,
        "endpoint_id": endpoint,
        "msg_id": message,
        "attempt_id": attempt["id"],
        "name": "invoice.paid",
    }


def by_description(hooks, ids, folder, examples, *flags):
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
        env={**os.environ, "PYTHONPATH": str(folder), "IDS": json.dumps(ids)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{OPERATIONS} selected / {OPERATIONS} total" in done.stdout
    assert [event for event in hooks.process.events() if event["level"] in ("error", "critical")] == []


def test_the_api_does_what_its_description_says(hooks, ids, tmp_path):
    by_description(hooks, ids, tmp_path, 5, "--phases", "examples,coverage,fuzzing")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_api_does_what_its_description_says_at_length(hooks, ids, tmp_path):
    by_description(hooks, ids, tmp_path, 100)


# ── what chance does not find ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "template", "path", "body", "status"),
    [
        ("post", "/app", "/app", {"name": "Acme"}, 201),
        ("post", "/app", "/app?get_if_exists=true", {"name": "Acme", "uid": "acme"}, 201),
        ("put", "/app/{app_id}", "/app/new", {"name": "Acme"}, 201),
        ("put", "/app/{app_id}", "/app/{app_id}", {"name": "Acme"}, 200),
        (
            "put",
            "/app/{app_id}/endpoint/{endpoint_id}",
            "/app/{app_id}/endpoint/new",
            {"url": "https://example.com"},
            201,
        ),
        ("put", "/event-type/{name}", "/event-type/new", {"description": ""}, 200),
        ("post", "/app/{app_id}/endpoint", "/app/{app_id}/endpoint", {"url": "https://example.com"}, 201),
        ("post", "/event-type", "/event-type", {"name": "made", "description": ""}, 201),
        ("post", "/token", "/token", {}, 201),
    ],
)
def test_what_is_made_is_answered_by_a_status_that_is_declared(
    hooks, ids, method, template, path, body, status
):
    answer = hooks.ask(method.upper(), path.format(**ids), body)
    assert answer.status == status
    declared = description_of(hooks)["paths"][f"/api/v1{template}"][method]["responses"]
    assert str(status) in declared
    schema = declared[str(status)]["content"]["application/json"]["schema"]
    assert schema["$ref"].startswith("#/components/schemas/")


def description_of(hooks):
    with urllib.request.urlopen(f"{hooks.url}/openapi.json", timeout=30) as answer:
        return json.load(answer)
