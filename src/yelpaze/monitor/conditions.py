"""Conditions on the answer of a check, with Gatus's placeholders, functions and meaning.

    [STATUS] == 200        [BODY].status == UP        len([BODY].items) > 0     has([BODY].error) == false
    [RESPONSE_TIME] < 300  [STATUS] == any(200, 204)  [BODY] == pat(*healthy*)  [CERTIFICATE_EXPIRATION] > 48h

`==` and `!=` compare whole numbers if both sides are such (`0x10` and `010` too), else texts. The others
compare whole numbers; a duration counts as milliseconds, and what is neither counts as 0. A condition that
fails is shown with the values that were there: `[STATUS] (500) == 200`.

Different from Gatus: a JSON number is written in full (`1234567`, not `1.234567e+06`), `d` is a unit of
durations, durations are shown as they are, and a literal that `<` or `>` cannot compare is refused.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from yelpaze.model.errors import MisuseError
from yelpaze.monitor import json_path
from yelpaze.monitor.json_path import MISSING

_OPERATORS = ("==", "!=", "<=", ">=", ">", "<")  # the first one that is found counts
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
    ">": lambda left, right: left > right,
    "<": lambda left, right: left < right,
}
_PLACEHOLDERS = (
    "[STATUS]",
    "[IP]",
    "[DNS_RCODE]",
    "[RESPONSE_TIME]",
    "[CONNECTED]",
    "[CERTIFICATE_EXPIRATION]",
    "[DOMAIN_EXPIRATION]",
    "[BODY]",
)
_IN_MS = ("[CERTIFICATE_EXPIRATION]", "[DOMAIN_EXPIRATION]")
_FUNCTION = re.compile(r"(len|has)\((.*)\)", re.DOTALL)
_UNITS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3, "d": 86_400e3}
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h|d)")
_INTEGER = re.compile(
    r"([+-]?)(?:0[xX]_?([0-9a-fA-F_]+)|0[bB]_?([01_]+)|0[oO]_?([0-7_]+)|0([0-7_]+)|(0|[1-9][0-9_]*))",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_MOST = 2**63
_SHOWN = 25  # characters of a text that a pattern did not match
INVALID = "(INVALID)"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a check was answered, for conditions.

    - `status`: 0 without an answer. `response_time`, `certificate` and `domain` (until it expires) are in
      milliseconds, 0 if they are not known.
    - `dns_rcode`: the name server's answer, such as NOERROR.
    """

    status: int = 0
    ip: str = ""
    body: bytes = b""
    response_time: int = 0
    connected: bool = False
    certificate: int = 0
    domain: int = 0
    dns_rcode: str = ""


class _Side(msgspec.Struct, frozen=True):
    """One side: its text, and what stands for a value in it."""

    text: str
    function: str = ""  # len, has
    placeholder: str = ""
    path: tuple[str | int, ...] | None = None
    is_path: bool = False


class ConditionResult(msgspec.Struct, frozen=True, gc=False):
    """Whether a condition holds; `text` is the condition, with values if it does not."""

    text: str
    success: bool


class Condition(msgspec.Struct, frozen=True):
    """A condition that was read. `names` are the placeholders that it needs."""

    text: str
    left: _Side
    operator: str
    right: _Side
    names: frozenset[str]

    def check(self, answer: Answer, decoded: "Body") -> ConditionResult:
        """Whether the answer fulfils it."""
        left, right = _value(self.left, answer, decoded), _value(self.right, answer, decoded)
        if self.operator in _COMPARE:
            numbers = _whole(left), _whole(right)
            if _COMPARE[self.operator](*numbers):
                return ConditionResult(self.text, success=True)
            return ConditionResult(self._with_numbers(*numbers), success=False)
        if _is_equal(left, right) is (self.operator == "=="):
            return ConditionResult(self.text, success=True)
        cut_left, cut_right = _cut(left, right), _cut(right, left)
        text = f"{_shown(self.left, cut_left)} {self.operator} {_shown(self.right, cut_right)}"
        return ConditionResult(text, success=False)

    def _with_numbers(self, left: int, right: int) -> str:
        in_ms = self.left.placeholder in _IN_MS or self.right.placeholder in _IN_MS
        sides = []
        for side, number in ((self.left, left), (self.right, right)):
            is_literal = not side.placeholder
            value = _as_duration(number) if in_ms and not is_literal else str(number)
            sides.append(side.text if is_literal else f"{side.text} ({value})")
        return f"{sides[0]} {self.operator} {sides[1]}"


class Body:
    """The body of one answer, decoded once for all of its conditions."""

    __slots__ = ("_decoded", "_is_decoded", "text")

    def __init__(self, body: bytes) -> None:
        self.text = body.strip().decode("utf-8", "replace")
        self._decoded: Any = MISSING
        self._is_decoded = False

    def json(self) -> Any:
        """The JSON value, or MISSING."""
        if not self._is_decoded:
            self._is_decoded = True
            try:
                self._decoded = msgspec.json.decode(self.text)
            except (msgspec.DecodeError, RecursionError):
                self._decoded = MISSING
        return self._decoded


def check_all(conditions: tuple[Condition, ...], answer: Answer) -> list[ConditionResult]:
    """The result of each condition."""
    body = Body(answer.body)
    return [condition.check(answer, body) for condition in conditions]


@lru_cache(4096)
def parse(text: str) -> Condition:
    """Read a condition. Raises MisuseError.

    >>> from yelpaze.monitor.conditions import Answer, check_all
    >>> check_all((parse("[STATUS] == 200"),), Answer(status=500))
    [ConditionResult(text='[STATUS] (500) == 200', success=False)]
    """
    for operator in _OPERATORS:
        if f" {operator} " in text:
            left, right, *_ = (part.strip() for part in text.split(f" {operator} "))
            break
    else:
        raise MisuseError(f"{text!r} is no condition: it is written `[STATUS] == 200`, {_why(text)}")
    sides = _side(left), _side(right)
    if operator in _COMPARE:
        for side in sides:
            if not side.placeholder and _number(side.text) is None:
                hint = "a number, or a duration such as 300ms, 48h or 7d"
                raise MisuseError(
                    f"{text!r}: {side.text!r} cannot be compared by {operator}: it takes {hint}"
                )
    names = frozenset(side.placeholder for side in sides if side.placeholder)
    return Condition(text, sides[0], operator, sides[1], names)


def _why(text: str) -> str:
    if re.search(r"(==|!=|<=|>=|<|>)", text):
        return "with a space on both sides of the operator"
    return f"with one of {' '.join(_OPERATORS)}"


def _side(text: str) -> _Side:
    found = _FUNCTION.fullmatch(text)
    function, inner = (found[1], found[2]) if found else ("", text)
    upper = inner.upper()
    if upper in _PLACEHOLDERS:
        return _Side(text, function, upper)
    if upper.startswith(("[BODY].", "[BODY][")):
        return _Side(text, function, "[BODY]", json_path.parse(inner[6:]), is_path=True)
    if function or upper.startswith("[CONTEXT]"):
        names = f"[BODY].path and {', '.join(_PLACEHOLDERS)}"
        raise MisuseError(f"{text!r}: {inner!r} is no placeholder: there are {names}")
    if text.startswith("[") and text.endswith("]") and re.fullmatch(r"\[[A-Z_]+\]", text):
        raise MisuseError(f"{text} is no placeholder: there are {', '.join(_PLACEHOLDERS)}")
    return _Side(text)


def _value(side: _Side, answer: Answer, body: Body) -> str:
    if not side.placeholder:
        return side.text
    if side.is_path:
        return _at_path(side, body)
    text = _simple(side.placeholder, answer, body)
    if side.function == "has":
        return "true" if text else "false"
    if side.function == "len":
        is_list = side.placeholder == "[BODY]" and text.startswith("[") and isinstance(body.json(), list)
        return str(len(body.json()) if is_list else len(text.encode()))
    return text


def _at_path(side: _Side, body: Body) -> str:
    decoded = body.json()
    found = MISSING
    if side.path is not None and decoded is not MISSING:
        found = json_path.look_up(decoded, side.path)
    if side.function == "has":
        return "true" if found is not MISSING else "false"
    if found is MISSING:
        return f"{side.text} {INVALID}"
    return str(json_path.length(found)) if side.function == "len" else json_path.as_text(found)


def _simple(name: str, answer: Answer, body: Body) -> str:  # noqa: PLR0911  one for each placeholder
    match name:
        case "[STATUS]":
            return str(answer.status)
        case "[IP]":
            return answer.ip
        case "[DNS_RCODE]":
            return answer.dns_rcode
        case "[RESPONSE_TIME]":
            return str(answer.response_time)
        case "[CONNECTED]":
            return "true" if answer.connected else "false"
        case "[CERTIFICATE_EXPIRATION]":
            return str(answer.certificate)
        case "[DOMAIN_EXPIRATION]":
            return str(answer.domain)
        case _:
            return body.text


def _shown(side: _Side, value: str) -> str:
    if value == side.text:
        return side.text
    return value if value.endswith(INVALID) else f"{side.text} ({value})"


# ── equality ────────────────────────────────────────────────────────────────────


def _is_equal(left: str, right: str) -> bool:
    for name, holds in (("pat", _matches), ("any", _is_one_of)):
        insides = _inside(name, left), _inside(name, right)
        if insides[0] is not None and insides[1] is not None:
            left, right = insides[0], insides[1]
        elif insides[0] is not None:
            return holds(insides[0], right)
        elif insides[1] is not None:
            return holds(insides[1], left)
    numbers = _integer(left), _integer(right)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    return left == right


def _inside(name: str, text: str) -> str | None:
    return text[len(name) + 1 : -1] if text.startswith(f"{name}(") and text.endswith(")") else None


def _is_one_of(options: str, value: str) -> bool:
    return value in {option.strip() for option in options.split(",")}


def _matches(pattern: str, value: str) -> bool:
    if pattern == "*":
        return True
    compiled = _compiled(pattern.replace("/", ""))
    return compiled is not None and compiled.fullmatch(value.replace("/", "")) is not None


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str] | None:  # noqa: C901  one branch for each character
    """A glob as a regular expression: `*`, `?`, classes, backslash; None if it is malformed."""
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        one = pattern[place]
        place += 1
        if one == "*":
            if parts[-1:] != [".*"]:
                parts.append(".*")
        elif one == "?":
            parts.append(".")
        elif one == "\\":
            if place == len(pattern):
                return None
            parts.append(re.escape(pattern[place]))
            place += 1
        elif one == "[":
            end = pattern.find("]", place + 1)
            if end < 0:
                return None
            inside = pattern[place:end]
            negated = "^" if inside.startswith("^") else ""
            body = re.sub(r"([\[\]\\^&~|])", r"\\\1", inside.removeprefix("^"))
            if not body or body.startswith("-"):
                return None
            parts.append(f"[{negated}{body}]")
            place = end + 1
        else:
            parts.append(re.escape(one))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        return None


def _cut(value: str, other: str) -> str:
    """A long text that a pattern did not match is not shown whole."""
    if len(value.encode()) <= _SHOWN or _inside("pat", other) is None or value.endswith(INVALID):
        return value
    return f"{value[:_SHOWN]}...(truncated)"


# ── numbers ─────────────────────────────────────────────────────────────────────


def _integer(text: str) -> int | None:
    """A whole number of 64 bits, in decimal or with 0x, 0b, 0o or 0."""
    found = _INTEGER.fullmatch(text)
    if found is None or "__" in text or text.endswith("_"):
        return None
    sign, *digits = found.groups()
    for digit, base in zip(digits, (16, 2, 8, 8, 10), strict=True):
        if digit is not None:
            number = int(digit.replace("_", ""), base) * (-1 if sign == "-" else 1)
            return number if -_MOST <= number < _MOST else None
    return None


def _number(text: str) -> int | None:
    """A duration in milliseconds, or a number, as a whole number; None if it is neither."""
    if text and text[-1] in "smhd" and _DURATION.fullmatch(text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
        return int(-total if text[0] == "-" else total)
    whole = _integer(text)
    if whole is not None:
        return whole
    if _NUMBER.fullmatch(text):
        value = float(text)
        return int(value) if -_MOST <= value < _MOST else None
    return None


def _whole(text: str) -> int:
    return _number(text) or 0


def _as_duration(milliseconds: int) -> str:
    """Whole seconds as Go writes them, without the parts that are zero.

    >>> _as_duration(86_400_000), _as_duration(-5_430_000), _as_duration(0)
    ('24h', '-1h30m30s', '0s')
    """
    seconds = abs(milliseconds) // 1000
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    text = "".join(f"{number}{unit}" for number, unit in parts if number)
    return ("-" if milliseconds < 0 and text else "") + (text or "0s")
