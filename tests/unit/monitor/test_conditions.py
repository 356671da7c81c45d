"""Conditions: Gatus's documented meaning as a table, and where we differ on purpose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.model.errors import MisuseError
from yelpaze.monitor.conditions import Answer, check_all, parse

HOUR = 3_600_000
JSON = b'{"name":"john","n":7,"big":1234567,"f":1.5,"ok":true,"no":null,"list":[1,2,3],"o":{"k":"v"},"a b":1}'
ANSWER = Answer(
    status=200,
    ip="10.0.0.7",
    body=JSON,
    response_time=250,
    connected=True,
    certificate=72 * HOUR,
    dns_rcode="NOERROR",
)


def result(condition, **changes):
    fields = {name: getattr(ANSWER, name) for name in Answer.__struct_fields__}
    [found] = check_all((parse(condition),), Answer(**{**fields, **changes}))
    return found


HOLD = [
    "[STATUS] == 200",
    "[status] == 200",
    "[STATUS] ==  200",
    "[STATUS] != 500",
    "[STATUS] < 300",
    "[STATUS] <= 200",
    "[STATUS] >= 200",
    "[STATUS] == 0xC8",
    "[STATUS] == any(200, 429)",
    "any(200, 429) == [STATUS]",
    "[STATUS] == pat(2*)",
    "len([STATUS]) == 3",
    "has([STATUS]) == true",
    "[IP] == 10.0.0.7",
    "[IP] == pat(10.*)",
    "[DNS_RCODE] == NOERROR",
    "[CONNECTED] == true",
    "[RESPONSE_TIME] < 300",
    "[RESPONSE_TIME] < 1s",
    "[RESPONSE_TIME] > 100ms",
    "[CERTIFICATE_EXPIRATION] > 48h",
    "[CERTIFICATE_EXPIRATION] > 2d",
    "[CERTIFICATE_EXPIRATION] < 2419200000",
    "[BODY].name == john",
    "[BODY].name != bob",
    "[BODY].name == pat(j?hn)",
    "[BODY].name == pat([a-k]*)",
    "[BODY].name == pat([^a-c]*)",
    "[BODY].n == 7",
    "[BODY].n == 0x7",
    "[BODY].n == 007",
    "[BODY].n > 6",
    "[BODY].big == 1234567",
    "[BODY].f >= 1",
    "[BODY].ok == true",
    '[BODY].o == {"k":"v"}',
    "[BODY].o.k == v",
    "[BODY].list == [1 2 3]",
    "[BODY].list[1] == 2",
    "[BODY].a b == 1",
    "len([BODY].list) == 3",
    "len([BODY].name) == 4",
    "has([BODY].name) == true",
    "has([BODY].missing) == false",
    "has([BODY].no) == false",
    "[BODY].missing != 1",
    "[BODY] == pat(*john*)",
    "[BODY] == pat(*)",
]  # fmt: skip


@pytest.mark.parametrize("condition", HOLD)
def test_it_holds_and_is_shown_as_it_was_written(condition):
    assert result(condition) == type(result(condition))(condition, success=True)


FAIL = [
    ("[STATUS] == 200", {"status": 500}, "[STATUS] (500) == 200"),
    ("[STATUS] != 500", {"status": 500}, "[STATUS] (500) != 500"),
    ("[STATUS] < 300", {"status": 404}, "[STATUS] (404) < 300"),
    ("[STATUS] == any(200, 429)", {"status": 404}, "[STATUS] (404) == any(200, 429)"),
    ("[STATUS] == pat(4*)", {}, "[STATUS] (200) == pat(4*)"),
    ("[IP] == 10.0.0.8", {}, "[IP] (10.0.0.7) == 10.0.0.8"),
    ("[IP] == 10.0.0.8", {"ip": ""}, "[IP] () == 10.0.0.8"),
    ("[CONNECTED] == true", {"connected": False}, "[CONNECTED] (false) == true"),
    ("[RESPONSE_TIME] < 200", {}, "[RESPONSE_TIME] (250) < 200"),
    ("[RESPONSE_TIME] < 200ms", {}, "[RESPONSE_TIME] (250) < 200ms"),
    ("[RESPONSE_TIME] < 250", {}, "[RESPONSE_TIME] (250) < 250"),
    ("[CERTIFICATE_EXPIRATION] > 96h", {}, "[CERTIFICATE_EXPIRATION] (72h) > 96h"),
    ("[CERTIFICATE_EXPIRATION] > 48h", {"certificate": 0}, "[CERTIFICATE_EXPIRATION] (0s) > 48h"),
    ("[CERTIFICATE_EXPIRATION] > 48h", {"certificate": -5 * HOUR}, "[CERTIFICATE_EXPIRATION] (-5h) > 48h"),
    ("[DNS_RCODE] == NOERROR", {"dns_rcode": "NXDOMAIN"}, "[DNS_RCODE] (NXDOMAIN) == NOERROR"),
    ("[BODY].name == bob", {}, "[BODY].name (john) == bob"),
    ("[BODY].name == John", {}, "[BODY].name (john) == John"),
    ("[BODY].gone == bob", {}, "[BODY].gone (INVALID) == bob"),
    ("[BODY].name == bob", {"body": b"not json"}, "[BODY].name (INVALID) == bob"),
    ("[BODY].name.deep == x", {}, "[BODY].name.deep (INVALID) == x"),
    ("[BODY].list[3] == x", {}, "[BODY].list[3] (INVALID) == x"),
    ("[BODY].list[*] == x", {}, "[BODY].list[*] (INVALID) == x"),
    ("len([BODY].gone) > 0", {}, "len([BODY].gone) (0) > 0"),
    ("len([BODY].list) == 4", {}, "len([BODY].list) (3) == 4"),
    ("has([BODY].name) == false", {}, "has([BODY].name) (true) == false"),
    ("[BODY].name == [BODY].n", {}, "[BODY].name (john) == [BODY].n (7)"),
    ("[BODY].n == 7.0", {}, "[BODY].n (7) == 7.0"),
    ("[BODY] == pat(x*)", {"body": b"y" * 40}, f"[BODY] ({'y' * 25}...(truncated)) == pat(x*)"),
    ("[BODY].f > 1", {}, "[BODY].f (1) > 1"),
]


@pytest.mark.parametrize(("condition", "changes", "text"), FAIL)
def test_it_fails_and_is_shown_with_what_was_there(condition, changes, text):
    found = result(condition, **changes)
    assert (found.success, found.text) == (False, text)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("[STATUS]==200", "with a space on both sides"),
        ("[STATUS]", "with one of =="),
        ("[STATSU] == 200", "[STATSU] is no placeholder"),
        ("len(abc) == 3", "'abc' is no placeholder"),
        ("[RESPONSE_TIME] < fast", "'fast' cannot be compared by <"),
        ("[RESPONSE_TIME] < 300 ms", "'300 ms' cannot be compared"),
        ("[CONTEXT].id == 1", "is no placeholder"),
    ],
)
def test_what_is_no_condition_is_refused(condition, said):
    with pytest.raises(MisuseError) as refused:
        parse(condition)
    assert said in str(refused.value)


@given(st.text(max_size=60), st.binary(max_size=60))
def test_every_text_is_a_condition_or_refused_and_never_breaks(text, body):
    try:
        condition = parse(text)
    except MisuseError:
        return
    [found] = check_all((condition,), Answer(status=200, body=body))
    assert isinstance(found.success, bool)


@given(
    st.sampled_from(["[BODY]", "[BODY].a", "[BODY][0]", "len([BODY].a)", "has([BODY].a)", "[STATUS]", "x"]),
    st.sampled_from(["==", "!="]),
    st.text("abc*?[]^-\\()/., 0123456789", max_size=20),
    st.sampled_from([b"", b"[]", b'{"a":[1,{"b":null}]}', b'["x"]', b"12", b"\xff\xfe"]),
)
def test_equal_and_not_equal_are_opposites(left, operator, right, body):
    other = {"==": "!=", "!=": "=="}[operator]
    answer = Answer(status=200, body=body)
    one = check_all((parse(f"{left} {operator} {right}"),), answer)
    two = check_all((parse(f"{left} {other} {right}"),), answer)
    assert one[0].success is not two[0].success
