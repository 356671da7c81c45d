"""Offers for customers: one base call, three services at once, then CPU-bound work.

    yelpaze demo serve &
    yelpaze run examples/offers/flow.py rows.jsonl

A row is what people often have in hand: a URL and the JSON to send to it.
"""

import os
import zlib

import msgspec

from yelpaze import Failure, Flow, post

SHOP = os.environ.get("SHOP", "http://127.0.0.1:8099")

flow = Flow("offers")


class Row(msgspec.Struct):
    url: str
    json: dict[str, object]


class Item(msgspec.Struct):
    sku: str
    quantity: int


class Data(msgspec.Struct):
    items: list[Item]


class Base(msgspec.Struct):
    data: Data


class Price(msgspec.Struct):
    cents: int


class Offer(msgspec.Struct):
    items: int
    total_cents: int
    discount_percent: int
    in_stock: bool | None
    checksum: str


@flow.request(idempotent=True)
def base(row: Row):
    return post(row.url, json=row.json)


@flow.request(idempotent=True)
def details(base: Base):
    return post(f"{SHOP}/details", json={"items": base.data.items})


@flow.request(idempotent=True)
def prices(base: Base):
    return post(f"{SHOP}/prices", json={"items": base.data.items})


@flow.request(idempotent=True, optional=True)  # without the stock an offer can still be made
def stock(base: Base):
    return post(f"{SHOP}/inventory", json={"items": base.data.items})


@flow.compute(timeout=5)
def offer(
    base: Base,
    details: dict[str, dict[str, object]],
    prices: dict[str, Price],
    stock: dict[str, int] | Failure,
) -> Offer:
    items = base.data.items
    total = sum(prices[item.sku].cents * item.quantity for item in items)
    in_stock = None if isinstance(stock, Failure) else all(stock[i.sku] >= i.quantity for i in items)
    return Offer(len(items), total, best_discount(total), in_stock, checksum(details))


def best_discount(total: int) -> int:
    """The discount with the highest expected margin: some honest CPU work, about 100 µs."""
    margins = ((total * (100 - d) // 100) * (40 + 3 * d - d * d // 25) for d in range(400))
    return max(enumerate(margins), key=lambda pair: pair[1])[0] % 60


def checksum(details: dict[str, dict[str, object]]) -> str:
    return f"{zlib.crc32(repr(sorted(details)).encode()):08x}"
