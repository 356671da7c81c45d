"""What is secret is known by its name, however that is written, and does not get out."""

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import Pretty

from yelpaze import Engine, FanOutError, MisuseError, request
from yelpaze.model.secrets import HIDDEN, Secrets
from yelpaze.testing import MockTransport, Reply

SECRETS = Secrets(["X-Shop-Pass", "pin"])
NAMES = [
    "Authorization", "authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "WWW-Authenticate",
    "api_key", "api-key", "apikey", "apiKey", "APIKEY", "X-API-Key", "x_api_key", "X-Auth-Token",
    "access_token", "refresh-token", "id_token", "token", "Token", "secret", "client_secret", "password",
    "Password", "passwd", "passphrase", "private_key", "credentials", "x-shop-pass", "X_SHOP_PASS", "PIN",
]  # fmt: skip
CAMEL = ["accessToken", "refreshToken", "idToken", "authToken", "clientSecret", "secretKey", "privateKey"]
OPEN = ["id", "author", "tokens", "cookies_accepted", "key", "keyboard", "pass", "secretary", "", "spin", "x"]


@pytest.mark.parametrize("name", NAMES + CAMEL)
def test_names_that_are_secret(name):
    assert SECRETS.has(name)
    assert SECRETS.redacted({name: "hunter2", "id": 1}) == {name: HIDDEN, "id": 1}
    assert SECRETS.within(json.dumps({"a": [{name: "hunter2"}]}).encode())
    assert SECRETS.within(json.dumps({name: {"a": 1}}, indent=2).encode())
    assert SECRETS.url(f"http://a.test/?id=1&{name}=hunter2#x") == f"http://a.test/?id=1&{name}={HIDDEN}#x"


@pytest.mark.parametrize("name", OPEN)
def test_names_that_are_not(name):
    assert not SECRETS.has(name)
    assert SECRETS.redacted({name: "open"}) == {name: "open"}
    assert not SECRETS.within(json.dumps({name: "open"}).encode())
    assert SECRETS.url(f"http://a.test/?{name}=open") == f"http://a.test/?{name}=open"


def test_secrets_of_any_kind_and_depth():
    hidden = SECRETS.redacted(
        {
            "token": None,
            "pin": 1234,
            "password": {"old": "a"},
            "list": [[{"secret": ["b"]}, "c"]],
            "d": ("e",),
        }
    )
    assert hidden == {
        "token": HIDDEN, "pin": HIDDEN, "password": HIDDEN, "list": [[{"secret": HIDDEN}, "c"]], "d": ["e"],
    }  # fmt: skip
    assert SECRETS.redacted({1: "a", "x": b"b"}) == {1: "a", "x": b"b"}


def test_structs_are_taken_apart():
    class Login(msgspec.Struct):
        user: str
        password: str

    assert SECRETS.redacted([Login("me", "hunter2")]) == [{"user": "me", "password": HIDDEN}]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hunter2@a.test/x", "http://a.test/x"),
        ("http://hunter2@a.test:8080/x?id=1", "http://a.test:8080/x?id=1"),
        ("https://me:p%40ss:word@[::1]:8/x", "https://[::1]:8/x"),
        ("http://me:a@b@a.test/", "http://a.test/"),
        ("postgresql://me:hunter2@db.test/shop?table=t", "postgresql://db.test/shop?table=t"),
        ("postgresql://me@db.test/shop?password=hunter2", f"postgresql://db.test/shop?password={HIDDEN}"),
        ("http://a.test/?token=a&token=b;api_key=c", f"http://a.test/?token={HIDDEN}&token={HIDDEN};api_key={HIDDEN}"),
        ("http://a.test/?token=", f"http://a.test/?token={HIDDEN}"),
        ("http://a.test/#access_token=hunter2&id=1", f"http://a.test/#access_token={HIDDEN}&id=1"),
        ("http://a.test/@me/x?id=1", "http://a.test/@me/x?id=1"),
        ("http://a.test/?mail=me@b.test", "http://a.test/?mail=me@b.test"),
        ("http://a.test/x", "http://a.test/x"),
    ],
)  # fmt: skip
def test_urls(url, shown):
    assert SECRETS.url(url) == shown
    assert SECRETS.redacted([url]) == [shown]


@pytest.mark.parametrize(
    "text",
    [
        "see http://me:hunter2@a.test/x for more",
        "http://a.test/ and http://me:hunter2@b.test/",
        "first http://a.test/?token=hunter2",
        "<a href='http://me:hunter2@a.test/'>",
    ],
)
def test_urls_within_a_text(text):
    assert "hunter2" not in SECRETS.redacted(text)


def test_names_of_ones_own_do_not_become_patterns():
    secrets = Secrets(["a.c", "(", "x+y"])
    assert secrets.has("a.c")
    assert not secrets.has("abc")
    assert not secrets.within(b'{"abc": 1}')
    assert secrets.within(b'{"(": 1}')
    assert secrets.url("http://a.test/?abc=1&x+y=2") == f"http://a.test/?abc=1&x+y={HIDDEN}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "token", "Api-Key", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_what_is_redacted_has_no_secret_left_and_redacting_again_changes_nothing(value):
    shown = SECRETS.redacted(value)
    assert SECRETS.redacted(shown) == shown
    assert (shown == value) or SECRETS.within(json.dumps(value).encode())
    values = [shown]
    while values:
        one = values.pop()
        if isinstance(one, dict):
            assert all(item == HIDDEN for name, item in one.items() if SECRETS.has(name))
            values += one.values()
        elif isinstance(one, list):
            values += one


SECRET = "s3cr3t"


def with_secrets():
    return request(
        "POST",
        f"http://me:{SECRET}@a.test/x?id=1&api_key={SECRET}",
        json={"password": SECRET},
        headers={"Authorization": SECRET, "Cookie": SECRET, "X-Api-Key": SECRET, "X-Kept": "kept"},
        tag=[1, 2],
    )


async def outcome_with_secrets():
    headers = {"Set-Cookie": SECRET, "X-Kept": "kept", "Location": f"http://me:{SECRET}@a.test/"}
    transport = MockTransport({"http://a.test/x": Reply(body=SECRET.encode(), headers=headers, status=500)})
    async with Engine(transport=transport, retry=None) as engine:
        return await engine.send(msgspec.structs.replace(with_secrets(), url="http://a.test/x"))


def shown_by_rich(value):
    with io.StringIO() as file:
        Console(file=file, width=300).print(Pretty(value, max_string=None))
        return file.getvalue()


@pytest.mark.parametrize("shown", [repr, str, "{}".format, shown_by_rich])
async def test_what_stands_for_a_call_in_a_log_has_no_secrets(shown):
    outcome = await outcome_with_secrets()
    failed = FanOutError("user", outcome, {})
    for value in (with_secrets(), outcome, outcome.headers, failed, [outcome], {"request": with_secrets()}):
        text = shown(value)
        assert SECRET not in text
        assert "kept" in text or value is failed
    assert outcome.tag == [1, 2]


def test_the_repr_of_a_request_has_what_differs_from_the_defaults():
    assert repr(request("GET", "http://a.test/")) == "Request(method='GET', url='http://a.test/')"
    assert "tag=[1, 2]" in repr(with_secrets())
    assert "body=<21 bytes>" in repr(with_secrets())


def test_messages_about_bad_requests_have_no_secrets():
    for make in (
        lambda: request("GET", f"http://me:{SECRET}@a b.test/"),
        lambda: request("GET", f"http://me:{SECRET}@a.test:x/"),
        lambda: request("GET", f"ftp://me:{SECRET}@a.test/"),
        lambda: request("GET", f"http://me:{SECRET}\n@a.test/"),
        lambda: request("GET", f"http://me:{SECRET} x@a.test:x/"),
        lambda: request("GET", f"me:{SECRET}@a.test/"),
        lambda: request("GET", "http://a.test/", headers={"Authorization": f"{SECRET}\n"}),
    ):
        with pytest.raises(MisuseError) as refused:
            make()
        assert SECRET not in str(refused.value)
