"""docs/how-to/grpc.md, followed word for word."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from support.ports import free_port
from support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "grpc.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """The page's files, on free ports."""
    ports = {"50051": str(free_port()), "9464": str(free_port())}
    texts = [*blocks("proto"), *blocks("python")]
    for name, text in zip(("greeter.proto", "server.py", "client.py"), texts, strict=True):
        (tmp_path / name).write_text(re.sub("50051|9464", lambda port: ports[port[0]], text))
    return tmp_path, int(ports["50051"])


def run(command, folder):
    command = command.replace("python ", f"{sys.executable} ", 1)
    return subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, timeout=60, check=True)


def is_ready(port):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=1)
        except grpc.FutureTimeoutError:
            return False
        return True


def test_the_guide(folder):
    place, port = folder
    protoc, serve, call = (block.removeprefix("$ ").splitlines() for block in blocks("console"))
    run(protoc[0], place)
    assert serve == ["python server.py"]
    server = subprocess.Popen(
        [sys.executable, "server.py"], cwd=place, stderr=subprocess.PIPE, env=os.environ, text=True
    )
    try:
        until(lambda: is_ready(port))
        assert run(call[0], place).stdout == call[1] + "\n"
        (place / "client.py").write_text((place / "client.py").read_text().replace('"secret"', '"wrong"'))
        with pytest.raises(subprocess.CalledProcessError) as failed:
            run(call[0], place)
        assert "send a token" in failed.value.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)
    assert server.returncode == 0, said
