"""What docs/hooks.md says is so: its commands and snippets run, and its tables are those of the code."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from support.hooks import opened
from support.hooks_log import APP, endpoint_for, logged
from support.needed import needs
from support.ports import free_port
from yelpaze.config.values import Duration, Secret, Settings
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.kinds.registry import KINDS
from yelpaze.hooks.settings import HOOKS_SETTINGS, HooksSettings
from yelpaze.hooks.values import EndpointIn
from yelpaze.observe.hooks import HooksCollector

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "hooks.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [line for language, block in BLOCKS if language == "json" for line in block.splitlines()]
(YAML,) = (block for language, block in BLOCKS if language == "yaml")
OF_OTHERS = (
    "yelpaze hooks serve",
    "yelpaze hooks listen",
    "export YELPAZE",
    "curl --fail http://127.0.0.1:9100",
)


def lines(language, block):
    return re.findall(r"^\$ (.*)", block, re.MULTILINE) if language == "console" else []


COMMANDS = [line for language, block in BLOCKS for line in lines(language, block)]
SERVERS = [line for line in COMMANDS if line.startswith("yelpaze hooks serve") and "--check" not in line]


def section(title):
    return re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL | re.MULTILINE)[1]


def table(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    command = tmp_path_factory.mktemp("bin") / "yelpaze"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def served(line, folder, environment):
    """The service, by a command of the page; gives its URL."""
    with subprocess.Popen(
        f"exec {line}", shell=True, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said = ""
            while "hooks at http://" not in said:
                said = process.stderr.readline()
                assert said, "it ended"
            yield "http://" + said.partition("http://")[2].partition(",")[0]
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    assert process.returncode == 0, rest


def test_commands_and_snippets_run_in_the_order_of_the_page(tmp_path, environment, service):
    """One after the other in one folder and shell, but for those of servers and of several machines."""
    address = f"127.0.0.1:{free_port()}"

    def here(text):
        return text.replace("127.0.0.1:8071", address).replace("http://127.0.0.1:9000", service.url)

    script = ["set -e"]
    for number, (language, block) in enumerate(BLOCKS):
        if language == "yaml":
            (tmp_path / "hooks.yaml").write_text(block)
        if language == "python":
            (tmp_path / f"snippet{number}.py").write_text(here(block))
            script.append(f"python -W error snippet{number}.py")
        script += [
            line for line in lines(language, block) if not line.startswith(OF_OTHERS) or "--check" in line
        ]
    with served(f"{SERVERS[0]} --listen {address}", tmp_path, environment):
        done = subprocess.run(
            here("\n".join(script)),
            shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        service.wait(lambda: {json.loads(call.body)["order"] for call in service.calls} == {7, 8, 9, 10, 11})
    assert {call.path for call in service.calls} == {"/webhook"}
    assert all(call.headers["webhook-signature"].startswith("v1,") for call in service.calls)
    for name in re.findall(r"`(hooks\.db[.\w]*)`", section("Try it")):
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("line", SERVERS[1:])
def test_several_processes_share_a_store_in_postgresql(line, tmp_path, environment, postgres):
    needs("psycopg")
    metrics = free_port()
    line = line.replace("postgresql://127.0.0.1/hooks", f"'{postgres.new_database()}'").replace(
        "9100", str(metrics)
    )
    exports = "\n".join(command for command in COMMANDS if command.startswith("export YELPAZE"))
    done = subprocess.run(
        f"{exports}\nenv | grep ^YELPAZE_HOOKS", shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    given = dict(one.split("=", 1) for one in done.stdout.split())
    assert len(given) == 2
    with served(f"{line} --listen 127.0.0.1:{free_port()}", tmp_path, {**environment, **given}):
        command = next(one for one in COMMANDS if one.endswith("9100/metrics")).replace("9100", str(metrics))
        done = subprocess.run(
            command, shell=True, env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert "yelpaze_hooks_accepted_total" in done.stdout


def test_each_command_that_is_named_is_there():
    from yelpaze.cli.hooks import command

    names = set(re.findall(r"yelpaze hooks ([a-z]+)", TEXT))
    assert names <= set(command.list_commands(None))


def test_the_metrics_are_those_of_the_code(tmp_path):
    found = set()
    for metric in HooksCollector(Hooks(str(tmp_path / "hooks.db")).totals).collect():
        found.add(metric.name + ("_total" if metric.type == "counter" else ""))
    said = {name if name.startswith("yelpaze") else f"yelpaze_hooks{name}" for name in re.findall(r"`((?:yelpaze_hooks)?_\w+)`", section("Metrics"))}  # fmt: skip
    assert said == found


# ── tables ──────────────────────────────────────────────────────────────────────


def settings_of(kind, prefix=""):
    for field in msgspec.structs.fields(kind):
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        if isinstance(default, Settings):
            yield from settings_of(type(default), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", default


def test_the_table_of_settings_has_each_with_its_default():
    import yaml

    rows = {name.strip("`"): default for name, default, _ in table(section("Settings"))}
    wanted = dict(settings_of(HooksSettings))
    assert set(rows) == set(wanted)
    for name, default in wanted.items():
        if isinstance(default, Secret):
            assert "`" not in rows[name]
            continue
        said = yaml.safe_load(rows[name].strip("`"))
        top, _, rest = name.partition(".")
        found = HOOKS_SETTINGS.of({top: {rest: said} if rest else said})
        value = getattr(found, top)
        assert (getattr(value, rest) if rest else value) == default, name


def test_the_settings_file_of_the_page_is_good():
    import yaml

    found = HOOKS_SETTINGS.of(yaml.safe_load(YAML))
    assert found.timeout == 20
    assert found.operator.endpoints["team"].event_types == ("endpoint.disabled",)


def test_the_table_of_kinds_has_each_with_its_options():
    rows = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table(section("Kinds of endpoints")) if row[0].strip("`") in KINDS}  # fmt: skip
    assert rows == {name: set(kind.options.__struct_fields__) for name, kind in KINDS.items()}


async def test_there_is_an_example_of_each_kind_and_all_can_be_made(tmp_path):
    kinds = set()
    async with opened(str(tmp_path / "hooks.db"), deliver=False) as hooks:
        for line in EXAMPLES:
            given = msgspec.json.decode(line, type=EndpointIn)
            fields = {name: getattr(given, name) for name in given.__struct_fields__}
            made = await endpoint_for(
                hooks, **{name: value for name, value in fields.items() if value is not None}
            )
            kinds.add(made.kind)
    assert kinds == set(KINDS)


@pytest.mark.parametrize("line", [line for line in EXAMPLES if '"signatures"' in line])
async def test_older_signatures_are_headers_of_the_request(line, tmp_path, service):
    given = json.loads(line)
    async with opened(str(tmp_path / "hooks.db")) as hooks:
        await endpoint_for(hooks, service.url, secret=given["secret"], options=given["options"])
        await hooks.send(APP, "order.completed", {"order": 7})
        await logged(hooks)
    for form in given["options"]["signatures"]:
        assert service.calls[0].headers[form["header"].lower()]


def test_the_kinds_of_reasons_are_named():
    named = set(
        re.findall(r"`([a-z._]+)`", section("The log").partition("A reason begins")[2].partition("\n\n")[0])
    )
    assert {
        "status",
        "redirect",
        "refused",
        "dns",
        "connect",
        "tls",
        "blocked_address",
        "timeout.attempt",
    } == named


def test_the_schedule_is_the_one_of_the_text():
    words = re.search(r"at once, then\s+after (.*?), each varied", section("Retries"), re.DOTALL)[1]
    said = [
        Duration.parse(one.replace(" ", "").replace("min", "m"))
        for one in re.findall(r"[0-9]+ (?:s|min|h)", words)
    ]
    assert [0.0, *said] == list(HooksSettings().schedule)
