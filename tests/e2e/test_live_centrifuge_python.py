"""The test-suite of centrifuge-python against the gateway, in JSON, with the settings that it asks of its server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.needed import absent, needs

SUITE = Path(__file__).parents[2] / ".cache" / "centrifuge_python-0.7.0"
COUNT = 62
SECONDS = 60


def settings():
    """What its docker-compose.yml says to Centrifugo, as our configuration file says it."""
    import yaml

    services = yaml.safe_load((SUITE / "docker-compose.yml").read_text())["services"]
    given = dict(line.split("=", 1) for line in services["centrifugo"]["environment"])
    del given["CENTRIFUGO_LOG_LEVEL"]
    names = given.pop("CENTRIFUGO_CHANNEL_NAMESPACES").split()
    spaces = {f"CHANNEL_NAMESPACES_{name.upper()}_": {"name": name} for name in names}
    token, personal, rest = {}, {}, {}
    places = {
        "CLIENT_TOKEN_": token,
        "CLIENT_SUBSCRIBE_TO_USER_PERSONAL_CHANNEL_": personal,
        "CHANNEL_WITHOUT_NAMESPACE_": rest,
        **spaces,
    }
    for variable, value in given.items():
        name = variable.removeprefix("CENTRIFUGO_")
        prefix = next(prefix for prefix in places if name.startswith(prefix))
        name = name.removeprefix(prefix).lower()
        places[prefix][name] = value.split() if name == "allowed_delta_types" else value
    return {
        "client": {"token": token, "subscribe_to_user_personal_channel": personal},
        "channel": {"without_namespace": rest, "namespaces": list(spaces.values())},
    }


@pytest.fixture(scope="module")
def config():
    needs("centrifuge", "websockets", "yaml")
    if not SUITE.exists():
        absent("the test-suite of centrifuge-python")
    return settings()


def run_suite(folder, address):
    """All its tests of the client; those that run in both encodings in JSON only."""
    shutil.copytree(SUITE / "tests", folder / "tests")
    places = encodings = 0
    for file in (folder / "tests").glob("*.py"):
        text = file.read_text()
        places += text.count("localhost:8000")
        encodings += text.count("in (False, True)")
        file.write_text(text.replace("localhost:8000", address).replace("in (False, True)", "in (False,)"))
    assert places
    assert encodings
    # Quite often it leaves connections open; that is no fault of the server.
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "tests.test_client"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    said = "\n".join(line for line in done.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line))
    assert done.returncode == 0, said
    assert f"Ran {COUNT} tests" in said
    assert "skipped" not in said


def test_its_suite_passes(config, gateways, tmp_path):
    run_suite(tmp_path, gateways(config).address)


@pytest.mark.slow
def test_its_suite_passes_with_two_processes_and_redis_between_them(config, gateways, redis, tmp_path):
    run_suite(tmp_path, gateways(config, "--broker", redis.url, "--processes", "2").address)
