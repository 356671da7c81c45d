"""What docs/monitor.md says is so: its commands run, and its tables are those of the code."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.needed import needs
from support.ports import free_port
from support.services import Started
from yelpaze.bus.settings import BUS_SETTINGS
from yelpaze.cli.monitor import command as monitor_command
from yelpaze.config.environment import from_environment
from yelpaze.monitor.config.loading import config_of
from yelpaze.monitor.config.providers import NAMES
from yelpaze.monitor.config.settings import RetentionSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "monitor.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
(YAML,) = (block for language, block in BLOCKS if language == "yaml")
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "console"
    for line in re.findall(r"^\$ (.*)", block, re.MULTILINE)
]
ALONE = [line for language, block in BLOCKS if not language for line in re.findall(r"^yelpaze .*", block, re.MULTILINE)]  # fmt: skip
MODULE = f"{shlex.quote(sys.executable)} -m yelpaze"


def done(line, folder, **environment):
    """A command of the page, as its reader gives it."""
    return subprocess.run(
        line.replace("yelpaze", MODULE, 1), shell=True, cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_commands_run_in_the_order_of_the_page(tmp_path, shop):
    needs("fastapi", "jinja2")
    address = f"127.0.0.1:{free_port()}"
    token = {"YELPAZE_MONITOR__API__TOKEN": "secret", "YELPAZE_MONITOR__URL": f"http://{address}"}
    settings = YAML.replace("127.0.0.1:8099", shop.removeprefix("http://"))
    (tmp_path / "monitor.yaml").write_text(f"{settings}allow: [127.0.0.0/8]\n")
    service = None
    try:
        for line in COMMANDS:
            if line.startswith("yelpaze monitor run"):
                given = ["env", *(f"{name}={value}" for name, value in token.items())]
                command = [*given, sys.executable, "-m", *shlex.split(line), "--listen", address]
                service = Started(command, tmp_path)
                service.says("monitor at ")
                continue
            found = done(line, tmp_path, **token)
            assert found.returncode == 0, (line, found.stderr)
            if "silence --list" in line:
                assert "moving the database" in found.stdout
            if "topics" in line:
                assert "results" in found.stdout
        service.process.send_signal(signal.SIGTERM)
        assert service.ends() == 0
    finally:
        if service is not None:
            service.stop()


def test_the_file_of_the_page_needs_no_more():
    import yaml

    checks = config_of(yaml.safe_load(YAML)).checks
    assert [(check.group, check.name) for check in checks.values()] == [
        ("shop", "front page"),
        ("shop", "database"),
    ]


@pytest.mark.parametrize("line", ALONE)
def test_the_services_of_many_machines_are_commands(line, tmp_path):
    words = shlex.split(line)
    flags = [word for word in words if word.startswith("--")]
    found = done(shlex.join([*words[:3], "--help"]), tmp_path)
    assert found.returncode == 0, found.stderr
    assert all(re.search(rf"{flag}\b", found.stdout) for flag in flags)


def test_the_variables_of_the_bus_are_settings():
    names = set(re.findall(r"`(YELPAZE_BUS__\w+)`", TEXT)) | set(re.findall(r"`(YELPAZE_BUS__\w+)=", TEXT))
    values = {"REPLICATION": "3", "ENABLED": "true", "SIZE": "1GiB"}
    given = {name: values.get(name.rpartition("__")[2], "x") for name in names}
    settings, mistakes = from_environment("bus", BUS_SETTINGS.kind, given)
    assert len(names) >= 8
    assert not mistakes
    BUS_SETTINGS.of(settings)


def test_each_command_and_provider_is_named():
    named = set(re.findall(r"yelpaze monitor ([a-z]+)", TEXT))
    assert named == set(monitor_command.list_commands(None))
    told = TEXT.partition("They name a provider of `alerting`")[2].partition("They are delivered")[0]
    assert set(re.findall(r"`(\w+)`", told)) - {"alerting"} == {name for name in NAMES if "-" not in name}


def test_the_retention_is_that_of_the_text():
    days = 86_400
    said = re.search(r"for (\d+) days, sums by minute (\d+), by hour (\d+) days, by day (\d+) years", TEXT)
    found = RetentionSettings()
    results, minutes, hours, years = map(int, said.groups())
    assert (found.results, found.minutes, found.hours) == (results * days, minutes * days, hours * days)
    assert round(found.days / days / 365) == years
