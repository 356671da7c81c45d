"""docs/how-to/receive-webhooks.md: its snippets accept what we sign, and refuse what was changed.

PHP is not installed where the tests run: its snippet is only checked to be there.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.needed import absent
from support.ports import free_port
from yelpaze.hooks.signing import new_secret, sign

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
TEXT = (ROOT / "docs" / "how-to" / "receive-webhooks.md").read_text()
BODY = '{"type":"order.completed","data":{"name":"çay","n":7}}'.encode()
SECRET = new_secret()
OTHER = new_secret()

PYTHON = """
import json, sys
from snippet import verified
for case in json.load(sys.stdin):
    try:
        verified(case["headers"], case["body"].encode())
    except ValueError:
        print("refused")
    else:
        print("accepted")
"""
JAVASCRIPT = """
import { readFileSync } from "node:fs";
import { verified } from "./snippet.mjs";
for (const { headers, body } of JSON.parse(readFileSync(0))) {
  try {
    verified(headers, body);
    console.log("accepted");
  } catch {
    console.log("refused");
  }
}
"""
GO = """
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	var cases []struct {
		Headers map[string]string
		Body    string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	for _, one := range cases {
		header := http.Header{}
		for name, value := range one.Headers {
			header.Set(name, value)
		}
		if Verify(os.Getenv("WEBHOOK_SECRET"), header, []byte(one.Body)) == nil {
			fmt.Println("accepted")
		} else {
			fmt.Println("refused")
		}
	}
}
"""


def snippet(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


def signed(body=BODY, *, secrets=(SECRET,), age=0, **changed):
    """A request as JSON; `changed` are headers that are not as they were."""
    stamp = int(time.time()) - age
    headers = {
        "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        "webhook-timestamp": str(stamp),
        "webhook-signature": " ".join(
            sign(secret, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", stamp, body) for secret in secrets
        ),
    }
    headers |= {f"webhook-{name}": value for name, value in changed.items()}
    return {
        "headers": {name: value for name, value in headers.items() if value is not None},
        "body": body.decode(),
    }


def cases():
    """Requests, and whether they are accepted."""
    changed = {**signed(), "body": BODY.decode().replace("7", "8")}
    return [
        (signed(), "accepted"),
        (signed(secrets=(OTHER, SECRET)), "accepted"),  # while the secret is rotated
        (signed(secrets=(SECRET, OTHER)), "accepted"),
        (changed, "refused"),
        ({**signed(), "body": BODY.decode() + "\n"}, "refused"),
        (signed(secrets=(OTHER,)), "refused"),
        (signed(id="msg_another"), "refused"),
        (signed(timestamp=str(int(time.time()) - 1)), "refused"),
        (signed(age=3600), "refused"),
        (signed(age=-3600), "refused"),
        (signed(timestamp="now"), "refused"),
        (signed(signature="v1,"), "refused"),
        (signed(id=None), "refused"),
        (signed(timestamp=None), "refused"),
        (signed(signature=None), "refused"),
    ]


def check(command, folder, **environment):
    found = cases()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "WEBHOOK_SECRET": SECRET, **environment},
        input=json.dumps([case for case, _ in found]),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [verdict for _, verdict in found]


def test_python_accepts_ours_and_refuses_what_was_changed(tmp_path):
    (tmp_path / "snippet.py").write_text(snippet("python"))
    check([sys.executable, "-W", "error", "-c", PYTHON], tmp_path)


def test_javascript_accepts_ours_and_refuses_what_was_changed(tmp_path):
    if shutil.which("node") is None or not (MODULES / "standardwebhooks").is_dir():
        absent("standardwebhooks for Node (scripts/servers.sh)")
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "snippet.mjs").write_text(snippet("javascript"))
    (tmp_path / "main.mjs").write_text(JAVASCRIPT)
    check(["node", "main.mjs"], tmp_path)


def test_go_accepts_ours_and_refuses_what_was_changed(tmp_path):
    if shutil.which("go") is None:
        absent("Go")
    (tmp_path / "go.mod").write_text("module receiver\n\ngo 1.21\n")
    (tmp_path / "verify.go").write_text(snippet("go"))
    (tmp_path / "main.go").write_text(GO)
    check(["go", "run", "."], tmp_path, GOTOOLCHAIN="local", GOFLAGS="-mod=mod", GOPROXY="off")


def test_php_is_there_though_it_is_not_run():
    php = snippet("php")
    assert "hash_hmac('sha256', \"$id.$stamp.$body\", $key, true)" in php
    assert "hash_equals(" in php
    assert "the PHP one does not" in TEXT


# ── commands ────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(tmp_path):
    command = tmp_path / "bin" / "yelpaze"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "WEBHOOK_SECRET": SECRET}


def commands():
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    return [line for block in blocks for line in re.findall(r"^\$ (.*)", block, re.MULTILINE)]


def test_verify_says_so_as_the_page_does(tmp_path, environment):
    script = "\n".join(line for line in commands() if "listen" not in line)
    done = subprocess.run(
        script, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "verified\n")
    changed = script.replace("2432232314", "2432232315")
    done = subprocess.run(
        changed, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("not verified: ")


def test_listen_verifies_and_forwards_as_the_page_says(tmp_path, environment, service):
    service.answer = lambda _: (202, b"thanks")
    (line,) = [line for line in commands() if "listen" in line]
    port = free_port()
    line = line.replace("9000", str(port)).replace("http://127.0.0.1:8000", service.url)
    with subprocess.Popen(
        f"exec {line}",
        shell=True,
        cwd=tmp_path,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert f"http://127.0.0.1:{port}" in process.stderr.readline()
            assert posted(port, signed()) == "202 thanks"
            assert posted(port, {**signed(), "body": "{}"}).startswith("401 NOT VERIFIED: ")
        finally:
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
    assert "answered 202" in said
    assert '"name": "çay"' in said
    assert "answered 401" in said
    (call,) = service.calls
    assert (call.path, call.body) == ("/webhook", BODY)
    assert call.headers["webhook-signature"].startswith("v1,")


def posted(port, case):
    headers = [flag for name, value in case["headers"].items() for flag in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", *headers, "-d", "@-", f"http://127.0.0.1:{port}/hook"],
        input=case["body"].encode(),
        capture_output=True,
        timeout=60,
    )
    body, _, status = done.stdout.decode().rpartition("\n")
    return f"{status} {body}"
