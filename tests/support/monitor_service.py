"""`yelpaze monitor run` in a process of its own, plain requests to it, and a site whose answers are switched."""

import http.client
import json
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from support.service import Service
from support.services import Started
from support.waiting import SECONDS, until

TOKEN = "the-token-of-operators"
MODULE = [sys.executable, "-m", "yelpaze"]
# What a killed process held is free two seconds later.
SHORT_LEASES = ["YELPAZE_BUS__LEASE=2s", "YELPAZE_HOOKS__LEASE=2s"]


class Reply(NamedTuple):
    """An answer of the monitor: status, headers with names in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def plain(self) -> str:
        """The body of a plain text."""
        assert self.headers["content-type"] == "text/plain; charset=utf-8", self
        return self.text

    @property
    def code(self) -> str:
        """The code of an error that is no 422."""
        assert self.status != 422, self
        assert set(self.json) == {"code", "detail"}, self
        assert self.json["detail"], self
        return self.json["code"]

    @property
    def fields(self) -> list[str]:
        """The fields that a 422 names, with dots in between."""
        assert self.status == 422, self
        assert all(set(one) == {"loc", "msg", "type"} for one in self.json["detail"]), self
        return [".".join(one["loc"]) for one in self.json["detail"]]


def ask(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """A request; `body` is JSON, or bytes as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = dict(headers or {})
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=SECONDS)
    with closing(connection):
        with suppress(BrokenPipeError, ConnectionResetError):  # a large body is answered before its end
            connection.request(method, path, data, given)
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, names, answer.read())


class MonitorService:
    """A monitor whose settings, store and bus lie in a folder; `role` is `run`, or a service alone.

    Attributes:
        url: Where it serves.
        process: The running process, as `Started`.
        file: Its settings.

    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *flags: str,
        role: str = "run",
        environment: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.file = folder / "monitor.yaml"
        self._role = role
        self._flags = flags
        self._environment = list(environment)
        self.write(settings)
        self.start()

    def start(self, listen: str = "127.0.0.1:0") -> None:
        """Start it, again after `stop` or `kill`, and wait until it is ready."""
        where = ["--listen", listen] if self._role in ("run", "web") else []
        # By `env`, since `Started` passes no YELPAZE_… on.
        command = [
            "env", *self._environment, *MODULE, "monitor", self._role, self.file.name, "--store",
            "monitor.db", "--bus", "bus.db", "--log-format", "json", *where, *self._flags,
        ]  # fmt: skip
        self.process = Started(command, self.folder)
        try:
            self.url = self.process.event("ready")["url"]
        except BaseException:
            self.close()
            raise

    def write(self, settings: dict[str, Any] | str) -> None:
        """Replace its settings, at once as editors do."""
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def loads(self, settings: dict[str, Any] | str, *, at_once: bool = True) -> dict[str, Any]:
        """Replace its settings, and wait until they are in force; what it says of them.

        `at_once`: by a signal, else when it finds out by itself.
        """
        count = self.heard("config.loaded")
        self.write(settings)
        if at_once:
            self.signal(signal.SIGHUP)
        return self.hears("config.loaded", count + 1)

    def heard(self, kind: str) -> int:
        """How many events of that kind it has logged."""
        return sum(event["event"] == kind for event in self.process.events())

    def hears(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for so many events of that kind; the last one."""

        def found() -> dict[str, Any] | None:
            events = [event for event in self.process.events() if event["event"] == kind]
            assert len(events) >= number or self.process.process.poll() is None, self.process.lines
            return events[number - 1] if len(events) >= number else None

        return until(found)

    def signal(self, number: signal.Signals) -> None:
        self.process.process.send_signal(number)

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.signal(signal.SIGTERM)
        code = self.process.ends()
        self.close()
        return code

    def kill(self) -> None:
        """End it as a lack of memory does."""
        self.close()

    def close(self) -> None:
        """End it at once, if it has not ended."""
        self.process.stop()

    @property
    def defects(self) -> list[dict[str, Any]]:
        """The errors that it has logged."""
        return [event for event in self.process.events() if event["level"] in ("error", "critical")]

    # ── its API ─────────────────────────────────────────────────────────────────

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        """A request, as the function `ask`."""
        return ask(self.url, method, path, body, **options)

    def get(self, path: str, **options: Any) -> Any:
        """What an operation that must succeed answers, as JSON; `path` after `/api/v1/`."""
        reply = self.ask("GET", f"/api/v1/{path}", **options)
        assert reply.status == 200, reply
        return reply.json

    def operate(self, method: str, path: str, body: Any = None, *, token: str | None = TOKEN) -> Reply:
        """A command; `path` after `/api/v1/`."""
        return self.ask(method, f"/api/v1/{path}", body, token=token)

    def until_status(self, key: str, status: str, **options: Any) -> dict[str, Any]:
        """Wait until a check has that status; the check."""

        def found() -> dict[str, Any] | None:
            check = self.get(f"endpoints/{key}", **options)
            return check if check["status"] == status else None

        return until(found)

    def until_incident(self, key: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until an incident of a check is so; the newest one that is."""

        def found() -> dict[str, Any] | None:
            rows = self.get(f"incidents?endpoint={key}")["data"]
            return next((row for row in rows if holds(row)), None)

        return until(found)


class Site(Service):
    """A site that answers 200 on each path until that path is switched."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}
        super().__init__(lambda call: self._answers.get(call.path, (200, {"path": call.path})))

    def switch(self, path: str, answer: Any = 500) -> None:
        """Answer on that path like this from now on: a status, or what `Service` takes."""
        self._answers[path] = (answer, {"path": path}) if isinstance(answer, int) else answer

    def endpoint(self, name: str, group: str = "", **more: Any) -> dict[str, Any]:
        """The settings of an endpoint for `/name`, which is checked each second for the status 200."""
        return {
            "name": name,
            "group": group,
            "url": f"{self.url}/{name}",
            "interval": "1s",
            "conditions": ["[STATUS] == 200"],
            **more,
        }
