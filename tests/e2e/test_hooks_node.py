"""`yelpaze hooks serve` by Svix's SDK for Node; what it sends, by the reference library of Standard Webhooks."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.hooks_service import ADMIN_TOKEN, HooksService
from support.needed import absent

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
PAYLOAD = {"id": "in_1", "text": "ümlaut ✓"}


@pytest.fixture
def hooks(tmp_path):
    for name in ("svix", "standardwebhooks"):
        if shutil.which("node") is None or not (MODULES / name).is_dir():
            absent(f"{name} for Node (scripts/servers.sh)")
    service = HooksService(tmp_path)
    yield service
    service.stop()


def test_the_sdk_for_node_sends_and_verifies(hooks):
    done = subprocess.run(
        ["node", str(ROOT / "tests" / "node" / "hooks.mjs"), hooks.url, ADMIN_TOKEN],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["svix"] == "nothing"
    assert found["standard"] == PAYLOAD
    assert found["hasId"] is True
    assert found["changed"] == found["verificationError"] == "WebhookVerificationError"
    assert found["attempt"] == ["success", 200, "thanks", True]
    assert found["attemptedAt"] is True
    assert found["rotated"] == ["in_1", "in_1"]
    assert found["differ"] is True
    assert found["pages"] == [2, 2, 1]
    status, body = found["notFound"]
    assert (status, body["code"]) == (404, "not_found")
    status, body = found["invalid"]
    assert (status, body["detail"][0]["loc"]) == (422, ["body", "eventType"])
    status, body = found["wrongToken"]
    assert (status, body["code"]) == (401, "authentication_failed")
