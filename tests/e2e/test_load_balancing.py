"""docs/how-to/load-balancing.md: its snippets run, its tables are what the script makes, its configurations hold."""

import os
import re
import subprocess
import sys

import pytest

from support.examples import EXAMPLES, proxies, spelling
from support.needed import absent

ROOT = EXAMPLES.parent
PAGE = (ROOT / "docs" / "how-to" / "load-balancing.md").read_text()
BALANCING = EXAMPLES / "load_balancing"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def server():
    """As the page starts it, on other ports."""
    with spelling(processes=4) as (port, first):
        yield port, first


@pytest.mark.parametrize("snippet", blocks("python"))
def test_snippets_run(snippet, server, tmp_path):
    port, first = server
    text = snippet.replace("50051", str(port))
    text = text.replace("range(50100, 50108)", f"range({first}, {first + proxies.SPARE_PORTS})")
    (tmp_path / "snippet.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "snippet.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES / "grpc_service")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("language", "file"), [("yaml", "envoy.yaml"), ("nginx", "nginx.conf")])
def test_settings_that_the_page_names_are_in_the_files(language, file):
    text = (BALANCING / file).read_text()
    named = "\n".join(blocks(language)).splitlines()
    assert named
    assert [line for line in named if line.strip() not in text] == []


def test_the_proxies_take_the_files_as_they_are(tmp_path):
    envoy, nginx = proxies.envoy(), proxies.nginx()
    if envoy is None or nginx is None:
        absent("Envoy or nginx")
    for command in (
        [envoy, "--mode", "validate", "-c", BALANCING / "envoy.yaml"],
        [nginx, "-t", "-p", tmp_path, "-c", BALANCING / "nginx.conf"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_the_tables_are_those_of_the_script():
    if proxies.envoy() is None or proxies.nginx() is None:
        absent("Envoy or nginx")
    command = [sys.executable, BALANCING / "balance.py", "--calls", "80"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\|[^|]*\|", done.stdout, re.MULTILINE)
    assert len(rows) > 15
    assert [row for row in rows if row not in PAGE] == []
