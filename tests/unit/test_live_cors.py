"""What a page of another origin is allowed, by the Fetch standard."""

import pytest

from yelpaze.live.protocol.handshake import Rejected, Request
from yelpaze.live.transports.cors import cors, options

SHOP = "https://shop.example"


def asked(origin=None, path="/sse/news", **headers):
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        method="GET",
        path=path,
        query={},
        headers={"host": "here", **found, **({"origin": origin} if origin is not None else {})},
    )


@pytest.mark.parametrize(
    ("origin", "allowed", "lets", "credentials"),
    [
        (SHOP, [SHOP], SHOP, True),
        (SHOP, ["https://*.example"], SHOP, True),
        (SHOP, ["*", SHOP], SHOP, True),  # listed, so it may send credentials
        (SHOP, ["*"], "*", False),
        (None, ["*"], "*", False),  # a cache may have the answer for a page later
        ("null", ["*"], "*", False),
        ("null", ["null"], "null", False),
        ("null", ["*", "null"], "null", False),
        ("https://here", [], "https://here", True),  # of our own host
        ("https://evil.example", [SHOP], None, False),
        ("null", [SHOP], None, False),
        (None, [SHOP], None, False),
        (SHOP, [], None, False),
    ],
)
def test_who_may_read_an_answer(origin, allowed, lets, credentials):
    # Without an Origin there is nobody to let in but everybody.
    found = dict(cors(asked(origin), allowed))
    assert found.get("Access-Control-Allow-Origin") == lets
    assert ("Access-Control-Allow-Credentials" in found) is credentials
    assert found["Vary"] == "Origin"


def test_the_server_api_lets_no_page_in():
    assert cors(asked(SHOP, "/api/publish"), [SHOP, "*"]) == []


def test_a_preflight_of_a_foreign_origin_is_rejected():
    with pytest.raises(Rejected) as found:
        options(asked("https://evil.example", access_control_request_method="GET"), [SHOP])
    assert found.value.status == 403


def test_a_preflight_for_everybody_names_the_headers_too():
    """Fetch: `*` does not cover Authorization."""
    request = asked(SHOP, access_control_request_method="GET", access_control_request_headers="authorization")
    found = dict(options(request, ["*"]))
    assert found["Access-Control-Allow-Origin"] == "*"
    assert found["Access-Control-Allow-Headers"] == "authorization"
    assert "Access-Control-Allow-Credentials" not in found
