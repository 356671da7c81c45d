"""What each HTTP address answers to HEAD, to pages of other origins and to preflights, alone and mounted."""

import json
from contextlib import ExitStack

import pytest

from support.live import KEY, Wire, request, settings, token
from support.needed import needs
from support.uvicorn_thread import UvicornThread
from support.waiting import until

SHOP = "https://shop.example"
OTHER = "https://evil.example"
CONFIG = {
    "client": {"allowed_origins": [SHOP, "https://*.example.org"], "connection_limit": 2},
    "channel": {
        "without_namespace": {"allow_subscribe_for_client": True},
        "namespaces": [{"name": "closed"}],
    },
}
GOOD = token("42")
SERVERS_OWN = {"date", "server", "transfer-encoding", "connection"}
# path, status of GET alone, and mounted; the key is sent with those that end with a space
READ = [
    ("/health", 200, 200),
    ("/healthz", 200, 200),
    ("/readyz", 200, 200),
    (f"/sse/news?token={GOOD}", 200, 200),
    ("/sse/news?token=bad", 401, 401),
    ("/sse/news", 401, 401),
    (f"/sse/closed:x?token={GOOD}", 403, 403),
    (f"/sse/unknown:x?token={GOOD}", 404, 404),
    ("/nothing", 404, 404),
    ("/connection/websocket", 426, 404),
    ("/ws/news", 426, 404),
]
API = [("/api/openapi.json ", 200), ("/api/openapi.json", 401), ("/api/info ", 405), ("/api/info", 401)]


class Place:
    def __init__(self, port, root):
        self.port, self.root = port, root

    def ask(self, method, path, **headers):
        """Status, headers but those of every server, and all bytes of the body; of a stream none."""
        if path.endswith(" "):
            headers["X-API-Key"] = KEY
        lines = {"Host": "here", "Connection": "close", **headers}
        text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        with Wire(self.port) as wire:
            wire.send(f"{method} {self.root}{path.strip()} HTTP/1.1\r\n{text}\r\n".encode())
            status, found = wire.head()
            is_stream = method == "GET" and found.get("content-type", "").startswith("text/event-stream")
            body = b"" if is_stream else wire.rest()
        return status, {name: value for name, value in found.items() if name not in SERVERS_OWN}, body

    def channels(self):
        return self.call("channels")["channels"]

    def call(self, method):
        _, _, body = request(self.port, "POST", f"{self.root}/api/{method}", b"{}", {"X-API-Key": KEY})
        return json.loads(body)["result"]

    def until_nobody_is_there(self):
        """Streams of the test before may not have ended yet, and there is a limit."""
        until(lambda: not self.call("info")["nodes"][0]["num_clients"])


@pytest.fixture(scope="module", params=["alone", "mounted"])
def shared(request):
    if request.param == "alone":
        yield Place(request.getfixturevalue("gateways")(CONFIG).port, "")
        return
    needs("uvicorn", "starlette", "jwt")
    from starlette.applications import Starlette

    from yelpaze import Live

    app = Starlette()
    app.mount("/live", Live(settings(CONFIG)).asgi())
    with UvicornThread(app) as server:
        yield Place(server.port, "/live")


@pytest.fixture
def place(shared):
    shared.until_nobody_is_there()
    return shared


def status_of(place, alone, mounted):
    return mounted if place.root else alone


@pytest.mark.parametrize(("path", "alone", "mounted"), [*READ, *((path, code, code) for path, code in API)])
@pytest.mark.parametrize("origin", [None, SHOP])
def test_head_is_answered_as_get_without_a_body(place, path, alone, mounted, origin):
    headers = {} if origin is None else {"Origin": origin}
    status, expected, _ = place.ask("GET", path, **headers)
    assert status == status_of(place, alone, mounted)
    place.until_nobody_is_there()
    assert place.ask("HEAD", path, **headers) == (status, expected, b"")
    assert place.channels() == {}


@pytest.mark.parametrize(("path", "alone", "mounted"), READ)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("origin", [SHOP, "https://a.example.org"])
def test_a_page_of_an_allowed_origin_can_read_every_answer(place, path, alone, mounted, method, origin):
    status, headers, _ = place.ask(method, path, Origin=origin, Cookie="a=1")
    if method != "POST":
        assert status == status_of(place, alone, mounted)
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize("path", [path for path, _, _ in READ])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_foreign_page_can_read_nothing(place, path, method):
    status, headers, _ = place.ask(method, path, Origin=OTHER, Access_Control_Request_Method="GET")
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["vary"] == "Origin"
    if path.startswith("/sse"):
        assert status == 403


@pytest.mark.parametrize("path", [path for path, _ in API])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_the_server_api_is_not_for_pages(place, path, method):
    _, headers, _ = place.ask(method, path, Origin=SHOP, Access_Control_Request_Method="POST")
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/sse/news", "/sse/unknown:x", "/health", "/healthz", "/readyz"])
@pytest.mark.parametrize(
    "names", ["last-event-id", "cache-control,last-event-id", "authorization, x-mine", ""]
)
def test_preflights_of_allowed_origins_allow_what_they_ask_for(place, path, names):
    asked = {"Access_Control_Request_Headers": names} if names else {}
    status, headers, body = place.ask(
        "OPTIONS", path, Origin=SHOP, Access_Control_Request_Method="GET", **asked
    )
    assert (status, body) == (204, b"")
    assert headers == {
        "allow": "GET, HEAD, OPTIONS",
        "access-control-allow-origin": SHOP,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, HEAD, OPTIONS",
        **({"access-control-allow-headers": names} if names else {}),
        "access-control-expose-headers": "Retry-After",
        "access-control-max-age": "7200",
        "vary": "Origin",
    }


def test_options_that_are_no_preflight_say_what_there_is(place):
    status, headers, body = place.ask("OPTIONS", "/health")
    assert (status, headers, body) == (204, {"allow": "GET, HEAD, OPTIONS", "vary": "Origin"}, b"")


def test_a_refusal_for_now_can_be_read_with_its_retry_after(place):
    with ExitStack() as stack:
        for _ in range(2):
            wire = stack.enter_context(Wire(place.port))
            wire.send(f"GET {place.root}/sse/news?token={GOOD} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            assert wire.head()[0] == 200
        for method in ("GET", "HEAD"):
            status, headers, body = place.ask(method, f"/sse/news?token={GOOD}", Origin=SHOP)
            assert (status, headers["retry-after"]) == (503, "5")
            assert headers["access-control-allow-origin"] == SHOP
            assert headers["access-control-expose-headers"] == "Retry-After"
            assert bool(body) is (method == "GET")
        # A browser's EventSource would give up at 503.
        accept = {"Origin": SHOP, "Accept": "text/event-stream"}
        status, headers, body = place.ask("HEAD", f"/sse/news?token={GOOD}", **accept)
        assert (status, headers["access-control-allow-origin"], body) == (200, SHOP, b"")
