"""Prices for the orders of the day: a CSV file in, a table out.

yelpaze run examples/nightly/flow.py orders.csv -o orders.db
"""

import os

import msgspec

from yelpaze import Flow, post

SHOP = os.environ.get("SHOP", "http://127.0.0.1:8099")

flow = Flow("nightly", secrets=["customer_token"])


class Order(msgspec.Struct):
    order: int
    sku: str
    quantity: int = 1
    note: str | None = None


class Priced(msgspec.Struct):
    order: int
    cents: int
    in_stock: bool


def items(row: Order) -> dict:
    return {"items": [{"sku": row.sku, "quantity": row.quantity}]}


@flow.request(idempotent=True)
def prices(row: Order):
    return post(f"{SHOP}/prices", json=items(row))


@flow.request(idempotent=True)
def stock(row: Order):
    return post(f"{SHOP}/inventory", json=items(row))


@flow.compute
def priced(row: Order, prices: dict, stock: dict) -> Priced:
    cents = prices[row.sku]["cents"] * row.quantity
    return Priced(order=row.order, cents=cents, in_stock=stock[row.sku] >= row.quantity)
