"""`yelpaze hooks serve` in a process of its own, and plain requests to its API."""

import http.client
import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from support.service import YELPAZE
from support.services import Started
from support.waiting import SECONDS, until

ADMIN_TOKEN = "yt_the-token-of-the-tests"
LOOPBACK = "127.0.0.0/8"


class Answer(NamedTuple):
    """Status, and the body as JSON; None if it is empty."""

    status: int
    body: Any

    @property
    def fields(self) -> list[str]:
        """The fields of the body that a 422 names, with dots in between."""
        assert self.status == 422, self
        found = []
        for detail in self.body["detail"]:
            assert set(detail) == {"loc", "msg", "type"}, self
            assert detail["msg"], self
            found.append(".".join(detail["loc"]))
        return found

    @property
    def code(self) -> str:
        """The code of an error that is no 422."""
        assert self.status != 422, self
        assert set(self.body) == {"code", "detail"}, self
        assert isinstance(self.body["detail"], str), self
        return self.body["code"]


class HooksService:
    """A service with a store in a folder, if no other is named. `settings` are given as YELPAZE_HOOKS__NAME."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        store: str = "hooks.db",
        allow: str | None = LOOPBACK,
        **settings: str,
    ) -> None:
        values = {"admin_token": ADMIN_TOKEN, **settings}
        environment = [f"YELPAZE_HOOKS__{name.upper()}={value}" for name, value in values.items()]
        allowed = [] if allow is None else ["--allow", allow]
        # By `env`, since `Started` passes no YELPAZE_… on.
        self.process = Started(
            ["env", *environment, *YELPAZE, "hooks", "serve", "--listen", "127.0.0.1:0", "--store",
             store, "--log-format", "json", *allowed, *flags],
            folder,
        )  # fmt: skip
        try:
            self.url = self.process.event("ready")["url"]
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.process.stop()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = ADMIN_TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request to `/api/v1` and that path; `body` is JSON, or bytes as they are."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            given.setdefault("Authorization", f"Bearer {token}")
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=SECONDS)
        with closing(connection):
            # A body that is too large is answered before its end.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, f"/api/v1{path}", data, given)
            answer = connection.getresponse()
            return Answer(answer.status, _json(answer.read()))

    def make(self, path: str, body: Any, **options: Any) -> Any:
        """POST what must be taken; what comes back."""
        answer = self.ask("POST", path, body, **options)
        assert answer.status in (200, 201, 202), answer
        return answer.body

    def app(self) -> str:
        """The id of a new application."""
        return self.make("/app", {"name": "Acme"})["id"]

    def attempts(self, app: str, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a message has had so many attempts; they, the first one first."""

        def found() -> list[dict[str, Any]] | None:
            page = self.ask("GET", f"/app/{app}/attempt/msg/{message}?limit=250").body["data"]
            return page[::-1] if len(page) >= count else None

        return until(found)


def _json(data: bytes) -> Any:
    return json.loads(data) if data else None
