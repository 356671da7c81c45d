"""`yelpaze hooks`: the service and its commands, as its users call them."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import time
import urllib.request

import pytest

from support.needed import needs
from support.service import YELPAZE, Place, Service
from support.services import TOKEN, Started, request
from support.waiting import until
from yelpaze.hooks.signing import sign

needs("fastapi", "uvicorn", "cryptography", "aiosmtplib")


@pytest.fixture
def hooks(tmp_path):
    """`hooks(command, …)` runs one in a folder; its exit code, standard output and standard error."""

    def run(*arguments, stdin="", **environment):
        given = {name: value for name, value in os.environ.items() if not name.startswith("YELPAZE_")}
        done = subprocess.run(
            [*YELPAZE, "hooks", *map(str, arguments)],
            cwd=tmp_path,
            env={**given, "YELPAZE_HOOKS__ALLOW": "127.0.0.0/8", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def serve(tmp_path):
    """A factory of services in the same folder."""
    started = []

    def start(*flags, folder=tmp_path):
        command = [*YELPAZE, "hooks", "serve", "--listen", "127.0.0.1:0", "--log-format", "json", *flags]
        found = Started([*command, "--allow", "127.0.0.0/8"], folder)
        started.append(found)
        return found

    yield start
    for one in started:
        one.stop()


def text(run, *arguments, **options):
    code, out, err = run(*arguments, **options)
    assert code == 0, err
    return out


def test_the_whole_way_by_commands(hooks, serve, service, tmp_path):
    serve().event("ready")
    service.answer = lambda call: (500 if call.path == "/bad" else 200, {})
    made = text(hooks, "apps", "--create", "acme", "--name", "Acme").strip()
    assert made in text(hooks, "apps")
    endpoint, secret = text(hooks, "endpoints", "acme", "--add", f"{service.url}/a").split()
    assert endpoint.startswith("ep_")
    assert secret.startswith("whsec_")
    message = text(hooks, "send", "acme", "order.completed", '{"id": 7}').strip()
    until(lambda: len(service.calls) == 1)
    call = service.calls[0]
    assert (call.headers["webhook-id"], call.body) == (message, b'{"id": 7}')
    arguments = ["--secret", secret, "--id", message, "--timestamp", call.headers["webhook-timestamp"]]
    signature = call.headers["webhook-signature"]
    assert hooks("verify", *arguments, "--signature", signature, stdin='{"id": 7}')[0] == 0
    code, _, said = hooks("verify", *arguments, "--signature", signature, stdin='{"id": 8}')
    assert (code, "no signature matches" in said) == (1, True)

    until(lambda: "200 delivered" in text(hooks, "attempts", "acme"))
    assert message in text(hooks, "messages", "acme")
    (attempt,) = map(json.loads, text(hooks, "attempts", "acme", "--json").splitlines())
    assert attempt["msgId"] == message
    assert text(hooks, "attempts", "acme", "--code", "500", "--json") == ""
    hooks("resend", "acme", message, endpoint)
    until(lambda: len(service.calls) == 2)
    assert service.calls[1].headers["webhook-id"] == message

    later = text(hooks, "endpoints", "acme", "--add", f"{service.url}/late").split()[0]
    assert "1 message queued" in hooks("replay", "acme", later, "--since", "1h")[2]
    until(lambda: service.calls[-1].path == "/late")
    text(hooks, "endpoints", "acme", "--disable", later)
    assert "disabled: by request" in text(hooks, "endpoints", "acme")
    assert hooks("recover", "acme", later, "--since", "1h")[0] == 2
    text(hooks, "endpoints", "acme", "--enable", later, "--pause", later)
    assert "paused" in text(hooks, "endpoints", "acme")
    text(hooks, "endpoints", "acme", "--delete", later)
    assert later not in text(hooks, "endpoints", "acme")
    assert text(hooks, "test", "acme", endpoint).startswith("msg_")
    until(lambda: b"yelpaze.test" in service.calls[-1].body)


def test_the_first_start_makes_a_token_and_a_key_that_only_the_owner_can_read(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("YELPAZE_")}
    for number in range(2):
        with (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                [*YELPAZE, "hooks", "serve", "--listen", "127.0.0.1:0"],
                cwd=tmp_path,
                env=environment,
                stderr=err,
            )
        until(lambda: "hooks at" in (tmp_path / "err").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        said = (tmp_path / "err").read_text()
        assert ("shown only once" in said) is (number == 0)
        for name in ("hooks.db.token", "hooks.db.key"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
            assert ((tmp_path / name).read_text().strip() in said) is (name.endswith("token") and number == 0)


def ask(url, path, token, body=None):
    made = urllib.request.Request(
        f"{url}/api/v1{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(made, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_tokens_open_one_application_and_can_be_revoked(hooks, serve):
    url = serve().event("ready")["url"]
    text(hooks, "apps", "--create", "acme")
    text(hooks, "apps", "--create", "other")
    token = text(hooks, "token", "--app", "acme", "--name", "ci").strip()
    assert ask(url, "/app/acme", token)[0] == 200
    assert ask(url, "/app/other", token)[0] == 404
    assert [app["uid"] for app in ask(url, "/app", token)[1]["data"]] == ["acme"]
    assert ask(url, "/app", "yt_wrong")[0] == 401
    line = next(line for line in text(hooks, "token", "--list").splitlines() if "ci" in line)
    assert token not in line
    text(hooks, "token", "--revoke", line.split()[0])
    until(lambda: ask(url, "/app/acme", token)[0] == 401)


def test_a_rotated_secret_and_a_replaced_encryption_key(hooks, serve, service, tmp_path):
    old_key = text(hooks, "key").strip()
    new_key = text(hooks, "key").strip()
    running = serve("--store", "h.db")
    running.event("ready")
    running.process.send_signal(signal.SIGTERM)
    running.ends()
    (tmp_path / "h.db.key").unlink()
    with_old = {"YELPAZE_HOOKS__ENCRYPTION_KEY": old_key}
    both = {
        "YELPAZE_HOOKS__ENCRYPTION_KEY": new_key,
        "YELPAZE_HOOKS__PREVIOUS_ENCRYPTION_KEYS": old_key,
    }
    text(hooks, "apps", "--create", "acme", "--store", "h.db", **with_old)
    endpoint, secret = text(
        hooks, "endpoints", "acme", "--add", f"{service.url}/a", "--store", "h.db", **with_old
    ).split()
    text(hooks, "endpoints", "acme", "--add", f"{service.url}/b", "--store", "h.db", **with_old)
    rotated = text(hooks, "rotate", "acme", endpoint, "--store", "h.db", **both).strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    code, _, said = hooks("endpoints", "acme", "--store", "h.db", YELPAZE_HOOKS__ENCRYPTION_KEY=new_key)
    assert code == 2
    assert "another key" in said
    assert "5 values" in hooks("rekey", "--store", "h.db", **both)[2]
    text(hooks, "endpoints", "acme", "--store", "h.db", YELPAZE_HOOKS__ENCRYPTION_KEY=new_key)
    data = (tmp_path / "h.db").read_bytes()
    assert secret.encode() not in data
    assert rotated.encode() not in data


def test_listen_prints_verifies_and_forwards(tmp_path, service):
    service.answer = lambda _call: (202, {"taken": True})
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [*YELPAZE, "hooks", "listen", "0", "--secret", secret, "--forward", service.url],
            stdout=out,
            stderr=err,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        url = until(lambda: _url_in(tmp_path / "err"))
        now = int(time.time())
        good = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secret, "msg_1", now, b'{"a": "\\u001b[31m"}'),
        }
        made = urllib.request.Request(f"{url}/x", b'{"a": "\\u001b[31m"}', good)
        with urllib.request.urlopen(made, timeout=60) as answer:
            assert (answer.status, answer.read()) == (202, b'{"taken": true}')
        assert service.calls[0].headers["webhook-id"] == "msg_1"
        made = urllib.request.Request(f"{url}/x", b'{"a": 2}', good)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(made, timeout=60)
        assert refused.value.code == 401
        refused.value.close()
        assert len(service.calls) == 1
        printed = until(lambda: _if_in(tmp_path / "out", "NOT VERIFIED"))
        assert "msg_1  verified  answered 202" in printed
        assert "\x1b[31m" not in printed
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _url_in(path):
    said = path.read_text()
    return said.partition("listening at ")[2].partition(";")[0]


def _if_in(path, text):
    found = path.read_text()
    return found if text in found else ""


def test_the_outbox_is_relayed_once_and_in_order(hooks, serve, service, tmp_path):
    from yelpaze import Hooks

    serve().event("ready")
    text(hooks, "apps", "--create", "acme")
    text(hooks, "endpoints", "acme", "--add", f"{service.url}/a")
    connection = sqlite3.connect(tmp_path / "shop.db")
    with connection:
        Hooks.create_outbox(connection)
        for number in range(5):
            Hooks.enqueue(connection, "acme", "order.completed", {"n": number}, event_id=f"o{number}")
        Hooks.enqueue(connection, "nobody", "order.completed", {}, event_id="lost")
    with pytest.raises(ZeroDivisionError), connection:
        Hooks.enqueue(connection, "acme", "order.completed", {}, event_id="undone")
        raise ZeroDivisionError
    code, _, said = hooks("relay", "shop.db", "--once")
    assert code == 1
    assert "5 messages relayed, 1 refused" in said
    assert "there is no such application" in said
    until(lambda: len(service.calls) == 5)
    assert {json.loads(call.body)["n"] for call in service.calls} == set(range(5))
    assert connection.execute("SELECT id FROM yelpaze_outbox").fetchall() == [("lost",)]
    with connection:  # as if the relay had been killed before it deleted the row
        Hooks.enqueue(connection, "acme", "order.completed", {"n": 0}, event_id="o0")
    text(hooks, "apps", "--create", "nobody")
    assert hooks("relay", "shop.db", "--once")[0] == 0
    assert connection.execute("SELECT count(*) FROM yelpaze_outbox").fetchall() == [(0,)]
    connection.close()
    assert len(service.calls) == 5


def test_several_processes_share_the_port_and_survive_the_loss_of_one(serve, tmp_path):
    receiver = Service(lambda call: {"n": call.body.decode()})
    try:
        (tmp_path / "hooks.yaml").write_text("lease: 1s\nschedule: [0, 1]\n")
        running = serve("--processes", "2", "--config", "hooks.yaml", "--metrics", "127.0.0.1:0")
        metrics = running.event("metrics")["url"]
        url = running.event("ready")["url"]
        assert ask(url, "/app", TOKEN, {"name": "x", "uid": "x"})[0] == 201
        for number in range(10):
            endpoint = {"url": f"{receiver.url}/{number}"}
            assert ask(url, "/app/x/endpoint", TOKEN, endpoint)[0] == 201
        assert ask(url, "/app/x/msg", TOKEN, {"eventType": "a", "payload": {}})[0] == 202
        until(lambda: len(receiver.calls) == 10)
        children = f"/proc/{running.process.pid}/task/{running.process.pid}/children"
        with open(children) as file:
            victim = int(file.read().split()[0])
        os.kill(victim, signal.SIGKILL)
        running.event("process.lost")
        assert ask(url, "/app/x/msg", TOKEN, {"eventType": "a", "payload": {}})[0] == 202
        until(lambda: len(receiver.calls) == 20)
        until(lambda: b'yelpaze_hooks_queue_age_seconds{shard="' in request(metrics)[1])
        attempts = b'yelpaze_hooks_attempts_total{kind="webhook",reason="",status="200"}'
        until(lambda: attempts in request(metrics)[1])  # the processes report each second
        body = request(metrics)[1].decode()
        assert 'yelpaze_hooks_attempts_total{kind="webhook",reason="",status="200"}' in body
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0
    finally:
        receiver.stop()


WRONG = {
    "no store": (["apps"], "there is no such store"),
    "no kind of store": (["apps", "--store", "mysql://x"], "SQLite file or a postgresql:// URL"),
    "no JSON": (["send", "acme", "a.b", "{"], "PAYLOAD is not valid JSON"),
    "no file": (["send", "acme", "a.b", "@nowhere"], "nowhere: cannot be read"),
    "no time": (["recover", "acme", "x", "--since", "tomorrow"], "'tomorrow' is not a time"),
    "no duration": (["token", "--expires-in", "soon"], "a duration is written"),
    "no application": (["messages", "nobody"], "there is no such application"),
    "no command": (["sendd"], "No such command 'sendd'"),
    "no options": (["endpoints", "acme", "--add", "http://x", "--options", "["], "--options takes a JSON"),
    "private": (["endpoints", "acme", "--add", "http://10.0.0.1/"], "url: 10.0.0.1 is private"),
    "bad type": (["send", "acme", "a b", "{}"], "eventType: takes 1 to 256 letters"),
    "port": (["listen", "99999"], "99999"),
    "secret": (["listen", "0", "--secret", "x"], "a secret is whsec_"),
    "forward": (["listen", "0", "--forward", "ftp://x"], "ftp"),
    "no outbox": (["relay", "hooks.db", "--once"], "has no table yelpaze_outbox"),
    "bad setting": (
        ["serve", "--config", "bad.yaml"],
        "bad.yaml:1: scheduel: there is no such setting; did you mean schedule?",
    ),
    "bad value": (["serve", "--config", "value.yaml"], "value.yaml:2: jitter"),
    "bad network": (["serve", "--allow", "10.0.0.0/99"], "allow"),
    "bad address": (["serve", "--listen", "nowhere"], "nowhere"),
    "postgres without a key": (
        ["serve", "--store", "postgresql://127.0.0.1:1/x"],
        "YELPAZE_HOOKS__ENCRYPTION_KEY",
    ),
    "not a database": (["serve", "--store", "bad.yaml"], "bad.yaml: file is not a database"),
    "folder": (["serve", "--store", "nowhere/x.db"], "the folder"),
    "operator": (["serve", "--config", "operator.yaml"], "operator.endpoints.ops.options.topic"),
}


@pytest.fixture(scope="module")
def a_store(tmp_path_factory):
    """A store with an application, to be copied."""
    folder = tmp_path_factory.mktemp("store")
    Place(folder).ask("hooks", "token", code=2)  # there is none yet
    (folder / "hooks.db").touch()
    Place(folder).ask("hooks", "apps", "--create", "acme", code=0)
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_clear_message(a_store, tmp_path, name):
    (tmp_path / "bad.yaml").write_text("scheduel: [1]\n" + "x" * 4096 * (name == "not a database"))
    (tmp_path / "value.yaml").write_text("timeout: 5s\njitter: 2\n")
    (tmp_path / "operator.yaml").write_text("operator:\n  endpoints:\n    ops: {kind: ntfy}\n")
    arguments, wanted = WRONG[name]
    if name != "no store" and arguments[0] != "serve":
        for file in a_store.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    place = Place(tmp_path)
    place.env = {key: value for key, value in place.env.items() if not key.startswith("YELPAZE_")}
    done = place.ask("hooks", *arguments, code=2)
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) <= 4


async def test_the_outbox_in_a_transaction_of_postgresql(postgres, tmp_path):
    import psycopg

    from support.hooks import message_ids, opened
    from yelpaze import Hooks
    from yelpaze.app.relay import Relay

    url = postgres.new_database()
    notices = []
    with psycopg.connect(url) as connection:
        Hooks.create_outbox(connection)
        connection.commit()
        with connection.transaction():
            Hooks.enqueue(connection, "acme", "order.completed", {"n": 1}, event_id="o1", order_key="k")
        with pytest.raises(ZeroDivisionError), connection.transaction():
            Hooks.enqueue(connection, "acme", "order.completed", {}, event_id="undone")
            raise ZeroDivisionError
    async with opened(str(tmp_path / "h.db"), deliver=False) as hooks:
        await hooks.create_application("Acme", uid="acme")
        relay = Relay(url, hooks, notices.append)
        try:
            await relay.run(once=True)
        finally:
            relay.close()
        assert (relay.relayed, relay.refused, notices) == (1, 0, [])
        assert len(await message_ids(hooks, "acme")) == 1
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM yelpaze_outbox").fetchone() == (0,)
