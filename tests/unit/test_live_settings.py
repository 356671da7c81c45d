"""Settings of the gateway: each that is wrong gives one clear message with its place."""

import json

import pytest

from yelpaze.config.loader import load as load_settings
from yelpaze.config.values import Duration
from yelpaze.live.config import Channel, ChannelOptions, Config, Namespace
from yelpaze.live.core.channels import ChannelRules
from yelpaze.live.protocol.codes import Refused
from yelpaze.live.protocol.handshake import Rejected, Request, accept, check_origin, client_ip
from yelpaze.live.settings import LIVE
from yelpaze.model.errors import InputError

GOOD = """\
# as Centrifugo's
client:
  token:
    hmac_secret_key: a secret
  allowed_origins: ["https://example.com"]
  ping_interval: 30s
channel:
  without_namespace:
    presence: true
  namespaces:
    - name: chat
      history_size: 10
      history_ttl: 1h30m
    - name: ticker
      slow_consumer: latest
http_server:
  port: 9000
"""


def load(source, flags, environment):
    return load_settings(LIVE, source, flags, environment)


def written(tmp_path, text, name="live.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def wrong(path, flags=None, environment=None):
    """The message."""
    with pytest.raises(InputError) as caught:
        load(path, flags or {}, environment or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def check(config):
    assert config.client.token.hmac_secret_key == "a secret"
    assert config.client.allowed_origins == ("https://example.com",)
    assert config.client.ping_interval == 30
    assert config.channel.without_namespace.presence
    chat, ticker = config.channel.namespaces
    assert (chat.name, chat.history_size, chat.history_ttl) == ("chat", 10, 5400)
    assert ticker.slow_consumer == "latest"
    assert config.http_server.port == 9000


def test_a_file_in_each_language(tmp_path):
    import yaml

    found = yaml.safe_load(GOOD)
    check(load(written(tmp_path, GOOD), {}, {}))
    check(load(written(tmp_path, json.dumps(found), "live.json"), {}, {}))
    toml = """
[client]
allowed_origins = ["https://example.com"]
ping_interval = 30
token.hmac_secret_key = "a secret"
[channel.without_namespace]
presence = true
[[channel.namespaces]]
name = "chat"
history_size = 10
history_ttl = "1h30m"
[[channel.namespaces]]
name = "ticker"
slow_consumer = "latest"
[http_server]
port = 9000
"""
    check(load(written(tmp_path, toml, "live.toml"), {}, {}))


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "client: {}\n"])
def test_an_empty_file_is_the_defaults(tmp_path, text):
    assert load(written(tmp_path, text), {}, {}) == load(None, {}, {}) == Config()


def test_flags_go_over_the_environment_and_that_over_the_file(tmp_path):
    path = written(tmp_path, GOOD)
    environment = {
        "YELPAZE_LIVE__HTTP_SERVER__PORT": "9001",
        "YELPAZE_LIVE__CLIENT__INSECURE": "true",
        "YELPAZE_LIVE__CLIENT__ALLOWED_ORIGINS": "https://a.example, https://b.example",
        "YELPAZE_LIVE__CLIENT__PONG_TIMEOUT": "500ms",
        "YELPAZE_OTHER__X": "1",
    }
    config = load(path, {"http_server": {"port": 9002}}, environment)
    assert config.http_server.port == 9002
    assert config.client.insecure
    assert config.client.allowed_origins == ("https://a.example", "https://b.example")
    assert config.client.pong_timeout == 0.5
    assert config.client.token.hmac_secret_key == "a secret"
    assert load(path, {}, environment).http_server.port == 9001


@pytest.mark.parametrize(
    ("old", "new", "line", "parts"),
    [
        (
            "client:\n  token",
            "clients:\n  token",
            2,
            ["clients: there is no such setting; did you mean client?"],
        ),
        ("hmac_secret_key", "hmac_secret", 4, ["client.token.hmac_secret", "did you mean hmac_secret_key?"]),
        ("port: 9000", "port: many", 17, ["http_server.port", "int"]),
        ("port: 9000", "port: 99999", 17, ["http_server.port: is at most 65535"]),
        ("port: 9000", "port: -1", 17, ["http_server.port: is 0 or more"]),
        ("port: 9000", "zzz: 1", 17, ["http_server.zzz", "there are address, port"]),
        ("30s", "30 seconds", 6, ["client.ping_interval", "a duration is written 300s, 5m or 1h30m"]),
        ("30s", "-5s", 6, ["client.ping_interval", "a duration"]),
        ("30s", "true", 6, ["client.ping_interval", "a duration"]),
        ("30s", "5s", 6, ["client.pong_timeout: must be below client.ping_interval"]),
        ("presence: true", "presence: maybe", 9, ["channel.without_namespace.presence"]),
        ("presence: true", "force_recovery: true", 9, ["force_recovery: needs history_size and history_ttl"]),
        ("presence: true", "channel_regex: '['", 9, ["channel_regex"]),
        ("presence: true", "publish_rate_limit: -1", 9, ["publish_rate_limit: is 0 or more"]),
        ("name: chat", "name: c", 11, ["channel.namespaces[0].name: 'c' is no name"]),
        ("name: chat", "nam: chat", 11, ["channel.namespaces[0].nam", "did you mean name?"]),
        ("name: ticker", "name: chat", 14, ["channel.namespaces[1].name: 'chat' is there twice"]),
        (
            "history_ttl: 1h30m",
            "presence: true",
            11,
            ["channel.namespaces[0]: history_size and history_ttl need each other"],
        ),
        ("history_size: 10", "history_size: -1", 12, ["channel.namespaces[0].history_size: is 0 or more"]),
        ("slow_consumer: latest", "slow_consumer: last", 15, ["channel.namespaces[1].slow_consumer", "last"]),
        ('["https://example.com"]', "https://example.com", 5, ["client.allowed_origins", "array"]),
        ("  ping_interval: 30s", "  connection_limit: -1", 6, ["client.connection_limit: is 0 or more"]),
        ("  ping_interval: 30s", "  channel_limit: 0", 6, ["client.channel_limit: is at least 1"]),
        ("  ping_interval: 30s", "  queue_max_size: 5", 6, ["client.queue_max_size: is at least 1024"]),
        (
            "  without_namespace:\n    presence: true",
            "  namespace_boundary: ''",
            8,
            ["namespace_boundary: is a character"],
        ),
        (
            "  without_namespace:\n    presence: true",
            "  user_separator: ''",
            8,
            ["user_separator: is a character"],
        ),
        (
            "  without_namespace:\n    presence: true",
            "  max_length: 0",
            8,
            ["channel.max_length: is at least 1"],
        ),
    ],
    ids=range(27),
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, line, parts):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    text = wrong(path)
    if "pong_timeout" not in text:  # which is a default, and stands nowhere
        assert text.startswith(f"{path}:{line}: "), text
    for part in parts:
        assert part in text


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    assert "No such file" in wrong(tmp_path / "none.yaml")
    assert wrong(written(tmp_path, "client: [\n  x")).startswith(f"{tmp_path / 'live.yaml'}:")
    assert "no YAML" in wrong(written(tmp_path, "a: b: c"))
    assert "cannot be read" in wrong(written(tmp_path, "{", "live.json"))
    assert "cannot be read" in wrong(written(tmp_path, "x", "live.toml"))
    assert "holds no settings" in wrong(written(tmp_path, "- a\n- b\n"))
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in wrong(path)


def test_what_is_wrong_in_the_environment_is_told_by_its_name():
    cases = {
        "YELPAZE_LIVE__HTTP_SERVER__PORT": "x",
        "YELPAZE_LIVE__CLIENT__PING_INTERVAL": "soon",
        "YELPAZE_LIVE__NOTHING": "1",
        "YELPAZE_LIVE__CLIENT": "1",
        "YELPAZE_LIVE__CLIENT__CHANNEL_LIMIT": "0",
    }
    for name, value in cases.items():
        assert wrong(None, {}, {name: value}).startswith(f"{name}: ")
    both = {"YELPAZE_LIVE__CLIENT": "1", "YELPAZE_LIVE__CLIENT__INSECURE": "1"}
    assert wrong(None, {}, both).startswith("YELPAZE_LIVE__CLIENT: ")
    assert wrong(None, {}, dict(reversed(both.items()))).startswith("YELPAZE_LIVE__CLIENT: ")


def test_a_secret_is_never_in_a_message(tmp_path):
    for text in (
        "client: {token: {hmac_secret_key: [very secret]}}",
        "client: {token: {hmac_secret_keys: very secret}}",
    ):
        assert "very secret" not in wrong(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("5", 5),
        ("2.5", 2.5),
        ("500ms", 0.5),
        ("300s", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("30d", 2_592_000),
    ],
)
def test_durations(text, seconds):
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "5sec", "-5s", "1h-30m", "1e3", "5s5", "\u0665s", "inf", "nan", "1,5s"]
)
def test_no_durations(text):
    with pytest.raises(ValueError, match="a duration is written"):
        Duration.parse(text)


# ── names of channels ───────────────────────────────────────────────────────────────

PLAIN, CHAT = ChannelOptions(presence=True), Namespace(name="chat", channel_regex="[a-z]+")
RULES = ChannelRules(Channel(without_namespace=PLAIN, namespaces=(CHAT,), max_length=20))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("news", PLAIN),
        ("$news", PLAIN),
        ("news#42", PLAIN),
        ("chat:room", CHAT),
        ("$chat:room", CHAT),
        ("x" * 20, PLAIN),
    ],
)
def test_which_options_hold(name, options):
    assert RULES.options(name) == options


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", 107),
        ("x" * 21, 107),
        ("a\0", 107),
        ("chat:Room", 107),
        ("chat:", 107),
        ("tchat:a", 102),
        (":a", 102),
    ],
)
def test_which_names_cannot_be(name, code):
    with pytest.raises(Refused) as caught:
        RULES.options(name)
    assert caught.value.failure.code == code


def test_whom_a_channel_is_for():
    assert RULES.users("news") is None
    assert RULES.users("d#42") == ["42"]
    assert RULES.users("d#42,43") == ["42", "43"]
    assert RULES.is_private("$news")
    assert not RULES.is_private("news")
    assert not ChannelRules(Channel(private_prefix="")).is_private("$news")
    assert (RULES.personal("42", ""), RULES.personal("42", "chat")) == ("#42", "chat:#42")


# ── origins and addresses ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("origin", "allowed", "is_let_in"),
    [
        (None, [], True),
        ("https://here.example", [], True),
        ("https://HERE.example", [], True),
        ("http://here.example:8000", [], False),
        ("https://a.example", [], False),
        ("https://a.example", ["https://a.example"], True),
        ("https://A.example", ["https://a.EXAMPLE"], True),
        ("https://a.example:444", ["https://a.example"], False),
        ("http://a.example", ["https://a.example"], False),
        ("https://x.a.example", ["https://*.a.example"], True),
        ("https://x.y.a.example", ["https://*.a.example"], True),
        ("https://.a.example", ["https://*.a.example"], False),
        ("https://a.example", ["https://*.a.example"], False),
        ("https://xa.example", ["https://*.a.example"], False),
        ("https://x.a.example.evil", ["https://*.a.example"], False),
        ("https://evil/x.a.example", ["https://*.a.example"], False),
        ("http://localhost:3000", ["http://localhost:*"], True),
        ("null", [], False),
        ("null", ["*"], True),
        ("", [], False),
        ("http://[", [], False),
        ("://here.example.evil", [], False),
    ],
)
def test_which_pages_may_connect(origin, allowed, is_let_in):
    headers = {"host": "here.example", **({} if origin is None else {"origin": origin})}
    request = Request("GET", "/", {}, headers)
    if is_let_in:
        check_origin(request, allowed)
        return
    with pytest.raises(Rejected) as caught:
        check_origin(request, allowed)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", " , ", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6,1.1.1.1 , 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1"),
    ],
)
def test_where_a_client_is(peer, forwarded, expected):
    assert client_ip(peer, forwarded, ["10.0.0.1", "10.0.0.2"]) == expected


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7"])
def test_proxies_are_addresses_and_networks(peer):
    assert client_ip(peer, "1.1.1.1, junk, 10.9.9.9", ["10.0.0.0/8", "fd00::/8"]) == "junk"
    assert client_ip(peer, "1.1.1.1, 10.9.9.9", ["10.0.0.0/8", "fd00::/8"]) == "1.1.1.1"
    with pytest.raises(InputError, match=r"client\.trusted_proxies: takes addresses and networks"):
        LIVE.of({"client": {"trusted_proxies": ["my-proxy"]}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "client:\n  allowed_origins: [shop.example]",
            "2: client.allowed_origins[0]: 'shop.example' is no origin",
        ),
        ("client:\n  allowed_origins: ['*.x.example']", "write https://x.example, or * for all"),
        (
            "client:\n  allowed_origins: ['https://x.example/']",
            "has a path, which browsers do not send: write https://x",
        ),
        ("client:\n  allowed_origins: ['https://x.example/app']", "write https://x.example"),
        (
            "client:\n  allowed_origins: ['https://x.example:443']",
            "browsers leave out: write https://x.example",
        ),
        ("client:\n  allowed_origins: ['http://x.example:80']", "browsers leave out: write http://x.example"),
        ("client:\n  allowed_origins: [' https://x.example']", "has a space in it"),
        ("client:\n  allowed_origins: ['https://a.test,https://b.test']", "is several origins"),
        ("http_api: {key: a}\nhttp_api: {key: b}", "2: is no YAML: http_api is there twice"),
        (
            "client:\n  token:\n    jwks_public_endpoint: foo",
            "3: client.token.jwks_public_endpoint: is no address",
        ),
        ("engine:\n  type: redis", "1: engine: not here: Redis is at broker: "),
        ("client: {}\nprometheus: {enabled: true}", "2: prometheus: not here: --metrics serves them"),
        (
            "channel:\n  namespaces:\n    - name: ticker\n      slow_consumer: lates",
            "4: channel.namespaces[0].slow_consumer: takes close, drop_oldest, latest",
        ),
        ("broker:\n  type: nats", "2: broker.type: takes memory, redis"),
    ],
)
def test_mistakes_of_those_who_know_other_gateways(tmp_path, text, said):
    path = tmp_path / "live.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(path, {}, {})
    assert str(caught.value).startswith(f"{path}:")
    assert said in str(caught.value)


def test_namespaces_may_come_from_the_environment_as_json():
    found = load(None, {}, {"YELPAZE_LIVE__CHANNEL__NAMESPACES": '[{"name": "chat", "presence": true}]'})
    assert found.channel.namespaces[0].presence
    with pytest.raises(InputError, match="YELPAZE_LIVE__CHANNEL__NAMESPACES: is no JSON"):
        load(None, {}, {"YELPAZE_LIVE__CHANNEL__NAMESPACES": "[{"})
    with pytest.raises(
        InputError, match="YELPAZE_LIVE_CLIENT_INSECURE: names are separated by two underscores"
    ):
        load(None, {}, {"YELPAZE_LIVE_CLIENT_INSECURE": "true"})
    with pytest.raises(InputError, match=r"YELPAZE_LIVE__CLEINT__INSECURE: cleint: .* did you mean client"):
        load(None, {}, {"YELPAZE_LIVE__CLEINT__INSECURE": "true"})


def test_the_answer_of_rfc_6455():
    headers = {
        "host": "server.example.com",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": "chat, superchat",
        "sec-websocket-version": "13",
    }
    answer = accept(Request("GET", "/chat", {}, headers), ["superchat", "chat"])
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"Sec-WebSocket-Protocol: chat\r\n" in answer
