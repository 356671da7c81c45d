"""curl's URL globs: `{a,b}`, `[1-100]`, `[001-100:10]`, `[a-z]`; the last one changes fastest.

A backslash takes the meaning from the character after it; `[::1]` is an address, no range.

>>> [url for url, _ in expand("http://a.test/{x,y}[1-2]")]
['http://a.test/x1', 'http://a.test/x2', 'http://a.test/y1', 'http://a.test/y2']
"""

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from yelpaze.model.errors import MisuseError

_NUMBERS = re.compile(r"([0-9]+)-([0-9]+)(?::([0-9]+))?")
_LETTERS = re.compile(r"([a-zA-Z])-([a-zA-Z])(?::([0-9]+))?")
_ESCAPED = re.compile(r"\\([\\{}\[\],])")
_MAX_DIGITS = 18


class _Numbers(Sequence[str]):
    """A range with leading zeros kept, counted only when asked for."""

    def __init__(self, first: str, last: str, step: int) -> None:
        self._range = range(int(first), int(last) + 1, step)
        self._width = len(first) if first.startswith("0") else 0

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return str(self._range[index]).zfill(self._width)


def expand(pattern: str, *, globbing: bool = True) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each URL with the values that its globs took, lazily. Raises MisuseError for a bad glob."""
    if not globbing:
        yield pattern, ()
        return
    literals, choices = _parse(pattern)
    if not choices:
        yield literals[0], ()
        return
    for values in _product(choices):
        yield "".join(itertools.chain(*zip(literals, (*values, ""), strict=True))), values


def count(pattern: str, *, globbing: bool = True) -> int:
    """How many URLs there are."""
    total = 1
    for choice in _parse(pattern)[1] if globbing else ():
        total *= len(choice)
    return total


def _product(choices: list[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """itertools.product, but without a copy of each range."""
    if not choices:
        yield ()
        return
    for index in range(len(choices[0])):
        for rest in _product(choices[1:]):
            yield (choices[0][index], *rest)


def _parse(pattern: str) -> tuple[list[str], list[Sequence[str]]]:
    """The text between the globs, one more than there are globs; and what each may be."""
    literals, choices = [""], list[Sequence[str]]()
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and (escaped := _ESCAPED.match(pattern, at)):
            literals[-1] += escaped[1]
            at += 2
        elif character == "{":
            content, at = _until(pattern, at, "}")
            choices.append(_alternatives(pattern, content))
            literals.append("")
        elif character == "[":
            content, after = _until(pattern, at, "]")
            if _is_address(content):
                literals[-1] += pattern[at:after]
            else:
                choices.append(_range(pattern, content))
                literals.append("")
            at = after
        elif character in "}]":
            raise MisuseError(f"bad glob in {pattern!r}: {character!r} without its beginning")
        else:
            literals[-1] += character
            at += 1
    return literals, choices


def _until(pattern: str, start: int, end: str) -> tuple[str, int]:
    at = start + 1
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
            continue
        if pattern[at] == end:
            return pattern[start + 1 : at], at + 1
        if pattern[at] in "{[":
            raise MisuseError(f"bad glob in {pattern!r}: globs cannot stand inside each other")
        at += 1
    raise MisuseError(
        f"bad glob in {pattern!r}: {pattern[start]!r} without its {end!r}; "
        f"write \\{pattern[start]} for the character itself"
    )


def _alternatives(pattern: str, content: str) -> list[str]:
    parts = re.split(r"(?<!\\),", content)
    if parts == [""]:
        raise MisuseError(f"bad glob in {pattern!r}: {{}} has nothing to choose from")
    return [_ESCAPED.sub(r"\1", part) for part in parts]


def _is_address(content: str) -> bool:
    try:
        ipaddress.IPv6Address(content.partition("%")[0])
    except ValueError:
        return False
    return True


def _range(pattern: str, content: str) -> Sequence[str]:
    if found := _NUMBERS.fullmatch(content):
        first, last = found[1], found[2]
        make: Callable[[int], Sequence[str]] = lambda step: _Numbers(first, last, step)  # noqa: E731
        low, high = int(first[:_MAX_DIGITS]), int(last[:_MAX_DIGITS])
        too_long = max(len(first), len(last)) > _MAX_DIGITS
    elif found := _LETTERS.fullmatch(content):
        low, high = ord(found[1]), ord(found[2])
        make = lambda step: [chr(code) for code in range(low, high + 1, step)]  # noqa: E731
        too_long = found[1].islower() != found[2].islower()
    else:
        raise MisuseError(
            f"bad glob in {pattern!r}: [{content}] is no range such as [1-100], [001-100:10] or [a-z]"
        )
    step = int(found[3] or 1)
    if low > high or step < 1 or too_long:
        raise MisuseError(
            f"bad glob in {pattern!r}: [{content}] goes nowhere; it runs upwards, in steps of 1 or more"
        )
    return make(step)
