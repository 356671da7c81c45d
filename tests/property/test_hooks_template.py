"""Templates come from customers: whatever they and the values are, nothing breaks out of its place."""

import json
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from yelpaze.hooks.kinds.protocol import Settings
from yelpaze.hooks.kinds.registry import mistakes_of
from yelpaze.hooks.template import NAMES, as_text, check, filled, filled_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
awkward = st.sampled_from(
    [
        "{{ text }}",
        "{{payload}}",
        '"',
        "\\",
        '\\"',
        '", "x": "',
        "}}",
        "{{",
        "\n",
        "\u2028",
        "</script>",
        "𝄞",
        "\0",
        "u0041",
    ]
)
texts = st.lists(awkward | st.text(max_size=5), max_size=4).map("".join)
values = st.fixed_dictionaries(
    {
        "type": texts,
        "id": texts,
        "timestamp": st.integers(0, 2**40),
        "text": texts,
        "title": texts,
        "payload": st.dictionaries(st.sampled_from(["a", "b", "items"]), texts | json_values, max_size=3),
        "order_key": st.none() | texts,
    }
)
paths = st.sampled_from(
    [*NAMES, "payload.a", "payload.b.c", "payload.items.0", "payload.items.0.x", "text.a", "id.0"]
)
spaces = st.sampled_from(["", " ", "  ", "\t"])
places = st.builds("{{{{{}{}{}}}}}".format, spaces, paths, spaces)


@st.composite
def json_templates(draw, depth=0):
    """JSON with placeholders: in keys, in texts, and where a value stands."""
    kinds = ["place", "text", "plain"] + ["list", "object"] * (depth < 2)
    kind = draw(st.sampled_from(kinds))
    if kind == "place":
        return draw(places)
    if kind == "plain":
        return json.dumps(draw(json_values.filter(lambda value: "{{" not in json.dumps(value))))
    if kind == "text":
        return draw(json_texts())
    inner = [draw(json_templates(depth + 1)) for _ in range(draw(st.integers(0, 3)))]
    if kind == "list":
        return f"[{', '.join(inner)}]"
    # A space: `{{` would begin a placeholder.
    return "{ " + ", ".join(f"{draw(json_texts())}: {one}" for one in inner) + " }"


@st.composite
def json_texts(draw):
    parts = draw(st.lists(places | texts.map(lambda text: json.dumps(text)[1:-1]), max_size=4))
    text = f'"{"".join(parts)}"'
    assume(check(text) is None)
    return text


# ── JSON ────────────────────────────────────────────────────────────────────────


@given(json_templates(), values)
def test_a_json_template_gives_json_whatever_the_values_are(template, given_values):
    assume(check(template) is None)
    json.loads(filled_json(template, given_values))
    json.loads(filled_json(template, {}))


def expanded(template, given_values):
    """What a template means, by its parsed form: the same without any escaping."""
    marks = {}

    def marked(found):
        mark = f"\ue000{len(marks)}\ue001"
        marks[mark] = found[1]
        return mark

    def quoted(found):
        return re.sub(r"\{\{\s*([\w.\-]+)\s*\}\}", marked, found[0])

    with_marks = re.sub(r'"(?:[^"\\]|\\.)*"', quoted, template)
    alone = re.sub(r"\{\{\s*([\w.\-]+)\s*\}\}", lambda found: f'{{"\ue002": "{found[1]}"}}', with_marks)

    def value_of(path):
        place = given_values
        for name in path.split("."):
            if isinstance(place, dict):
                place = place.get(name)
            elif isinstance(place, list) and name.isdigit() and int(name) < len(place):
                place = place[int(name)]
            else:
                return None
        return place

    def text_of(text):
        return re.sub("\ue000[0-9]+\ue001", lambda found: as_text(value_of(marks[found[0]])), text)

    def meant(node):
        if isinstance(node, str):
            return text_of(node)
        if isinstance(node, list):
            return [meant(one) for one in node]
        if isinstance(node, dict):
            if node.keys() == {"\ue002"}:
                return value_of(node["\ue002"])
            return {text_of(name): meant(one) for name, one in node.items()}
        return node

    return meant(json.loads(alone))


@given(json_templates(), values)
def test_each_value_stands_in_its_place_as_it_is_and_is_not_expanded_again(template, given_values):
    assume(check(template) is None)
    assert json.loads(filled_json(template, given_values)) == expanded(template, given_values)


PIECES = [
    '"', "\\", "\\\\", "\\n", "\\u", "00", "41", "{", "}", "[", "]", ":", ",", " ", "a", "1", "null", "-",
    "{{ text }}", "{{payload}}", "{{ timestamp }}", '"{{ text }}"', '"a": ', '"', "\n", "é", '\\"',
]  # fmt: skip


def is_accepted(template):
    """Whether an endpoint of the kind `http` may have it as its body of JSON."""
    settings = Settings(kind="http", url="https://a.test/", options={"body": template})
    return not list(mistakes_of(settings))


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), values)
@example('"\\{{ text }}n"', {"text": "x"})
@example('"\\u00{{ text }}41"', {"text": "x"})
@example('"\\{{ text }}\\"', {"text": "x"})
def test_a_body_that_is_accepted_gives_json_whatever_the_values_are(template, given_values):
    if is_accepted(template):
        json.loads(filled_json(template, given_values))


# ── texts ───────────────────────────────────────────────────────────────────────


@given(texts, values)
def test_values_that_look_like_placeholders_are_not_expanded_again(value, given_values):
    assert filled("{{ text }}|{{ text }}", {**given_values, "text": value}) == f"{value}|{value}"
    assert filled("{{ payload.a }}", {**given_values, "payload": {"a": value}}) == value


@given(st.lists(places | texts, max_size=6).map("".join), values)
def test_a_template_without_placeholders_is_itself(template, given_values):
    if "{{" not in template:
        assert filled(template, given_values) == template
    assert isinstance(filled(template, given_values), str)


@given(json_values)
def test_a_value_within_a_text_is_itself_or_json_or_nothing(value):
    text = as_text(value)
    if isinstance(value, str):
        assert text == value
    elif value is None:
        assert text == ""
    else:
        assert json.loads(text) == value


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_place_in_a_list_that_is_far_beyond_its_end_is_empty(digits):
    template = f"[{{{{ payload.items.{'9' * digits} }}}}]"
    given_values = {"payload": {"items": [1]}}
    assert check(template) is None
    assert filled(template, given_values) == "[]"
    assert filled_json(template, given_values) == "[null]"


# ── the check ───────────────────────────────────────────────────────────────────


@given(
    st.lists(
        st.sampled_from([*PIECES, "{{ customer }}", "{{", "}}", "{{ a b }}", "{{ . }}"]) | st.text(),
        max_size=8,
    )
)
def test_the_check_accepts_or_explains_and_what_it_accepts_can_be_filled(parts):
    template = "".join(parts)
    wrong = check(template)
    assert wrong is None or (wrong and "\n" not in wrong)
    if wrong is None:
        assert "{{" not in filled(template, {})


@given(st.from_regex(r"[A-Za-z0-9_.\-]{1,20}", fullmatch=True))
def test_a_name_is_accepted_if_a_message_has_a_value_that_it_begins_with(name):
    wrong = check(f"{{{{ {name} }}}}")
    assert (wrong is None) == (name.split(".")[0] in NAMES)
    assert wrong is None or name in wrong


@pytest.mark.parametrize(
    "template", ["{{", "{{ }}", "{{ a b }}", "{{ text", "{{{ text }}}", "{{ text }", "{{ é }}", "{{#if}}"]
)
def test_what_is_no_placeholder_is_explained(template):
    assert check(template) == "a placeholder is written {{ payload.name }}"
