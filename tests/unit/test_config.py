"""Settings from files, variables and flags: one struct, or every mistake with its place."""

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.config.convert import Mistake, kind_at
from yelpaze.config.loader import Schema, load
from yelpaze.config.values import Duration, Secret, Settings, Size
from yelpaze.model.errors import InputError


class Endpoint(Settings, frozen=True):
    name: str
    interval: Duration = Duration(30)


class Store(Settings, frozen=True):
    kind: Literal["sqlite", "postgres"] = "sqlite"
    password: Secret = Secret()
    cache: Size = Size(1 << 20)


class Example(Settings, frozen=True):
    store: Store = Store()
    endpoints: tuple[Endpoint, ...] = ()
    tags: tuple[str, ...] = ()
    port: int = 8000


HOOKS = Schema("hooks", Example)


def loaded(tmp_path, text, name="hooks.yaml", environment=None, flags=None):
    path = tmp_path / name
    path.write_text(text)
    return load(HOOKS, path, flags or {}, environment or {})


def mistakes(tmp_path, text, name="hooks.yaml", environment=None):
    """The lines of the message, without the folder."""
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text, name, environment)
    return str(caught.value).replace(f"{tmp_path}/", "").split("\n")


WRONG = {
    "sotre": {"kind": "sqlite"},
    "store": {"kind": "oracle", "cache": "much", "passwort": "x"},
    "endpoints": [{"name": "a", "interval": "soon"}, {"intervall": "1s"}, 7],
    "port": "http",
}


def test_every_mistake_is_told_at_once_with_its_line(tmp_path):
    text = json.dumps(WRONG, indent=1)
    assert mistakes(tmp_path, text, "hooks.json") == [
        "hooks.json:2: sotre: there is no such setting; did you mean store?",
        "hooks.json:6: store.kind: takes sqlite, postgres: invalid enum value 'oracle'",
        "hooks.json:7: store.cache: a size is written 500000, 64M or 1G, not 'much'",
        "hooks.json:8: store.passwort: there is no such setting; did you mean password?",
        "hooks.json:13: endpoints[0].interval: a duration is written 300s, 5m or 1h30m, not 'soon'",
        "hooks.json:15: endpoints[1].name: is missing",
        "hooks.json:16: endpoints[1].intervall: there is no such setting; did you mean interval?",
        "hooks.json:18: endpoints[2]: is a section: it takes settings such as name, interval",
        "hooks.json:20: port: Expected `int`, got `str`",
    ]


def test_in_toml_the_path_is_the_place(tmp_path):
    assert mistakes(tmp_path, "port = 'x'\n[store]\nkinds = 'sqlite'\n", "hooks.toml") == [
        "hooks.toml: port: Expected `int`, got `str`",
        "hooks.toml: store.kinds: there is no such setting; did you mean kind?",
    ]


def test_mistakes_of_file_and_environment_come_together(tmp_path):
    found = mistakes(
        tmp_path,
        "port: x\n",
        environment={
            "YELPAZE_HOOKS__STORE__KIND": "oracle",
            "YELPAZE_HOOKS__STROE__KIND": "sqlite",
            "YELPAZE_HOOKS__ENDPOINTS": "[{",
            "YELPAZE_HOOKS_PORT": "1",
            "YELPAZE_HOOKS__": "1",
        },
    )
    assert found[-1] == "hooks.yaml:1: port: Expected `int`, got `str`"
    assert {line.partition(":")[0] for line in found[:-1]} == {
        "YELPAZE_HOOKS__STORE__KIND",
        "YELPAZE_HOOKS__STROE__KIND",
        "YELPAZE_HOOKS__ENDPOINTS",
        "YELPAZE_HOOKS_PORT",
        "YELPAZE_HOOKS__",
    }


def test_variables_and_flags_mend_what_the_file_has(tmp_path):
    """What counts is what holds in the end."""
    assert loaded(tmp_path, "port: many\n", environment={"YELPAZE_HOOKS__PORT": "7"}).port == 7
    assert loaded(tmp_path, "port: many\n", flags={"port": 8}).port == 8


@pytest.mark.parametrize("text", ["{curly", "[square", "[a-z]+", '{"a": 1}'])
def test_a_text_that_looks_like_json_is_a_text(text):
    found = load(HOOKS, None, {}, {"YELPAZE_HOOKS__STORE__PASSWORD": text})
    assert found.store.password == text


def test_a_wrong_name_hides_no_other_mistake():
    def check(example):
        if example.port < 1024:
            yield Mistake("port", "is at least 1024")

    schema = Schema("hooks", Example, check)
    assert [str(mistake) for mistake in schema.convert({"prot": 1, "port": 80})[1]] == [
        "prot: there is no such setting; did you mean port?",
        "port: is at least 1024",
    ]
    assert len(schema.convert({"port": "x"})[1]) == 1


def test_a_file_may_hold_several_services(tmp_path):
    text = "live:\n  whatever: 1\nhooks:\n  port: 9\n  store: {cache: 64M}\n"
    assert loaded(tmp_path, text) == Example(port=9, store=Store(cache=Size(64 << 20)))
    assert loaded(tmp_path, "hooks:\n") == Example()
    assert mistakes(tmp_path, "hooks:\n  prot: 9\n") == [
        "hooks.yaml:2: prot: there is no such setting; did you mean port?"
    ]
    assert mistakes(tmp_path, "hooks: {}\nliev: {}\n") == [
        "hooks.yaml:2: liev: there is no such section; did you mean live?"
    ]
    (line,) = mistakes(tmp_path, "hooks: {}\nport: 7\n")
    assert line == "hooks.yaml:2: port: stands beside sections of services: put it into hooks"
    assert loaded(tmp_path, "store:\n") == Example()  # all of it commented out
    assert loaded(tmp_path, "live: {whatever: 1}\n") == Example()  # none of its own
    assert mistakes(tmp_path, "hooks: 7\n") == ["hooks.yaml:1: hooks: is a section of settings"]


def test_flags_go_over_variables_and_these_over_the_file(tmp_path):
    text = "port: 1\ntags: [a]\nstore: {cache: 1k}\n"
    environment = {"YELPAZE_HOOKS__PORT": "2", "YELPAZE_HOOKS__TAGS": "b, c", "YELPAZE_LIVE__PORT": "x"}
    found = loaded(tmp_path, text, environment=environment, flags={"port": 3})
    assert (found.port, found.tags, found.store.cache) == (3, ("b", "c"), 1024)
    assert loaded(tmp_path, text, environment=environment).port == 2


# ── secrets ─────────────────────────────────────────────────────────────────────────


def test_a_secret_may_be_in_a_file_of_its_own(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("  hunter2\n")
    found = loaded(tmp_path, f"store: {{password_file: {secret}}}\n")
    assert found.store.password == "hunter2"
    variables = {"YELPAZE_HOOKS__STORE__PASSWORD_FILE": str(secret)}
    assert loaded(tmp_path, "", environment=variables).store.password == "hunter2"
    # what is above replaces what is below, in either form
    assert loaded(tmp_path, "store: {password: old}", environment=variables).store.password == "hunter2"
    plain = {"YELPAZE_HOOKS__STORE__PASSWORD": "new"}
    assert loaded(tmp_path, f"store: {{password_file: {secret}}}", environment=plain).store.password == "new"


def test_what_is_wrong_with_the_file_of_a_secret(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    cases = {
        "password_file: /nowhere/at/all": "/nowhere/at/all: cannot be read: No such file or directory",
        f"password_file: {tmp_path}/empty": "empty: is empty",
        f"password_file: {tmp_path}/bytes": "bytes: is not text in UTF-8",
        "password_file: 7": "takes the path of a file",
        "password: a\n  password_file: b": "give password or password_file, not both",
    }
    for text, said in cases.items():
        (line, *more) = mistakes(tmp_path, f"store:\n  {text}\n")
        assert said in line
        assert not more or "password_file" in more[0]
    assert "there is no such setting" in mistakes(tmp_path, "port_file: x\n")[0]


def test_a_secret_is_not_shown():
    secret = Secret(" hunter2 \n")
    assert secret == "hunter2"
    assert "hunter2" not in repr(Store(password=secret))
    assert "hunter2" not in str(mistakes_of({"store": {"password": ["hunter2"]}}))
    assert "hunter2" not in str(mistakes_of({"store": {"password": {"x": "hunter2"}}}))


def mistakes_of(settings):
    return HOOKS.convert(settings)[1]


# ── values ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500000", 500_000), ("64M", 64 << 20), ("1 GiB", 1 << 30), ("2kb", 2048), ("1T", 1 << 40)],
)
def test_sizes(text, size):
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5M", "1X", "1e3", "\u0661", "64 M M"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="a size is written"):
        Size.parse(text)


def test_the_type_of_a_setting():
    assert kind_at(Example, "store.cache") is Size
    assert kind_at(Example, "nowhere") is None
    assert kind_at(Example, "port.inner") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["store", "endpoints", "tags", "port", "name", "password", "password_file", "cache"])


@given(st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=3), max_size=4))
def test_any_settings_are_a_struct_or_mistakes(settings):
    value, found = HOOKS.convert(settings)
    assert (value is None) == bool(found)
    assert all(str(mistake).strip() for mistake in found)


# ── files ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"port": 1, "port": 2}', "port is there twice"),
        ("a.json", '{\n"port": }', "a.json:2: cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", "[1]", "holds no settings"),
        ("a.toml", "port = ", "cannot be read as TOML"),
        ("a.yaml", "port: 1\nport: 2\n", "a.yaml:2: is no YAML: port is there twice"),
        ("a.yaml", "port: [", "is no YAML"),
        ("a.yaml", "? [a, b]\n: 1\n", "a.yaml"),
        ("a.yaml", "1: 2\n", "there is no such setting"),
        ("a.yaml", "port: !!python/object:os.system {}\n", "a.yaml:1: is no YAML"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, said):
    assert said in "\n".join(mistakes(tmp_path, text, name))


def test_a_parsers_words_hold_no_value_of_the_file(tmp_path):
    for text in ("store: {password: !hunter2 x}", "store: {password: *hunter2}"):
        assert "hunter2" not in str(mistakes(tmp_path, text))


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "hooks.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"port": 7}')
    assert load(HOOKS, path, {}, {}).port == 7
