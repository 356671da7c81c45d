"""What the documents say is so: every snippet runs, every public name is there."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import yelpaze
from support.workers import worker

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("tutorial", "how-to", "policies", "fetch", "runs", "services", "testing")
    ),
    ROOT / "docs" / "how-to" / "workers.md",
]
COMMANDS = [
    pytest.param(block[1], id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, block in enumerate(re.finditer(r"```console\n(.*?)```", path.read_text(), re.DOTALL), 1)
    if re.search(r"yelpaze |buf ", block[1])
]
SNIPPETS = [
    pytest.param(match[1], id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, match in enumerate(re.finditer(r"```python\n(.*?)```", path.read_text(), re.DOTALL), 1)
    if "serve(register" not in match[1]  # test_services.py runs it until it is told to stop
]


@pytest.fixture(scope="module")
def loans():
    """The worker of docs/how-to/workers.md."""
    with worker(ROOT / "examples" / "remote_workers" / "flow.py", "--processes", "2") as found:
        yield found.address.removeprefix("grpc://")


@pytest.fixture
def here(request, shop):
    """Replaces the documents' addresses by those of the servers that run."""

    def replaced(text):
        text = text.replace("http://127.0.0.1:8099", shop)
        if "127.0.0.1:50051" in text:
            text = text.replace("127.0.0.1:50051", request.getfixturevalue("loans"))
        return text

    return replaced


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(snippet, here, tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(here(snippet))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", COMMANDS)
def test_commands_run(block, shop, here, tmp_path):
    """Each `$ ` line, in one folder; `# exit N` says where the code is not 0."""
    command = tmp_path / "bin" / "yelpaze"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SHOP": shop}
    for line in re.findall(r"^\$ (.*)", block, re.MULTILINE):
        if " demo serve" in line or line.startswith("yelpaze worker "):  # it is running
            continue
        codes = re.search(r"# exit (\d+(?: or \d+)*)", line)
        done = subprocess.run(
            here(line),
            shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert str(done.returncode) in (codes[1] if codes else "0").split(" or "), (line, done.stderr)


def test_the_pictures_are_what_the_code_does():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "pictures.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_first_example_prints_what_it_says(shop, tmp_path):
    text = (ROOT / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    said = re.search(r"It prints.*?```\n(.*?)```", text, re.DOTALL)[1]
    path = tmp_path / "first.py"
    path.write_text(snippet.replace("http://127.0.0.1:8099", shop))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == said


def test_the_reference_is_what_the_code_says():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def modules():
    return [info.name for info in pkgutil.walk_packages(yelpaze.__path__, "yelpaze.")]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_public_names_are_frozen():
    assert yelpaze.__all__ == [
        "AddressGuard", "Attempt", "Breaker", "Budget", "Connect", "Engine", "EngineCollector", "Error", "ErrorKind", "Failure",
        "FanOutError", "Flow", "FlowError", "Headers", "Hedge", "Hooks", "HostEvent", "HostPolicy", "HostStatistics",
        "InputError", "Job", "Limit", "Live", "MisuseError", "Outcome", "Request", "Response", "Result", "Retry",
        "Statistics", "StoppedError", "Summary", "Timeout", "Timings", "Tls", "YelpazeError", "__version__", "delete",
        "get", "head", "log_events", "open_telemetry", "patch", "post", "put", "request", "run", "timed",
    ]  # fmt: skip
    for name in yelpaze.__all__:
        assert getattr(yelpaze, name) is not None
    with pytest.raises(AttributeError):
        yelpaze.nothing  # noqa: B018


def test_importing_a_flow_loads_no_http_client():
    code = "import sys; from yelpaze import Flow, post; sys.exit('pycurl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_links_lead_somewhere():
    more = [*(ROOT / "docs" / "how-to").iterdir(), *ROOT.glob("examples/*/README.md")]
    more += [
        ROOT / "docs" / "live.md",
        ROOT / "docs" / "hooks.md",
        ROOT / "ARCHITECTURE.md",
        ROOT / "CHANGELOG.md",
    ]
    for path in [*DOCUMENTS, *more]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_architecture_fits_on_its_page():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 150


def test_the_table_of_extras_has_all_of_them():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (
        (ROOT / "docs" / "how-to.md")
        .read_text()
        .partition("## Install what you need")[2]
        .partition("\n## ")[0]
    )
    for name in extras:
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, tmp_path):
    command = [sys.executable, "-m", "yelpaze"]
    script = subprocess.run(
        [*command, "completion", shell], capture_output=True, text=True, timeout=60
    ).stdout
    assert "_YELPAZE_COMPLETE" in script

    def completed(words):
        asked = {
            "_YELPAZE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            command, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60
        )
        return done.stdout.split()

    assert completed("yelpaze ru") == ["plain,run", "plain,runs"]
    assert "plain,--row-deadline" in completed("yelpaze run --row")
    assert completed("yelpaze run flow.p") == ["file,flow.p"]
