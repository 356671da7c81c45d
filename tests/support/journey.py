"""A flow that hands on every kind of value that steps can have."""

import datetime as dt
import os
from dataclasses import dataclass

import msgspec

from yelpaze import Failure, Flow, Response, get

everything = Flow("everything")


class Row(msgspec.Struct):
    url: str
    n: int = 0
    at: dt.date | None = None


class Body(msgspec.Struct):
    n: int


class Point(msgspec.Struct):
    x: float
    tags: tuple[str, ...] = ()


@dataclass
class Area:
    points: list[Point]
    ratio: float


@everything.compute
def seed(row: Row) -> Point:
    return Point(float("nan") if row.n % 5 == 4 else row.n / 2, ("a", str(row.at)))


@everything.compute
def loose(row):
    return {"n": row["n"], "deep": [1, 2.5, None, True, "ü", {"x": []}]}


@everything.request
def one(row: Row):
    return get(f"{row.url}/{row.n}")


@everything.request(optional=True)
def many(row: Row):
    return [get(f"{row.url}/{n}") for n in (row.n, 404, row.n + 1)]


@everything.request
def named(row: Row):
    return {"a": get(f"{row.url}/1"), "b": get(f"{row.url}/2")}


@everything.request
def skipped(row: Row):
    return None if row.n % 2 else get(f"{row.url}/7")


@everything.request(optional=True)
def failing(row: Row):
    return get(f"{row.url}/404")


@everything.compute
def area(seed: Point, loose) -> Area:
    return Area([seed, Point(2.0)], len(loose["deep"]) / 4)


@everything.compute
def listed(seed: Point) -> list[Point]:
    return [seed, seed]


@everything.compute(optional=True)
def raising(row: Row) -> int:
    if row.n == 3:
        raise LookupError("three")
    return row.n


@everything.compute
def end(
    row: Row,
    one: Response,
    many: list[Body | Failure] | Failure,
    named: dict[str, Body],
    skipped: Body | None,
    failing: Body | Failure,
    area: Area,
    listed: list[Point],
    raising: int | Failure,
) -> dict:
    return {
        "row": msgspec.to_builtins(row),
        "one": [one.status, one.headers["content-type"], one.json(), one.request.method, one.ok],
        "many": [[item.kind, item.status] if isinstance(item, Failure) else item.n for item in many],
        "named": {name: body.n for name, body in named.items()},
        "skipped": skipped and skipped.n,
        "failing": failing.status,
        "area": [type(area).__name__, [type(point).__name__ for point in area.points], str(area)],
        "listed": str(listed),
        "raising": raising.message if isinstance(raising, Failure) else raising,
    }


def pid() -> int:
    return os.getpid()


def crash() -> None:
    os._exit(9)


def hang() -> None:
    while True:
        pass


def greet(name: str, *, at: dt.date | None = None) -> str:
    return f"{name} {at!r}"


def point(x: float) -> Point:
    return Point(x)


def size(data: bytes) -> int:
    return len(data)


def large(count: int) -> bytes:
    return b"x" * count


def unsendable() -> object:
    return object()


def failing_function() -> None:
    raise LookupError("no such thing")
