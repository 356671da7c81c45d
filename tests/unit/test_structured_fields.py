"""The published test cases of structured fields (RFC 9651), on the fields that we read and write.

`make servers` fetches them into .cache/, which git ignores.
"""

import json
from pathlib import Path

import http_sf
import pytest

from support.needed import absent
from yelpaze import MisuseError, post
from yelpaze.model.headers import Headers
from yelpaze.policy.quota import Quota, read_quota

FOLDER = Path(__file__).parents[2] / ".cache" / "structured-field-tests"


def cases(pattern, wanted):
    """Those wanted, as parameters; one that stands for all where there are no files."""
    found = [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in sorted(FOLDER.glob(pattern))
        for case in json.loads(path.read_text(encoding="utf-8"))
        if wanted(case)
    ]
    return found or [pytest.param(None, id="absent")]


def is_list(case):
    return case["header_type"] == "list"


def is_string(case):
    return case["header_type"] == "item" and isinstance(case.get("expected", [None])[0], str)


@pytest.fixture(autouse=True)
def _installed():
    if not FOLDER.is_dir():
        absent("the structured-field test cases")


def quota_of(*lines):
    fields = "".join(f"RateLimit: {line}\r\n" for line in lines)
    return read_quota(Headers(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode()), wall=0)


@pytest.mark.parametrize("case", cases("*.json", is_list))
def test_a_list_as_a_rate_limit(case):
    assert quota_of(*case["raw"]) is None  # none of them has both r and t
    if any("\n" in line for line in case["raw"]):
        return  # that would end the field
    # A good member before it counts if, and only if, all of the field is well formed.
    legible = not case.get("must_fail") and case["raw"] != [""]
    assert quota_of('"good";r=7;t=30', *case["raw"]) == (Quota(7, 30.0) if legible else None)


@pytest.mark.parametrize("case", cases("*.json", is_string))
def test_a_string_as_an_idempotency_key(case):
    text, parameters = case["expected"]
    assert parameters == []
    if not text:  # a field could carry it, but a key that all requests share is none
        with pytest.raises(MisuseError):
            post("http://a.test/", idempotency_key=text)
        return
    field = dict(post("http://a.test/", idempotency_key=text).headers)["Idempotency-Key"]
    assert [field] == case.get("canonical", case["raw"])
    assert http_sf.parse(field.encode(), tltype="item") == (text, {})


@pytest.mark.parametrize("case", cases("serialisation-tests/*.json", is_string))
def test_strings_that_no_field_can_carry(case):
    assert case["must_fail"]
    with pytest.raises(MisuseError):
        post("http://a.test/", idempotency_key=case["expected"][0])
