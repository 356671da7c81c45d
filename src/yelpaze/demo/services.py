"""What the demo services answer: pure functions from path and body to JSON.

A small shop. Every answer follows from the request alone, so runs can be compared.
"""

import zlib
from typing import Any

import msgspec

# The four services of an order page and the seconds that each takes.
ORDER_PAGE = {"customer": 0.150, "order": 0.200, "payment": 0.180, "shipping": 0.220}
_NAMES = ("lamp", "chair", "table", "shelf", "clock", "mirror", "carpet", "vase")


class NotFoundError(Exception):
    """There is no such path, or it takes another method."""


class BadBodyError(Exception):
    """The body is not what the service takes."""


class Item(msgspec.Struct):
    sku: str
    quantity: int


class Items(msgspec.Struct):
    items: list[Item]


_decode_items = msgspec.json.Decoder(Items).decode
_encode = msgspec.json.encode


def answer(method: str, path: str, body: bytes) -> tuple[bytes, float]:
    """The JSON answer, and how long the service takes in seconds of its own."""
    if path == "/ping":
        return b'{"data":{"items":[1,2,3,4,5]}}', 0.0
    if path == "/":
        return _encode(_INDEX), 0.0
    head, _, tail = path[1:].partition("/")
    if head == "order-page" and tail in ORDER_PAGE:
        return _encode({"service": tail, "status": "ok"}), ORDER_PAGE[tail]
    if method != "POST":
        raise NotFoundError(path)
    if head == "products" and tail:
        return _encode(_products(tail, body)), 0.0
    service = _SERVICES.get(path)
    if service is None:
        raise NotFoundError(path)
    try:
        return _encode(service(_decode_items(body).items)), 0.0
    except msgspec.DecodeError as error:
        raise BadBodyError(str(error)) from None


def _number(*parts: object) -> int:
    """A number that looks random and follows from the parts."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def _products(segment: str, body: bytes) -> dict[str, Any]:
    seed = zlib.crc32(body, zlib.crc32(segment.encode()))
    items = [
        {
            "sku": f"{segment}-{_number(seed, place) % 500:03}",
            "quantity": 1 + _number(place, seed) % 5,
        }
        for place in range(1 + seed % 5)
    ]
    return {"data": {"items": items}}


def _details(items: list[Item]) -> dict[str, Any]:
    return {
        item.sku: {
            "name": _NAMES[_number(item.sku) % len(_NAMES)],
            "grams": 100 + _number(item.sku) % 9900,
        }
        for item in items
    }


def _prices(items: list[Item]) -> dict[str, Any]:
    return {
        item.sku: {"cents": 199 + _number("price", item.sku) % 20_000, "currency": "EUR"} for item in items
    }


def _inventory(items: list[Item]) -> dict[str, Any]:
    return {item.sku: _number("stock", item.sku) % 40 for item in items}


_SERVICES = {"/details": _details, "/prices": _prices, "/inventory": _inventory}
_INDEX = {
    "POST /products/{segment}": '{"data": {"items": [{"sku": …, "quantity": …}, …]}}',
    "POST /details": "takes {items}; gives name and weight for each sku",
    "POST /prices": "takes {items}; gives a price for each sku",
    "POST /inventory": "takes {items}; gives the stock of each sku",
    **{f"GET /order-page/{name}": f"{seconds * 1000:.0f} ms" for name, seconds in ORDER_PAGE.items()},
    "GET /ping": "at once",
    "?fault=500|503|reset|stall|truncate": "force a fault on any of them",
}
